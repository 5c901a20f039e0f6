"""Rates of products are measured once on a machine, and decide with a margin."""

import json

import pytest
import torch

from promptlimits.nets.decoder import rate
from promptlimits.nets.decoder.rate import WORTH_IT, ProductRates, measure, product_rates

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PROMPTLIMITS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def measured(monkeypatch):
    """The widths that were measured; each time the machine seems faster."""
    widths = []

    def found(width, _device):
        widths.append(width)
        return ProductRates(float32_gflops=10.0, bfloat16_gflops=10.0 * len(widths))

    monkeypatch.setattr(rate, "measure", found)
    return widths


def test_it_is_measured_once_for_each_width(cache, measured):
    first = product_rates(64, CPU)
    assert product_rates(64, CPU) == first == ProductRates(float32_gflops=10, bfloat16_gflops=10)
    assert product_rates(128, CPU).ratio == 2
    assert measured == [64, 128]


@pytest.mark.parametrize("change", ["node", "threads"])
def test_another_machine_and_other_threads_are_measured_anew(change, cache, measured, monkeypatch):
    product_rates(64, CPU)
    if change == "node":
        monkeypatch.setattr(rate.platform, "node", lambda: "elsewhere")
    else:
        monkeypatch.setattr(rate.torch, "get_num_threads", lambda: 99)
    product_rates(64, CPU)
    assert measured == [64, 64]


@pytest.mark.parametrize("kept", ["no json", "[]", "{}", '{"KEY": "fast"}', '{"KEY": [0, 1]}'])
def test_a_damaged_cache_is_measured_over(kept, cache, measured):
    product_rates(64, CPU)
    (path,) = cache.glob("*.json")
    (key,) = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(kept.replace("KEY", key), encoding="utf-8")
    product_rates(64, CPU)
    product_rates(64, CPU)
    assert measured == [64, 64]


def test_a_cache_that_cannot_be_written_changes_nothing_else(tmp_path, measured, monkeypatch):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("PROMPTLIMITS_CACHE", str(tmp_path / "file"))
    assert product_rates(64, CPU).ratio == 1
    assert measured == [64]


def test_both_rates_are_of_this_machine():
    found = measure(32, CPU)
    assert found.float32_gflops > 0
    assert found.bfloat16_gflops > 0


def test_a_search_is_narrow_from_a_ratio_on():
    assert [
        ProductRates(float32_gflops=1.0, bfloat16_gflops=each).pays
        for each in (0.04, 1.0, WORTH_IT - 0.01, WORTH_IT)
    ] == [False, False, False, True]
