"""One prompt for all pairs: its record, its budget, and a planted control where it failed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.capacity.cases import Notes

from promptlimits.base.errors import UserError
from promptlimits.capacity.fit import fit_all
from promptlimits.capacity.search import control as control_module
from promptlimits.capacity.search.ordering import Order
from promptlimits.capacity.search.request import Request
from promptlimits.capacity.search.search import SearchConfig
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.random_tokens import random_pairs
from promptlimits.capacity.train.config import TrainingConfig

pytestmark = pytest.mark.usefixtures("in_this_process")

TRAINING = TrainingConfig(prompt_tokens=4, learning_rate=0.3, max_steps=60, patience=30)
LAME = replace(TRAINING, learning_rate=1e-6, max_steps=2)
FAILED = ("stalled", "out_of_steps")


def asking(training=TRAINING, *, starts=1, **settings):
    return Request(
        prompt_tokens=(training.prompt_tokens,),
        search=SearchConfig(training=training, starts=starts),
        order=Order.GIVEN,
        in_context_tokens=0,
        **settings,
    )


Fits = Callable[..., tuple[Any, Notes]]


@pytest.fixture
def fit(model, tmp_path):
    """One fit command: its record, and what its listener was told."""

    def run(task, request, name="out"):
        notes, folder = Notes(), tmp_path / name
        with Store.open(folder / "store.sqlite") as store:
            record = fit_all(model, task, request, folder=folder, store=store, listener=notes)
        return record.to_json(), notes

    return run


@pytest.fixture(scope="module")
def task(model):
    return random_pairs(model.codec, count=2, value_tokens=1, seed=0)


@pytest.fixture(scope="module")
def hopeless(task):
    """Two answers to one key, of which no prompt gives both."""
    first, second = task.pairs
    other = replace(first, value=second.value, value_ids=second.value_ids)
    return replace(task, pairs=(first, other))


def stages(notes):
    return [text for text, _ in notes.stages if text.startswith("planted control")]


def test_where_no_prompt_exists_the_optimiser_still_finds_one_that_does(fit, hopeless, monkeypatch):
    # One key twice makes no witness: what is held is not confirmed here.
    monkeypatch.setattr("promptlimits.capacity.job.choose", lambda *_given, **_named: None)
    record, notes = fit(hopeless, asking())
    assert record["outcome"] in FAILED
    control = record["control"]
    assert (control["pairs"], control["recovered"], control["outcome"]) == (2, 2, "solved")
    # One key twice: what the planted prompt answers is one answer.
    assert (control["distinct_answers"], control["list_distinct_answers"]) == (1, 2)
    assert stages(notes) == ["planted control with 4 prompt tokens"]
    (line,) = notes.lines
    assert line.startswith("planted control: 2 of 2 planted answers recovered in ")
    # What the control recovers is told as no step and no attempt.
    steps = sum(one["steps"] for one in record["search"])
    assert (len(notes.steps), len(notes.attempts)) == (steps, len(record["search"]))


def test_an_optimiser_that_misses_a_known_prompt_is_told_from_the_model(fit, task):
    record, _ = fit(task, asking(LAME, go_on=lambda _: "again"))
    control = record["control"]
    assert control["recovered"] < control["pairs"] == 2
    assert "may be the optimiser's limit" in control["conclusion"]
    assert (record["pairs"], record["of"]) == (0, 2)
    assert (record["state"], record["complete"], record["go_on"]) == ("none_found", True, None)
    without, _ = fit(task, asking(LAME, control=False))
    assert without["control"] is None


def test_a_fit_that_held_every_pair_has_nothing_to_control(fit, task):
    record, notes = fit(task, asking())
    assert (record["pairs"], record["outcome"], record["control"]) == (2, "solved", None)
    assert (record["not_held"], record["lost_in_replay"]) == ([], None)
    assert stages(notes) == []


@pytest.mark.parametrize("starts", [1, 3])
def test_a_fit_whose_budget_was_used_up_has_no_control_and_says_so(starts, fit, hopeless):
    record, notes = fit(hopeless, asking(starts=starts, budget_seconds=1e-9))
    assert [one["outcome"] for one in record["search"]] == ["out_of_budget"]
    assert record["control"]["reason"] == "budget used up"
    assert stages(notes) == []
    assert "it limits the floor" in notes.lines[0]


def test_a_budget_of_steps_is_counted_over_all_calls_and_ends_the_same_everywhere(
    fit, hopeless, monkeypatch
):
    monkeypatch.setattr("promptlimits.capacity.job.choose", lambda *_given, **_named: None)

    def steps_after(budget, name):
        record, _ = fit(hopeless, asking(starts=3, budget_steps=budget), name)
        assert record["complete"] is False
        # A start that failed is no failure while another can go on.
        assert record["control"]["reason"] == "budget used up"
        return [(one["steps"], one["outcome"]) for one in record["search"]]

    first = steps_after(10, "twice")
    assert first == [(10, "out_of_budget")]
    assert steps_after(10, "twice") == first
    alone, *race = steps_after(100, "twice")
    assert alone[1] in FAILED
    # The race began where the first start ended, and both of its starts were cut.
    assert {outcome for _, outcome in race} == {"out_of_budget"}
    assert sum(steps for steps, _ in (alone, *race)) in (100, 101)
    assert steps_after(100, "once") == [alone, *race]


def test_a_fit_after_a_few_steps_was_no_search(fit, hopeless):
    record, _ = fit(hopeless, asking(budget_steps=1, go_on=str))
    assert (record["pairs"], record["state"]) == (0, "not_searched")
    assert float(record["go_on"]) > 0


def test_a_worse_prompt_of_other_settings_does_not_replace_a_better_one(fit, task):
    better, _ = fit(task, asking())
    again, _ = fit(task, asking(replace(LAME, seed=5), control=False))
    assert again["outcome"] == "out_of_steps"
    assert again["pairs"] == better["pairs"] == 2


def test_a_control_cut_off_goes_on_in_its_share_of_the_time_and_no_more_than_is_left(
    fit, task, monkeypatch
):
    left = []

    def kept(*_, should_stop, **_options):
        left.append(should_stop.__self__.left_seconds)

    with monkeypatch.context() as patch:
        patch.setattr(control_module, "run_control", kept)
        fit(task, asking(LAME, budget_seconds=10_000.0))
    assert left == [pytest.approx(1_500, rel=1e-2)]
    cut, _ = fit(task, asking(LAME, budget_steps=3))
    assert cut["control"]["conclusion"].startswith("not finished")
    whole, _ = fit(task, asking(LAME))
    assert whole["control"]["finished"]


def test_a_pair_longer_than_the_context_is_refused_before_training(fit, task):
    with pytest.raises(UserError, match="fit into the model's context"):
        fit(task, asking(replace(TRAINING, prompt_tokens=128)))
