"""A fit that failed carries a planted control, under the rule of the bracket."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from promptlimits.capacity import control_run
from promptlimits.capacity.attempt import Attempt, Workplace
from promptlimits.capacity.clock import Deadline
from promptlimits.capacity.control import Control, NoControl
from promptlimits.capacity.fit import control_of_fit, fit_all, save_fit
from promptlimits.models.huggingface.causal import HuggingFaceCausalLM
from promptlimits.models.protocol import EncodedPair
from promptlimits.store.sqlite import Store
from promptlimits.tasks.encoded import EncodedTask
from promptlimits.tasks.random_tokens import random_pairs
from promptlimits.tuning.config import TrainingConfig
from promptlimits.tuning.outcome import Outcome

TRAINING = TrainingConfig(prompt_tokens=4, learning_rate=0.3, max_steps=60, patience=30)
FAILED = (Outcome.STALLED, Outcome.OUT_OF_STEPS)
FOREVER = Deadline(budget_seconds=float("inf"))


class Told:
    """A listener that keeps what it is told, and is told of no step of a control."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.lines: list[str] = []

    def stage(self, text: str, total: int | None = None) -> None:
        self.stages.append((text, total))

    def advanced(self, done: int) -> None:
        assert done > 0

    def step(self, *_: Any) -> None:
        raise AssertionError("a planted pair was called found")

    def attempted(self, *_: Any) -> None:
        raise AssertionError("a control was called an attempt")

    def found(self, text: str) -> None:
        self.lines.append(text)


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
    deadline: Deadline = FOREVER,
    starts: int = 1,
) -> tuple[Attempt, ...]:
    return fit_all(
        place, task, training, starts=starts, deadline=deadline, on_attempt=lambda _: None
    )


def controlled(
    place: Workplace,
    task: EncodedTask,
    attempts: tuple[Attempt, ...],
    training: TrainingConfig = TRAINING,
    *,
    deadline: Deadline = FOREVER,
) -> tuple[Control | NoControl | None, Told]:
    told = Told()
    # What shows the steps of a search is not told of a control's.
    shown = replace(place, on_step=told.step)
    control = control_of_fit(shown, task, training, attempts, deadline=deadline, listener=told)
    return control, told


def test_where_no_prompt_exists_the_optimiser_still_finds_one_that_does(
    place: Workplace, task: EncodedTask
) -> None:
    hopeless = contradicting(task)
    failed = fitted(place, hopeless)
    assert failed[-1].outcome in FAILED
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
def test_a_fit_whose_time_was_up_has_no_control_and_says_so(
    starts: int, place: Workplace, task: EncodedTask
) -> None:
    ended = Deadline(budget_seconds=0.0)
    cut = fitted(place, contradicting(task), deadline=ended, starts=starts)
    assert cut[-1].outcome is Outcome.OUT_OF_TIME
    control, told = controlled(place, contradicting(task), cut)
    assert control is NoControl.TIME_WAS_UP
    assert told.stages == []
    assert "limited by time" in told.lines[0]


def test_a_start_that_failed_is_no_failure_while_another_can_go_on(
    place: Workplace, task: EncodedTask
) -> None:
    hopeless = contradicting(task)
    alone = fitted(place, hopeless)
    assert alone[-1].outcome in FAILED
    more = fitted(place, hopeless, deadline=Deadline(budget_seconds=0.0), starts=3)
    assert {one.outcome for one in more} == {alone[-1].outcome, Outcome.OUT_OF_TIME}
    assert controlled(place, hopeless, more)[0] is NoControl.TIME_WAS_UP


def test_a_fit_that_held_every_pair_has_nothing_to_control(
    place: Workplace, task: EncodedTask
) -> None:
    solved = fitted(place, task)
    assert solved[-1].outcome is Outcome.SOLVED
    control, told = controlled(place, task, solved)
    assert control is None
    assert (told.stages, told.lines) == ([], [])
    assert len(place.store.runs()) == 1


def test_a_control_without_time_goes_on_with_the_same_command(
    place: Workplace, task: EncodedTask
) -> None:
    hopeless = contradicting(task)
    failed = fitted(place, hopeless)
    cut, _ = controlled(place, hopeless, failed, deadline=Deadline(budget_seconds=0.0))
    assert isinstance(cut, Control)
    assert cut.conclusion.startswith("not finished")
    whole, _ = controlled(place, hopeless, fitted(place, hopeless))
    assert isinstance(whole, Control)
    assert whole.outcome is Outcome.SOLVED


def test_the_record_holds_the_control_or_null(
    place: Workplace, task: EncodedTask, tmp_path: Path
) -> None:
    lame = replace(TRAINING, learning_rate=1e-6, max_steps=1)
    failed = fitted(place, task, lame)
    assert not failed[-1].held
    control, _ = controlled(place, task, failed, lame)
    for given in (control, None):
        floor, record = save_fit(
            place, task, failed, folder=tmp_path, relative_lead=0.1, extra={}, control=given
        )
        assert record["control"] == (None if given is None else given.to_json())
        assert (floor.held, record["pairs"], record["of"]) == ((), 0, 2)


def test_the_control_takes_a_share_of_the_time_and_no_more_than_is_left(
    place: Workplace, task: EncodedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[float] = []

    def kept(*_: object, should_stop: Any) -> None:
        left.append(should_stop.__self__.left_seconds)

    monkeypatch.setattr(control_run, "run_control", kept)
    both = Deadline(budget_seconds=10_000.0)
    nearly_over = replace(both, began=both.began - 9_900)
    failed = fitted(place, task, replace(TRAINING, max_steps=1))
    for deadline in (both, nearly_over):
        controlled(place, task, failed, deadline=deadline)
    assert left == [pytest.approx(1_500, rel=1e-3), pytest.approx(100, rel=1e-2)]
