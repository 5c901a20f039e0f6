"""What a bracket says and does when its budget ends early, and what a longer prompt starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from promptlimits.base.errors import UserError
from promptlimits.capacity.measure import measure
from promptlimits.capacity.search.ordering import Order, ordered
from promptlimits.capacity.search.request import Request
from promptlimits.capacity.search.search import SearchConfig
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.encoded import EncodedTask
from promptlimits.capacity.task.random_tokens import random_pairs
from promptlimits.capacity.train import evaluate
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.outcome import Outcome
from promptlimits.capacity.train.problem import StepReport
from promptlimits.nets.protocol import PromptKind
from promptlimits.nets.routes.causal import HuggingFaceCausalLM
from promptlimits.report.record import Record, parse_record

pytestmark = pytest.mark.usefixtures("in_this_process")

REQUEST = Request(
    prompt_tokens=(1, 2),
    search=SearchConfig(
        training=TrainingConfig(prompt_tokens=1, learning_rate=0.3, max_steps=80, patience=40),
        first_size=2,
        starts=2,
    ),
    order=Order.EASIEST,
    control=False,
    go_on=lambda used: f"after {used:.0f} s",
)
Measured = Callable[[Request], Record]


class Steps:
    """A listener that keeps how many pairs each step of each length was for."""

    def __init__(self) -> None:
        self.sizes: dict[int, list[int]] = {}
        self.lines: list[str] = []

    def stage(self, text: str, total: int | None = None) -> None: ...

    def ends_at(self, moment: float) -> None: ...

    def advanced(self, done: int) -> None: ...

    def step(self, _kind: PromptKind, prompt_tokens: int, report: StepReport) -> None:
        self.sizes.setdefault(prompt_tokens, []).append(report.pairs)

    def attempted(self, *_: Any) -> None: ...

    def found(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def task(model: HuggingFaceCausalLM) -> EncodedTask:
    return random_pairs(model.codec, count=12, seed=0)


@pytest.fixture
def told() -> Steps:
    return Steps()


@pytest.fixture
def measured(
    model: HuggingFaceCausalLM, task: EncodedTask, told: Steps, tmp_path: Path
) -> Measured:
    """One command in a folder; the record as the report reads it."""

    def run(request: Request) -> Record:
        with Store.open(tmp_path / "store.sqlite") as store:
            record = measure(model, task, request, folder=tmp_path, store=store, listener=told)
        return parse_record(record)

    return run


def test_a_length_that_was_not_trained_is_not_a_zero(measured: Measured, told: Steps) -> None:
    record = measured(replace(REQUEST, budget_steps=6))
    assert [bracket.state for bracket in record.brackets] == ["not_searched", "not_searched"]
    assert {bracket.floor.status for bracket in record.brackets} == {"not measured"}
    assert sum(attempt.steps for bracket in record.brackets for attempt in bracket.search) == 6
    assert (record.complete, record.go_on) == (False, f"after {record.seconds:.0f} s")
    assert any("not searched: the budget was used up after 3 steps" in line for line in told.lines)


def test_seconds_that_are_used_up_leave_the_baselines_unmeasured_but_no_credit_unasked(
    measured: Measured,
) -> None:
    record = measured(replace(REQUEST, budget_seconds=1e-9))
    assert [bracket.state for bracket in record.brackets] == ["not_searched", "not_searched"]
    (without,) = [one for one in record.baselines if one.name == "no prompt"]
    assert without.status == "measured"  # it fits into the chunk that is always run
    assert [one.status for one in record.baselines if one.name == "in context"] != ["measured"]
    assert not record.complete


def test_a_search_that_found_nothing_says_so(measured: Measured) -> None:
    lame = replace(REQUEST.search.training, learning_rate=1e-9, max_steps=45)
    search = replace(REQUEST.search, training=lame, first_size=1, starts=1)
    record = measured(replace(REQUEST, prompt_tokens=(1,), search=search, budget_steps=500))
    (bracket,) = record.brackets
    assert (bracket.state, bracket.floor.status, bracket.floor.pairs) == ("none_found", "found", 0)
    assert (bracket.complete, record.complete, record.go_on) == (True, True, None)


def test_a_budget_of_steps_ends_the_same_however_it_was_given(
    model: HuggingFaceCausalLM, task: EncodedTask, tmp_path: Path
) -> None:
    def found(folder: str, *budgets: int) -> list[tuple[int, int, str]]:
        for steps in budgets:
            with Store.open(tmp_path / folder / "store.sqlite") as store:
                request = replace(REQUEST, budget_steps=steps)
                record = parse_record(
                    measure(
                        model,
                        task,
                        request,
                        folder=tmp_path / folder,
                        store=store,
                        listener=Steps(),
                    )
                )
        return [
            (bracket.prompt_tokens, attempt.steps, attempt.outcome)
            for bracket in record.brackets
            for attempt in bracket.search
        ]

    once = found("once", 90)
    assert 90 <= sum(steps for _, steps, _ in once) <= 92
    assert found("twice", 90) == once


def test_a_longer_prompt_begins_with_what_the_shorter_one_holds(
    measured: Measured, told: Steps
) -> None:
    search = replace(REQUEST.search, first_size=1)
    record = measured(replace(REQUEST, prompt_tokens=(2, 4), search=search, budget_steps=240))
    short, long = record.brackets
    assert short.floor.pairs > search.first_size
    assert told.sizes[4][0] == short.floor.pairs
    assert long.floor.pairs >= short.floor.pairs
    held = {answer.key for answer in short.floor.answers if answer.counted and answer.exact}
    kept = {answer.key for answer in long.floor.answers if answer.exact}
    assert held <= kept


def test_what_no_witness_may_replace_is_refused_before_any_step(
    measured: Measured, told: Steps, tmp_path: Path
) -> None:
    (tmp_path / "witness-2-tokens").mkdir()
    (tmp_path / "witness-2-tokens" / "thesis.tex").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="witness-2-tokens must be a new folder or an older"):
        measured(REQUEST)
    assert told.sizes == {}


def test_a_used_up_budget_is_not_called_an_ended_command(measured: Measured, told: Steps) -> None:
    request = replace(REQUEST, prompt_tokens=(1,), budget_steps=6)
    measured(request)
    measured(request)
    assert told.lines[-1] == "this budget is used up: its result follows"
    assert not any("nothing left to do" in line for line in told.lines)


def test_an_order_that_was_cut_off_puts_what_was_not_asked_last(
    model: HuggingFaceCausalLM, task: EncodedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ordered(model, task.pairs, Order.EASIEST, seed=1)
    monkeypatch.setattr(evaluate, "_LOGIT_BYTES", 1)  # one pair in each chunk
    assert ordered(model, task.pairs, Order.EASIEST, seed=1) == whole
    calls = iter(range(100))
    cut = ordered(
        model,
        task.pairs,
        Order.EASIEST,
        seed=1,
        should_stop=lambda: Outcome.OUT_OF_BUDGET if next(calls) >= 2 else None,
    )
    assert sorted(cut) == sorted(whole)
    last = [index for index in range(12) if index in cut[4:]]
    assert list(cut[4:]) == last  # the others in the order of the list
    assert list(cut[:4]) == [index for index in whole if index in cut[:4]]
