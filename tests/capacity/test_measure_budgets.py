"""What a bracket says and does when its budget ends early, and what a longer prompt starts from."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.capacity.cases import Notes, measured

from promptlimits.base.errors import UserError
from promptlimits.capacity.search.ordering import Order
from promptlimits.capacity.search.request import Request
from promptlimits.capacity.search.search import SearchConfig
from promptlimits.capacity.task.random_tokens import random_pairs
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.record.record import Record, read_record

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


@pytest.fixture(scope="module")
def task(model):
    return random_pairs(model.codec, count=12, seed=0)


@pytest.fixture
def told():
    """What the last command said."""
    return Notes()


@pytest.fixture
def bracket(model, task, told, tmp_path):
    """One command in a folder; the record as the report reads it."""

    def run(request):
        record, notes = measured(model, task, request, tmp_path)
        vars(told).update(vars(notes))
        return read_record(record)

    return run


def test_a_length_that_was_not_trained_is_not_a_zero(bracket, told):
    record = bracket(replace(REQUEST, budget_steps=6))
    assert [one.state for one in record.brackets] == ["not_searched", "not_searched"]
    assert {one.floor.status for one in record.brackets} == {"not measured"}
    assert sum(attempt.steps for one in record.brackets for attempt in one.search) == 6
    assert (record.complete, record.go_on) == (False, f"after {record.seconds:.0f} s")
    assert any("not searched: the budget was used up after 3 steps" in line for line in told.lines)


def test_seconds_that_are_used_up_leave_the_baselines_unmeasured_but_no_credit_unasked(bracket):
    record = bracket(replace(REQUEST, budget_seconds=1e-9))
    assert [one.state for one in record.brackets] == ["not_searched", "not_searched"]
    (without,) = [one for one in record.baselines if one.name == "no prompt"]
    assert without.status == "measured"  # it fits into the chunk that is always run
    assert [one.status for one in record.baselines if one.name == "in context"] != ["measured"]
    assert not record.complete


def test_a_search_that_found_nothing_says_so(bracket):
    lame = replace(REQUEST.search.training, learning_rate=1e-9, max_steps=45)
    search = replace(REQUEST.search, training=lame, first_size=1, starts=1)
    record = bracket(replace(REQUEST, prompt_tokens=(1,), search=search, budget_steps=500))
    (one,) = record.brackets
    assert (one.state, one.floor.status, one.floor.pairs) == ("none_found", "found", 0)
    assert (one.complete, record.complete, record.go_on) == (True, True, None)


def test_a_budget_of_steps_ends_the_same_however_it_was_given(model, task, tmp_path):
    def found(folder, *budgets):
        for steps in budgets:
            request = replace(REQUEST, budget_steps=steps)
            record = read_record(measured(model, task, request, tmp_path / folder)[0])
        return [
            (one.prompt_tokens, attempt.steps, attempt.outcome)
            for one in record.brackets
            for attempt in one.search
        ]

    once = found("once", 90)
    # No round begins with fewer than 40 steps left.
    assert 50 < sum(steps for _, steps, _ in once) <= 92
    assert found("twice", 90) == once


def test_a_longer_prompt_begins_with_what_the_shorter_one_holds(bracket, told):
    search = replace(REQUEST.search, first_size=1)
    record = bracket(replace(REQUEST, prompt_tokens=(2, 4), search=search, budget_steps=240))
    short, long = record.brackets
    assert short.floor.pairs > search.first_size
    first = next(report for tokens, report in told.steps if tokens == 4)
    assert first.pairs == short.floor.pairs
    assert long.floor.pairs >= short.floor.pairs
    # They come back first, whatever it holds in the end.
    again = long.search[0]
    assert (again.pairs, again.held, again.outcome) == (first.pairs, first.pairs, "solved")


def test_what_no_witness_may_replace_is_refused_before_any_step(bracket, told, tmp_path):
    (tmp_path / "witness-2-tokens").mkdir()
    (tmp_path / "witness-2-tokens" / "thesis.tex").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="witness-2-tokens must be a new folder or an older"):
        bracket(REQUEST)
    assert told.steps == []


def test_a_used_up_budget_is_not_called_an_ended_command(bracket, told):
    request = replace(REQUEST, prompt_tokens=(1,), budget_steps=6)
    bracket(request)
    bracket(request)
    assert told.lines[-1] == "this budget is used up: its result follows"
    assert not any("nothing left to do" in line for line in told.lines)
