"""A fit that failed carries a planted control, under the rule of the bracket."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from promptlimits.capacity.fit import FitRequest, control_of_fit, fit_all, train_all
from promptlimits.capacity.search import control_run
from promptlimits.capacity.search.attempt import Workplace
from promptlimits.capacity.search.budget import Budget
from promptlimits.capacity.search.control import Control, NoControl
from promptlimits.capacity.search.search import SearchResult
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.encoded import EncodedTask
from promptlimits.capacity.task.random_tokens import random_pairs
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.outcome import Outcome
from promptlimits.nets.protocol import EncodedPair
from promptlimits.nets.routes.causal import HuggingFaceCausalLM

TRAINING = TrainingConfig(prompt_tokens=4, learning_rate=0.3, max_steps=60, patience=30)
FAILED = (Outcome.STALLED, Outcome.OUT_OF_STEPS)
FOREVER = Budget()
USED_UP = Budget(seconds=0.0)


class Told:
    """A listener that keeps what it is told, and is told of no step of a control."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.lines: list[str] = []

    def stage(self, text: str, total: int | None = None) -> None:
        self.stages.append((text, total))

    def ends_at(self, moment: float) -> None: ...

    def advanced(self, done: int) -> None:
        assert done > 0

    def step(self, *_: Any) -> None:
        raise AssertionError("a planted pair was called found")

    def attempted(self, *_: Any) -> None:
        raise AssertionError("a control was called an attempt")

    def found(self, text: str) -> None:
        self.lines.append(text)


