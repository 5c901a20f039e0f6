"""`promptlimits plan` through the entry point."""

import json
from collections.abc import Callable
from typing import Any

import pytest

Call = Callable[..., Any]
USUAL = ["--dim", "768", "--lipschitz", "10", "--radius", "1", "--eps", "0.1"]


def test_json(call):
    ended = call("plan", "--pairs", "64", *USUAL, "--prompt-tokens", "20", "--json")
    assert (ended.code, ended.err) == (0, "")
    told = json.loads(ended.out)
    assert told["shortest_prompt"] == 21
    assert told["exact_access_prompt"] == 64
    assert (told["most_pairs"], told["longest_answers"]) == (63, 0)
    assert told["excluded_by"] == "lipschitz"
    assert 0.1 < told["largest_error_excluded"] < told["error_not_excluded"] < 0.11


def test_it_agrees_with_ceiling(call):
    for length in ("7", "20", "333"):
        ceiling = json.loads(call("ceiling", *USUAL, "--prompt-tokens", length, "--json").out)
        plan = json.loads(
            call("plan", "--pairs", "5", *USUAL, "--prompt-tokens", length, "--json").out
        )
        assert plan["most_pairs"] == ceiling["corrected"]["first_pairs_excluded"] - 1


def test_text(call):
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
        (["--pairs", "5", "--eps", "2"], "--eps must be below the radius of the targets, 1"),
        (["--pairs", "5", "--prompt-tokens", "-1"], "--prompt-tokens"),
    ],
)
def test_bad_input_is_one_line(call, changes, words):
    call("plan", *USUAL, *changes).says(2, words)


SMALL = ["--dim", "3", "--lipschitz", "10", "--radius", "1", "--prompt-tokens"]


def test_what_is_excluded_has_an_error_that_is(call):
    case = ["--pairs", "101", *SMALL, "100", "--eps", "1e-20", "--storage", "float64"]
    ended = call("plan", *case)
    assert "excluded (float64)." in ended.out
    assert "errors: up to 7.26872e-20 excluded." in ended.out
    told = json.loads(call("plan", *case, "--json").out)
    assert 1e-20 < told["largest_error_excluded"] < told["error_not_excluded"]


def test_errors_are_rounded_down(call):
    """The error of the case is not excluded, and an error of the radius never is."""
    large = ["--dim", "1000000000", "--lipschitz", "1e1000000", "--radius", "1", "--eps", "0.1"]
    assert "up to 0.0999999 excluded" in call("plan", "--pairs", "1000000000", *large).out
    flat = ["--dim", "3", "--lipschitz", "1e-1000000", "--radius", "1", "--eps", "0.1"]
    assert "up to 0.999999 excluded" in call("plan", "--pairs", "5", *flat).out


def test_one_token_is_not_said_to_be_needed(call):
    case = ["--dim", "1", "--lipschitz", "10", "--radius", "1", "--eps", "0.5", "--share", "0.1"]
    assert "1 pairs: no length of prompt is excluded." in call("plan", "--pairs", "1", *case).out


def test_radii_beyond_floats(call):
    case = ["--dim", "3", "--lipschitz", "10", "--prompt-tokens", "4", "--pairs", "50"]
    for radius, eps, floor in (("1e400", "1e399", "e+399"), ("1e-400", "1e-401", "e-401")):
        radii = ["--radius", radius, "--eps", eps]
        assert f"up to 5.69086{floor} excluded" in call("plan", *case, *radii).out
        told = json.loads(call("plan", *case, *radii, "--json").out)
        assert told["largest_error_excluded"] < told["error_not_excluded"]
        assert told["largest_error_excluded"].startswith("5.69086")


def test_a_prompt_of_no_length_ends(call):
    flat = ["--dim", "3", "--lipschitz", "1e-1000000", "--radius", "1", "--eps", "0.1"]
    ended = call("plan", "--pairs", "5", *flat, "--norm", "frobenius")
    assert "fewer than 1,000,000,000,000,000,001 tokens will not do" in ended.out
