"""The order of a list, and the budget of a command in parts."""

from dataclasses import replace

import pytest
from tests.capacity.cases import after

from promptlimits.capacity.search import budget, ordering
from promptlimits.capacity.search.budget import Budget, StepCount, UsedTime
from promptlimits.capacity.search.ordering import Order, ordered
from promptlimits.capacity.task.random_tokens import random_pairs
from promptlimits.capacity.train import evaluate
from promptlimits.capacity.train.evaluate import Evaluation
from promptlimits.capacity.train.problem import Outcome
from promptlimits.record.parts import Seconds


@pytest.fixture(scope="module")
def task(model):
    return random_pairs(model.codec, count=8, seed=0)


def test_orders(model, task):
    pairs = task.pairs
    assert ordered(model, pairs, Order.GIVEN, seed=3) == tuple(range(8))
    shuffled = ordered(model, pairs, Order.SHUFFLED, seed=3)
    assert sorted(shuffled) == list(range(8))
    assert shuffled == ordered(model, pairs, Order.SHUFFLED, seed=3)
    assert shuffled != ordered(model, pairs, Order.SHUFFLED, seed=4)
    easiest = ordered(model, pairs, Order.EASIEST, seed=3)
    assert sorted(easiest) == list(range(8))
    assert ordered(model, pairs[:1], Order.EASIEST, seed=0) == (0,)
    assert sorted(ordered(model, pairs[:3], Order.EASIEST, seed=0)) == [0, 1, 2]


def test_no_pair_is_judged_behind_itself(model, task, monkeypatch):
    asked = []

    def record(_model, context, pairs, **_):
        asked.append((context, pairs))
        none = (0,) * len(pairs)
        return Evaluation(right=none, lengths=(2,) * len(pairs), loss_nats=tuple(map(float, none)))

    monkeypatch.setattr(ordering, "answers_behind", record)
    assert ordered(model, task.pairs, Order.EASIEST, seed=1) == tuple(range(8))
    assert sorted(pair.key for _, pairs in asked for pair in pairs) == sorted(
        pair.key for pair in task.pairs
    )
    for context, pairs in asked:
        shown = {context[place : place + 3] for place in range(0, len(context), 3)}
        assert len(shown) == 4
        assert shown.isdisjoint({pair.key_ids + pair.value_ids for pair in pairs})


def test_an_order_that_was_cut_off_puts_what_was_not_asked_last(model, task, monkeypatch):
    whole = ordered(model, task.pairs, Order.EASIEST, seed=1)
    monkeypatch.setattr(evaluate, "_LOGIT_BYTES", 1)  # one pair in each chunk
    assert ordered(model, task.pairs, Order.EASIEST, seed=1) == whole
    cut = ordered(model, task.pairs, Order.EASIEST, seed=1, should_stop=after(2))
    assert sorted(cut) == sorted(whole)
    # Of either half of the list the first chunk is always run.
    assert list(cut[4:]) == sorted(cut[4:])  # the others in the order of the list
    assert list(cut[:4]) == [index for index in whole if index in cut[:4]]


def test_a_budget_of_seconds_in_parts():
    whole = Budget(seconds=100.0)
    half = whole.part(0.5, keep_seconds=20.0)
    assert half.left_seconds == pytest.approx(40.0, abs=0.5)
    assert half.should_stop() is None
    assert whole.part(1.0, keep_seconds=500.0).should_stop() is Outcome.OUT_OF_BUDGET
    assert Budget().part(0.5).should_stop() is None
    late = replace(whole, began=whole.began - 99.0)
    assert late.at_most(0.25).left_seconds == pytest.approx(1.0, abs=0.5)


def test_a_budget_of_steps_is_used_by_all_its_parts():
    count = StepCount(total=7)
    whole = Budget(steps=10, count=count, steps_before=7)
    half = whole.part(0.5)
    count.add(4)
    assert (half.left_steps, whole.left_steps) == (1, 6)
    assert half.should_stop() is None
    count.add(2)  # two prompts side by side take two
    assert half.should_stop() is Outcome.OUT_OF_BUDGET
    # What takes no training steps goes on.
    assert half.time_is_up() is None
    assert (whole.at_most(0.3).steps, whole.at_most(0.9).steps) == (3, 4)
    # A part is whole steps, at least one while any are left.
    assert whole.part(0.1).steps == 1
    count.add(4)
    assert whole.part(0.1).should_stop() is Outcome.OUT_OF_BUDGET


def test_seconds_are_counted_by_stage_over_all_calls(place, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(budget.time, "monotonic", lambda: now[0])

    def spend(used, *names):
        for name in names:
            with used.stage(name):
                now[0] += 2.0
            now[0] += 0.5
        used.commit()

    spend(UsedTime(place.store, "work"), "training", "evaluation")
    again = UsedTime(place.store, "work")
    assert again.before_seconds == 5.0
    spend(again, "training")
    with pytest.raises(KeyboardInterrupt), again.stage("verification"):
        raise KeyboardInterrupt
    spend(again)
    found = Seconds(**again.by_stage())
    assert found == Seconds(training=4.0, evaluation=2.0, rest=1.5)
    assert list(found.shares)[:2] == ["training", "evaluation"]
    assert sum(found.shares.values()) == pytest.approx(1.0)
    assert UsedTime(place.store, "other").before_seconds == 0.0