class Quiet(Told):
    """A listener for whole fits."""

    def step(self, *_: Any) -> None: ...

    def attempted(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def task(model: HuggingFaceCausalLM) -> EncodedTask:
    return random_pairs(model.codec, count=2, value_tokens=1, seed=0)


@pytest.fixture
def place(model: HuggingFaceCausalLM, tmp_path: Path) -> Iterator[Workplace]:
    with Store.open(tmp_path / "store.sqlite") as store:
        yield Workplace(model=model, store=store, task_hash="t", provenance={})


def contradicting(task: EncodedTask) -> EncodedTask:
    """Two answers to one key, of which no prompt gives both."""
    first, second = task.pairs
    other = EncodedPair(
        key=first.key, value=second.value, key_ids=first.key_ids, value_ids=second.value_ids
    )
    return replace(task, pairs=(first, other))


def fitted(
    place: Workplace,
    task: EncodedTask,
    training: TrainingConfig = TRAINING,
    *,
    budget: Budget = FOREVER,
    starts: int = 1,
) -> SearchResult:
    request = FitRequest(training=training, starts=starts)
    return train_all(place, task, request, budget, Quiet())


def controlled(
    place: Workplace,
    task: EncodedTask,
    result: SearchResult,
    training: TrainingConfig = TRAINING,
    *,
    budget: Budget = FOREVER,
) -> tuple[Control | NoControl | None, Told]:
    told = Told()
    request = FitRequest(training=training, starts=1)
    return control_of_fit(place, task, request, result, budget, told), told


def test_where_no_prompt_exists_the_optimiser_still_finds_one_that_does(
    place: Workplace, task: EncodedTask
) -> None:
    hopeless = contradicting(task)
    failed = fitted(place, hopeless)
    assert failed.attempts[-1].outcome in FAILED
    control, told = controlled(place, hopeless, failed)
    assert isinstance(control, Control)
    assert (control.pairs, control.recovered, control.outcome) == (2, 2, Outcome.SOLVED)
    # One key twice: what the planted prompt answers is one answer.
    assert (control.distinct_answers, control.list_distinct_answers) == (1, 2)
    assert told.stages == [("planted control", 2)]
    (line,) = told.lines
    assert line.startswith("planted control: 2 of 2 planted answers recovered in ")


def test_an_optimiser_that_misses_a_known_prompt_is_told_from_the_model(
    place: Workplace, task: EncodedTask
) -> None:
    lame = replace(TRAINING, learning_rate=1e-6, max_steps=2)
    failed = fitted(place, task, lame)
    control, _ = controlled(place, task, failed, lame)
    assert isinstance(control, Control)
    assert control.recovered < control.pairs == 2
    assert "may be the optimiser's limit" in control.conclusion


@pytest.mark.parametrize("starts", [1, 3])
def test_a_fit_whose_budget_was_used_up_has_no_control_and_says_so(
    starts: int, place: Workplace, task: EncodedTask
) -> None:
    cut = fitted(place, contradicting(task), budget=USED_UP, starts=starts)
    assert cut.attempts[-1].outcome is Outcome.OUT_OF_BUDGET
    control, told = controlled(place, contradicting(task), cut)
    assert control is NoControl.BUDGET_USED_UP
    assert told.stages == []
    assert "it limits the floor" in told.lines[0]


def test_a_start_that_failed_is_no_failure_while_another_can_go_on(
    place: Workplace, task: EncodedTask
) -> None:
    hopeless = contradicting(task)
    alone = fitted(place, hopeless)
    assert alone.attempts[-1].outcome in FAILED
    more = fitted(place, hopeless, budget=USED_UP, starts=3)
    assert {one.outcome for one in more.attempts} == {
        alone.attempts[-1].outcome,
        Outcome.OUT_OF_BUDGET,
    }
    assert controlled(place, hopeless, more)[0] is NoControl.BUDGET_USED_UP


def test_a_fit_that_held_every_pair_has_nothing_to_control(
    place: Workplace, task: EncodedTask
) -> None:
    solved = fitted(place, task)
    assert solved.attempts[-1].outcome is Outcome.SOLVED
    control, told = controlled(place, task, solved)
    assert control is None
    assert (told.stages, told.lines) == ([], [])
    assert len(place.store.runs()) == 1


def test_a_control_without_time_goes_on_with_the_same_command(
    place: Workplace, task: EncodedTask
) -> None:
    hopeless = contradicting(task)
    failed = fitted(place, hopeless)
    cut, _ = controlled(place, hopeless, failed, budget=USED_UP)
    assert isinstance(cut, Control)
    assert cut.conclusion.startswith("not finished")
    whole, _ = controlled(place, hopeless, fitted(place, hopeless))
    assert isinstance(whole, Control)
    assert whole.outcome is Outcome.SOLVED


@pytest.mark.parametrize("wanted", [True, False])
def test_the_record_holds_the_control_or_null(
    wanted: bool, place: Workplace, task: EncodedTask, tmp_path: Path
) -> None:
    lame = replace(TRAINING, learning_rate=1e-6, max_steps=1)
    request = FitRequest(training=lame, starts=1, control=wanted, go_on=lambda _: "again")
    record = fit_all(place, task, request, folder=tmp_path, listener=Quiet())
    assert (record["control"] is not None) is wanted
    assert (record["pairs"], record["of"]) == (0, 2)
    assert (record["state"], record["complete"], record["go_on"]) == ("none_found", True, None)


def test_a_budget_of_steps_is_counted_over_all_calls_and_ends_the_same_everywhere(
    place: Workplace, task: EncodedTask, tmp_path: Path
) -> None:
    hopeless = contradicting(task)

    def steps_after(budget: int, folder: Path) -> list[tuple[int, str]]:
        with Store.open(folder / "other.sqlite") as store:
            here = Workplace(model=place.model, store=store, task_hash="t", provenance={})
            request = FitRequest(training=TRAINING, starts=3, budget_steps=budget, control=False)
            record: Any = fit_all(here, hopeless, request, folder=folder, listener=Quiet())
            assert record["complete"] is False
            return [(one["steps"], one["outcome"]) for one in record["search"]]

    first = steps_after(10, tmp_path / "twice")
    assert first == [(10, "out_of_budget")]
    assert steps_after(10, tmp_path / "twice") == first
    alone, *race = steps_after(100, tmp_path / "twice")
    assert alone[1] != "out_of_budget"
    # The race began where the first start ended, and both of its starts were cut.
    assert sum(steps for steps, _ in (alone, *race)) in (100, 101)
    assert steps_after(100, tmp_path / "once") == [alone, *race]


def test_a_fit_after_a_few_steps_was_no_search(
    place: Workplace, task: EncodedTask, tmp_path: Path
) -> None:
    request = FitRequest(training=TRAINING, starts=1, budget_steps=1, go_on=str)
    record = fit_all(place, contradicting(task), request, folder=tmp_path, listener=Quiet())
    assert record["pairs"] == 0
    assert record["state"] == "not_searched"
    assert float(record["go_on"]) > 0


def test_the_control_takes_a_share_of_the_time_and_no_more_than_is_left(
    place: Workplace, task: EncodedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[float] = []

    def kept(*_: object, should_stop: Any) -> None:
        left.append(should_stop.__self__.left_seconds)

    monkeypatch.setattr(control_run, "run_control", kept)
    both = Budget(seconds=10_000.0)
    nearly_over = replace(both, began=both.began - 9_900)
    failed = fitted(place, task, replace(TRAINING, max_steps=1))
    for budget in (both, nearly_over):
        controlled(place, task, failed, budget=budget)
    assert left == [pytest.approx(1_500, rel=1e-3), pytest.approx(100, rel=1e-2)]
