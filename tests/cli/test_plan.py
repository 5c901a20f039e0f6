"""`promptlimits plan` through the entry point."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

Call = Callable[..., Any]
USUAL = ["--dim", "768", "--lipschitz", "10", "--radius", "1", "--eps", "0.1"]


def test_json(call: Call) -> None:
    ended = call("plan", "--pairs", "64", *USUAL, "--prompt-tokens", "20", "--json")
    assert (ended.code, ended.err) == (0, "")
    told = json.loads(ended.out)
    assert told["shortest_prompt"] == 21
    assert told["exact_access_prompt"] == 64
    assert (told["most_pairs"], told["longest_answers"]) == (63, 0)
    assert told["excluded_by"] == "lipschitz"
    assert 0.1 < told["largest_error_excluded"] < told["error_not_excluded"] < 0.11


def test_it_agrees_with_ceiling(call: Call) -> None:
    for length in ("7", "20", "333"):
        ceiling = json.loads(call("ceiling", *USUAL, "--prompt-tokens", length, "--json").out)
        plan = json.loads(
            call("plan", "--pairs", "5", *USUAL, "--prompt-tokens", length, "--json").out
        )
        assert plan["most_pairs"] == ceiling["corrected"]["first_pairs_excluded"] - 1


def test_text(call: Call) -> None:
    ended = call("plan", "--pairs", "64", *USUAL)
    assert ended.code == 0
    assert "64 pairs: a prompt of fewer than 21 tokens will not do." in ended.out
    assert "With 21 prompt tokens: not excluded." in ended.out
    flat = call("plan", "--pairs", "2", *USUAL[:3], "0.5", *USUAL[4:])
    assert "2 pairs: no length of prompt will do." in flat.out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--pairs", "0"], "--pairs"),
        (["--pairs", "5", "--share", "2"], "--share"),
        (["--pairs", "5", "--share", "0"], "--share"),
        (["--pairs", "5", "--eps", "2"], "--eps must be below --radius"),
        (["--pairs", "5", "--prompt-tokens", "-1"], "--prompt-tokens"),
    ],
)
def test_bad_input_is_one_line(call: Call, changes: list[str], words: str) -> None:
    call("plan", *USUAL, *changes).says(2, words)
