"""`promptlimits construct` through the entry point."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptlimits.cli.lab import construct
from promptlimits.lab.universal.universal import BUILT_IN

Call = Callable[..., Any]
UNIVERSAL = ("construct", "universal")


def test_sin(call: Call, here: Path) -> None:
    ended = call(*UNIVERSAL, "--function", "sin", "--eps", "0.05", "--json", "--plot", "sin.svg")
    assert (ended.code, ended.err) == (0, "")
    told = json.loads(ended.out)
    assert told["measured_sup_error"] <= told["bound"] <= 0.05
    assert told["measured_sup_error"] > 0.045
    assert told["prompt_tokens"] == 63
    assert 0 < told["exceptional_measure"] <= 1e-6
    assert told["domain"] == [-np.pi, np.pi]
    assert told["measured_points"] + told["points_left_out"] == 20_001
    drawing = (here / "sin.svg").read_text(encoding="utf-8")
    assert ET.fromstring(drawing).tag.endswith("svg")
    assert "sin by a prompt of 63 tokens" in drawing


def test_one_set_of_weights_and_words_for_people(call: Call) -> None:
    told = [
        json.loads(call(*UNIVERSAL, "--function", name, "--json").out) for name in ("sin", "cos")
    ]
    assert told[0]["weights_sha256"] == told[1]["weights_sha256"]
    ended = call(*UNIVERSAL, "--function", "sin")
    assert "they know the class of the map, not the map" in ended.out
    assert "proved:  off a share of 9.2e-07 of the inputs the error is at most 0.049" in ended.out
    assert tuple(BUILT_IN) == construct._FUNCTIONS


def test_a_long_prompt_shows_progress(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(construct, "_LONG_PROMPT", 2**15)
    monkeypatch.setattr(construct, "_LOGITS", 10**7)
    ended = call(*UNIVERSAL, "--function", "abs", "--eps", "1/50000", "--json")
    told = json.loads(ended.out)
    assert told["prompt_tokens"] > 2**15
    assert told["measured_points"] + told["points_left_out"] == construct._LEAST_POINTS
    assert told["measured_sup_error"] <= told["bound"]
    assert "inputs behind a prompt of" in ended.err
    assert "4 of 4 blocks" in ended.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--function", "sin", "--eps", "0"], ["--eps must be a finite number above 0"]),
        (["--function", "sin", "--eps", "nan"], ["--eps must be a finite number above 0"]),
        (["--function", "sin", "--eps=-1"], ["--eps must be a finite number above 0"]),
        (["--function", "sin", "--eps", "1e-9"], ["got 3,14", "tokens"]),
        (["--function", "sin", "--eps", "1e-7"], ["fit in", "which take"]),
        (["--function", "sin", "--eps", "1e-99"], ["above what float64 resolves"]),
        (["--function", "tan"], ["--function must be one of sin, cos"]),
        ([], ["--function"]),
        (
            ["--function", "sin", "--lipschitz", "0.5"],
            ["--lipschitz must be at least 1, the constant of sin"],
        ),
        (["--function", "sin", "--plot", "no/where.svg"], ["--plot must be a file"]),
        (["--function", "square", "--lipschitz", "1.1", "--eps", "0.5"], ["must be at least 2"]),
        (["--function", "sin", "--lipschitz", "1e-400"], ["be from 1e-300 to 1e300"]),
        (["--function", "sin", "--eps", "1e309"], ["--eps must be from 1e-300 to 1e300"]),
    ],
)
def test_bad_input(call: Call, arguments: list[str], words: list[str]) -> None:
    call(*UNIVERSAL, *arguments).says(2, *words)


def test_no_run_for_a_drawing_that_cannot_be_written(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(construct, "_of_function")
    call(*UNIVERSAL, "--function", "sin", "--plot", "no/where.svg").says(2, "there is no folder")


def test_sizes(call: Call) -> None:
    options = ["--dim", "768", "--tokens", "2", "--lipschitz", "1", "--eps", "30"]
    told = json.loads(call("construct", "sizes", *options, "--json").out)
    assert told["sufficient_log10_prompt_tokens"] == pytest.approx(640.97, abs=0.01)
    assert told["necessary_log10_prompt_tokens"] is None
    assert "lora_numbers" not in told
    text = call("construct", "sizes", *options).out
    assert "at most 10^640.97 prompt tokens" in text
    assert "none; the constant 1/2 is within eps" in text
    assert "at least 1 prompt tokens" in call("construct", "sizes", "--eps", "0.49").out
    call("construct", "sizes", "--eps", "0").says(2, "--eps must be a finite number above 0")
    call("construct", "sizes", "--exponent", "0.5").says(2, "exponent must be 1 or more")
    call("construct", "sizes", "--dim", "0").says(2, "--dim must be a whole number")


def test_sizes_counts_lora(call: Call) -> None:
    options = ["--dim", "16", "--pairs", "10", "--heads", "3"]
    told = json.loads(call("construct", "sizes", *options, "--json").out)
    assert (told["prompt_tokens"], told["prompt_numbers"], told["lora_numbers"]) == (4, 64, 196)
    text = call("construct", "sizes", *options).out
    assert "at least 4 tokens, 64 numbers" in text
    assert "196 numbers are enough" in text
    call("construct", "sizes", "--heads", "3").says(2, "--heads must come with --pairs")
    call("construct", "sizes", "--dim", "16", "--pairs", "16").says(2, "pairs must be at most")
