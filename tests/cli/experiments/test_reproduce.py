"""`promptlimits reproduce`: the list, one experiment, all of them, and mistakes."""

import dataclasses
import json

import pytest

from promptlimits.experiments import recipes
from promptlimits.experiments.recipes import scaling


@pytest.fixture
def small(monkeypatch):
    """Nothing but a scaling law of a few problems."""
    spec = dataclasses.replace(
        scaling.RECIPE.specs["quick"], networks=(scaling.Network(dim=2, heads=1, layers=1),),
        prompt_tokens=(1, 2), problems=2, starts=2, steps=5,
    )  # fmt: skip
    tiny = dataclasses.replace(scaling.RECIPE, specs={"quick": spec, "full": spec})
    monkeypatch.setattr(recipes, "RECIPES", {"scaling": tiny})


def test_the_list_is_the_contract(call):
    ended = call("reproduce", "--json")
    listed = json.loads(ended.out)
    assert [one["name"] for one in listed] == list(recipes.RECIPES)
    assert all({"name", "claim", "paper", "quick_seconds"} <= set(one) for one in listed)
    text = call("reproduce").out
    assert all(one["claim"] in text for one in listed)


@pytest.mark.slow  # a worker imports torch
@pytest.mark.usefixtures("small")
def test_an_experiment_is_run_kept_and_told(call, here):
    ended = call("reproduce", "scaling", "--out", "out", "--workers", "1", "--json")
    assert ended.code == 0, ended.err
    record = json.loads(ended.out)
    assert set(record["measured"]) >= {"value", "low", "high"}
    assert set(record) >= {"name", "verdict", "published", "cells", "control"}
    assert ended.err.startswith("... scaling: cells\n")
    assert json.loads((here / "out" / "scaling.json").read_text()) == record
    again = call("reproduce", "scaling", "--out", "out", "--workers", "1")
    assert again.err == ""
    for part in ("Published: k in O(m_p/m)", "Proved\n", "Found\n", "Estimated", "Verdict:"):
        assert part in again.out
    page = call("reproduce", "all", "--quick", "--out", "out", "--quiet")
    assert "Page: out/papers.html" in page.out
    assert "k in O(m_p/m)" in (here / "out" / "papers.html").read_text()


def test_mistakes(call):
    call("reproduce", "scalign").says(2, "scaling", "got scalign")
    call("reproduce", "scaling", "--quick", "--full").says(2, "drop one")
