"""`promptlimits unmemorizable` through the entry point."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from promptlimits.cli.lab.weights_options import Layer
from promptlimits.lab.one_layer.prompt_length_data import outputs_behind
from promptlimits.nets.paper.files import save_transformer
from promptlimits.nets.paper.transformer import from_weights
from promptlimits.nets.paper.weights import random_weights

Call = Callable[..., Any]
RANDOM = ["--random-layer", "d=9,h=2,seed=3,f=12"]


def tensors(dim=6, heads=1, hidden=0):
    generator = np.random.default_rng(0)
    found = {
        f"heads.{i}.{part}": generator.standard_normal((dim, dim))
        for i in range(heads)
        for part in ("query", "key", "value", "output")
    }
    found["w1"], found["b1"] = np.zeros((hidden, dim)), np.zeros(hidden)
    found["w2"], found["b2"] = np.zeros((dim, hidden)), np.zeros(dim)
    return found


def test_the_default_follows_the_heads(call):
    pair = json.loads(call("unmemorizable", "--random-layer", "d=5", "--json").out)
    assert (pair["kind"], len(pair["queries"])) == ("pair", 2)
    several = json.loads(call("unmemorizable", *RANDOM, "--json").out)
    assert (several["kind"], len(several["queries"])) == ("any", 3)
    for told in (pair, several):
        assert told["proved"]["no_prompt_of_any_length"] is True
        assert told["proved"]["largest_error_at_least"] > 0.1
        last = {tuple(query[-1]) for query in told["queries"]}
        assert len(last) == 1


def test_files_and_text(call, here):
    ended = call("unmemorizable", *RANDOM, "--out", "data.json", "--plot", "drawing.svg")
    assert (ended.code, ended.err) == (0, "")
    assert "behind every prompt of every length some answer is wrong by at least" in ended.out
    assert ended.out.endswith("Written: data.json\n")
    told = json.loads(call("unmemorizable", *RANDOM, "--json").out)
    assert json.loads((here / "data.json").read_text(encoding="utf-8")) == told
    assert ET.fromstring((here / "drawing.svg").read_text(encoding="utf-8")).tag.endswith("svg")


def test_length_data(call, here):
    told = json.loads(
        call("unmemorizable", *RANDOM, "--pairs", "5", "--json", "--plot", "a.svg").out
    )
    assert told["kind"] == "length"
    assert told["proved"]["prompt_tokens_at_least"] == 3
    text = call("unmemorizable", *RANDOM, "--kind", "length", "--pairs", "5").out
    assert "no prompt of fewer than 3 tokens answers them all" in text
    assert (here / "a.svg").exists()


def test_weights_from_a_folder_and_from_a_file(call, here):
    weights = random_weights(
        dim=6,
        heads=1,
        head_dim=6,
        hidden=0,
        layers=1,
        generator=np.random.default_rng(1),
        masked=True,
    )
    save_transformer(from_weights(weights), here / "model")
    head = weights.layers[0].heads[0]
    parts = {f"heads.0.{p}": getattr(head, p) for p in ("query", "key", "value", "output")}
    empty = {k: v for k, v in tensors().items() if k in ("w1", "b1", "w2", "b2")}
    save_file({**parts, **empty}, here / "layer.safetensors")
    folder = call("unmemorizable", "--weights", "model", "--json")
    file = call("unmemorizable", "--weights", "layer.safetensors", "--json", "--plot", "s.svg")
    assert folder.code == file.code == 0
    assert folder.out == file.out
    assert "along the segment" in (here / "s.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heads.0.query": np.zeros((6, 6), np.float32)}, "floats of one kind"),
        ({"heads.0.query": np.full((6, 6), np.nan)}, "finite"),
        ({"heads.0.query": np.zeros((6, 5))}, "shape"),
        ({"heads.0.bias": np.zeros(6)}, "unknown heads.0.bias"),
        ({"heads.0.key": None}, "missing heads.0.key"),
        ({"heads.0.query": None}, "at least one head"),
        ({"heads.0.value": np.zeros((6, 6))}, "must be regular, got rank 0 of 6"),
        (
            {"w1": np.eye(6), "b1": np.zeros(6), "w2": -np.eye(6)},
            "below 1, so that the MLP is one to one",
        ),
    ],
)
def test_bad_weights_are_one_line(call, here, change, words):
    found = {k: v for k, v in (tensors() | change).items() if v is not None}
    save_file(found, here / "layer.safetensors")
    call("unmemorizable", "--weights", "layer.safetensors").says(2, words)


def test_a_file_cut_off(call, here):
    save_file(tensors(), here / "layer.safetensors")
    whole = (here / "layer.safetensors").read_bytes()
    (here / "layer.safetensors").write_bytes(whole[:100])
    call("unmemorizable", "--weights", "layer.safetensors").says(2, "whole safetensors file")


@pytest.mark.parametrize(
    "arguments", [["--random-layer", "d=9,h=2,scale=1e6"], ["--random-layer", "d=9,scale=1e6"]]
)
def test_data_of_which_nothing_is_proved_are_not_written(call, here, arguments):
    call("unmemorizable", *arguments, "--out", "data.json").says(1, "nothing is proved of the data")
    assert not (here / "data.json").exists()


@pytest.mark.parametrize("pairs", [[], ["--pairs", "5"]])
def test_a_lora_change_learns_what_no_prompt_does(call, pairs):
    text = call("unmemorizable", *RANDOM, *pairs, "--lora").out
    told = json.loads(call("unmemorizable", *RANDOM, *pairs, "--lora", "--json").out)
    change, count = told["lora"], len(told["queries"])
    assert change["numbers"] == (count + 1) * 9 + 2 * count
    assert f"a LoRA change of the MLP by {change['numbers']} numbers answers them all" in text
    assert change["largest_error_measured"] < 1e-8
    # The change is made again from the file alone, and run.
    layer = Layer(random_layer="d=9,h=2,seed=3,f=12").read()
    w1, b1, w2 = layer.w1.copy(), layer.b1.copy(), layer.w2.copy()
    scales = np.array(change["scales"])
    w1[:count] += np.outer(scales, change["direction"])
    b1[:count] -= scales * np.array(change["thresholds"])
    w2[:, :count] = change["columns"]
    queries = tuple(np.array(query).T for query in told["queries"])
    changed = replace(layer, w1=w1, b1=b1, w2=w2)
    got = outputs_behind(changed, queries, np.zeros((9, 0)))
    assert got == pytest.approx(np.array(told["answers"]), abs=1e-8)
    before = outputs_behind(layer, queries, np.zeros((9, 0)))
    assert np.abs(before - np.array(told["answers"])).max() > 0.1


def test_lora_needs_a_neuron_for_each_pair(call, here):
    ended = call("unmemorizable", "--random-layer", "d=9", "--lora", "--out", "data.json")
    ended.says(2, "hidden neurons must be at least as many as the 2 pairs, got 0")
    assert not (here / "data.json").exists()


def test_what_is_not_proved_is_named(call, here):
    """A large bias rounds the answers: the span is then open, and the floor is not."""
    save_file(tensors() | {"b2": np.full(6, 1e15)}, here / "layer.safetensors")
    text = call("unmemorizable", "--weights", "layer.safetensors").out
    assert "not proved: a_1 lies outside span{t_1, t_2, a_2}." in text
    assert "some answer is wrong by at least 0." in text
    # Large values hide the floor, and not the span.
    text = call("unmemorizable", "--random-layer", "d=9,scale=3e4").out
    assert "no prompt of any length meets the answers exactly; no floor" in text
    assert "not proved" not in text
