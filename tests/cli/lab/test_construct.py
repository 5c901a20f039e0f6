"""`promptlimits construct` through the entry point."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest

from promptlimits.cli.lab import construct
from promptlimits.lab.universal.universal import BUILT_IN

Call = Callable[..., Any]
UNIVERSAL = ("construct", "universal")


def test_sin(call, here):
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


def test_one_set_of_weights_and_words_for_people(call):
    told = [
        json.loads(call(*UNIVERSAL, "--function", name, "--json").out) for name in ("sin", "cos")
    ]
    assert told[0]["weights_sha256"] == told[1]["weights_sha256"]
    ended = call(*UNIVERSAL, "--function", "sin")
    assert "they know the class of the map, not the map" in ended.out
    assert "proved:  off a share of 9.2e-07 of the inputs the error is at most 0.049" in ended.out
    assert tuple(BUILT_IN) == get_args(construct.Function)


def test_a_long_prompt_shows_progress(call, monkeypatch):
    monkeypatch.setattr(construct, "_LONG_PROMPT", 2**15)
    monkeypatch.setattr(construct, "_LOGITS", 10**7)
    ended = call(*UNIVERSAL, "--function", "abs", "--eps", "1/50000", "--json")
    told = json.loads(ended.out)
    assert told["prompt_tokens"] > 2**15
    assert told["measured_points"] + told["points_left_out"] == construct._LEAST_POINTS
    assert told["measured_sup_error"] <= told["bound"]
    assert "inputs behind a prompt of" in ended.err
    assert "4 of 4 blocks" in ended.err


def test_the_papers_route(call, here):
    paper = (*UNIVERSAL, "--function", "square", "--route", "paper")
    ended = call(*paper, "--eps", "1.2", "--json", "--plot", "square.svg")
    assert (ended.code, ended.err) == (0, "")
    told = json.loads(ended.out)
    assert (told["route"], told["prompt_tokens"], told["layers"]) == ("paper", 3, 349)
    assert told["measured_sup_error"] <= told["bound"] <= 1.2
    assert told["exceptional_measure"] == 0
    assert told["standard_layers"]["measured_sup_error"] <= told["bound"]
    assert "square by a prompt of 3 tokens" in (here / "square.svg").read_text(encoding="utf-8")
    text = call(*paper, "--eps", "2").out
    assert "proved:  off a set of measure 0 the error is at most 1.5" in text
    assert "found 1 off a quarter of the inputs" in text


def test_no_run_for_a_drawing_that_cannot_be_written(call, monkeypatch):
    monkeypatch.delattr(construct, "_by_table")
    call(*UNIVERSAL, "--function", "sin", "--plot", "pairs.csv/where.svg").says(
        2, "--plot must be a file"
    )


def test_sizes(call):
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
    call("construct", "sizes", "--dim", "0").says(2, "--dim must be 1 or more, got '0'")


def test_sizes_counts_lora(call):
    options = ["--dim", "16", "--pairs", "10", "--heads", "3"]
    told = json.loads(call("construct", "sizes", *options, "--json").out)
    assert (told["prompt_tokens"], told["prompt_numbers"], told["lora_numbers"]) == (4, 64, 196)
    text = call("construct", "sizes", *options).out
    assert "at least 4 tokens, 64 numbers" in text
    assert "196 numbers are enough" in text
    call("construct", "sizes", "--heads", "3").says(2, "--heads must come with --pairs")
    call("construct", "sizes", "--dim", "16", "--pairs", "16").says(2, "pairs must be at most")
