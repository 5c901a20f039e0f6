"""A bracket whose budget ends: its exit code, its JSON, and the command that goes on."""

import json
import math
import shlex
import sys
from collections.abc import Callable
from typing import Any

import pytest

from promptlimits.cli.product.session import Budgets, Training

Call = Callable[..., Any]

# A learning rate with which nothing is ever found: nothing is verified.
BRACKET = (
    *("bracket", "--model", "tiny", "--pairs", "pairs.csv", "--out", "out", "--quiet"),
    *("--learning-rate", "1e-6", "--starts", "1", "--first-size", "1", "--no-control"),
)


@pytest.mark.usefixtures("model")
def test_what_was_not_searched_is_exit_code_3_and_a_state(call, here):
    ended = call(*BRACKET, "--steps", "5", "--json")
    assert ended.code == 3
    record = json.loads(ended.out)
    assert [bracket["state"] for bracket in record["brackets"]] == ["not_searched"]
    assert record["go_on"] == f"promptlimits {' '.join(BRACKET)} --json --steps 10"
    shown = call(*BRACKET, "--steps", "5")
    assert f"Go on:  {record['go_on']}" in shown.out.replace("\n", " ")
    assert "NOT SEARCHED" in shown.out


@pytest.mark.usefixtures("model")
def test_the_command_that_goes_on_names_the_folder_where_it_is_now(call, here):
    options = (*BRACKET[:5], *BRACKET[7:], "--steps", "5", "--json")
    first = json.loads(call(*options, "--out", "out").out)
    (here / "out").rename(here / "moved")
    again = json.loads(call(*options, "--out", "moved").out)
    assert again["go_on"] == first["go_on"].replace("--out out", "--out moved")
    assert again["brackets"][0]["search"] == first["brackets"][0]["search"]


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("option", ["--template", "--joiner"])
def test_an_option_of_bytes_that_are_no_text_is_refused(option, call):
    ended = call(*BRACKET, option, "{key}\udcff")
    assert ended.code == 2
    assert f"{option} must be Unicode text, got '{{key}}\\udcff'; type it in UTF-8" in ended.err


@pytest.mark.usefixtures("model")
def test_a_search_that_found_nothing_is_exit_code_0(call):
    ended = call(*BRACKET, "--max-steps", "41", "--json")
    assert ended.code == 0
    record = json.loads(ended.out)
    assert [bracket["state"] for bracket in record["brackets"]] == ["none_found"]
    assert (record["complete"], record["go_on"]) == (True, None)


@pytest.mark.parametrize(
    ("given", "budgets", "more"),
    [
        ("bracket", Budgets(seconds=240, steps=math.inf), "bracket --budget 480"),
        (
            "bracket --budget 30 --json",
            Budgets(seconds=30, steps=math.inf),
            "bracket --json --budget 60",
        ),
        ("fit --budget=30", Budgets(seconds=30, steps=math.inf), "fit --budget 60"),
        ("fit --steps 7 -o 'a b'", Budgets(seconds=math.inf, steps=7), "fit -o 'a b' --steps 14"),
        (
            "fit --steps=7 --budget 0.5",
            Budgets(seconds=0.5, steps=7),
            "fit --budget 1 --steps 14",
        ),
        (
            "fit --steps 1234567890123456789",
            Budgets(seconds=math.inf, steps=1234567890123456789),
            "fit --steps 2469135780246913578",
        ),
    ],
)
def test_the_command_that_goes_on_has_twice_the_budget(given, budgets, more, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["promptlimits", *shlex.split(given)])
    assert budgets.go_on(budgets.seconds) == f"promptlimits {more}"


@pytest.mark.parametrize(("used", "more"), [(0, 10), (7, 10), (8, 15), (41, 45)])
def test_the_command_that_goes_on_has_time_left_where_more_than_the_budget_was_used(
    used, more, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["promptlimits", "fit", "--budget", "5"])
    budgets = Budgets(seconds=5, steps=math.inf)
    assert budgets.go_on(used) == f"promptlimits fit --budget {more}"


@pytest.mark.parametrize(
    ("given", "budgets"),
    [
        ({}, Budgets(seconds=240, steps=math.inf)),
        ({"steps": 5}, Budgets(seconds=math.inf, steps=5)),
        ({"budget": 9.0, "steps": 5}, Budgets(seconds=9.0, steps=5)),
    ],
)
def test_steps_alone_leave_the_seconds_unlimited(given, budgets):
    assert Training(**given).budgets(default_seconds=240) == budgets
