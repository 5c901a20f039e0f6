"""What the engine asks of its device, counted on one that is pretended."""

from dataclasses import replace

import pytest
from tests.capacity.train.pretend_device import MovedModel, PretendDevice, moved
from tests.capacity.train.problems import HOPELESS, PAIRS, problem
from tests.capacity.train.test_engine import by_key, same

from promptlimits.capacity.train import engine
from promptlimits.capacity.train.config import Objective
from promptlimits.capacity.train.engine import train_many
from promptlimits.capacity.train.memory import MemoryBudget
from promptlimits.capacity.train.problem import Outcome
from promptlimits.capacity.train.state import PackedState

ROOMY = 2**30


@pytest.fixture
def pretended(monkeypatch):
    """The pretended device, on."""
    with PretendDevice(monkeypatch) as found:
        yield found


def admitted(model, several, budget=ROOMY):
    """Problems that run on the device from here on."""
    running = engine._Running(MovedModel(model), MemoryBudget(total_bytes=budget), None)
    assert running.admit(engine._Waiting(iter(several)), None)
    return running


def hopeless(model, count, **settings):
    several = [problem(model, key, seed=key, pairs=HOPELESS, **settings) for key in range(count)]
    return [moved(one) for one in several]


# --- how often the host waits -------------------------------------------------------------------


def asked_of_each_step(model, pretended, count):
    """Waits and operations of steps of so many problems that are laid out already."""
    running, found = admitted(model, hopeless(model, count)), []
    running.step()
    for _ in range(3):
        waits, calls = pretended.waits, pretended.calls
        running.step()
        # The step after this one was in the queue before anyone waited for this one.
        assert pretended.calls_at_wait[-1] == pretended.calls
        found.append((pretended.waits - waits, pretended.calls - calls))
    return found


def test_a_step_waits_once_however_many_problems(tiny, pretended, monkeypatch):
    # Within these steps learning rates are sent, too.
    monkeypatch.setattr(engine, "_STEPS_AT_ONCE", 2)
    alone = asked_of_each_step(tiny, pretended, 1)
    assert [waits for waits, _ in alone] == [1] * 3
    assert asked_of_each_step(tiny, pretended, 16) == alone


def test_a_batch_is_laid_out_without_waiting_but_for_those_who_come_and_leave(tiny, pretended):
    several = hopeless(tiny, 9, max_steps=4)
    stays = [replace(one, config=replace(one.config, max_steps=9)) for one in several[:6]]
    running = admitted(tiny, [*stays, *several[6:]])
    # All who come are asked at once whether they have ended before.
    assert pretended.waits == 1
    for _ in range(4):
        running.step()
    assert pretended.waits == 5
    assert len(list(running.leave())) == 3
    assert pretended.waits == 5 + 3
    running.step()
    assert pretended.waits == 5 + 3 + 1


def test_states_are_copied_for_who_asks_all_problems_at_once(tiny, pretended):
    told = []

    def note(key, _report, state):
        told.append(state)
        if key == 1:
            waits = pretended.waits
            states = [state() for state in told]
            assert pretended.waits - waits == 7  # the tensors of a state
            assert all(one.prompt.device.type == "cpu" for one in states)

    list(
        train_many(
            MovedModel(tiny), hopeless(tiny, 2, max_steps=1), budget_bytes=ROOMY, on_step=note
        )
    )
    assert len(told) == 2


# --- what comes out -----------------------------------------------------------------------------


def mixed(model):
    """Problems that end at different steps, for every reason, one more than there is room for."""
    common = {"max_steps": 3, "patience": 3}
    race = {"pairs": PAIRS[:1], "prompt_tokens": 3, "sharpening": 2.0, "race": "starts"}
    return [
        problem(model, "long", **common),
        problem(model, "other", seed=1, objective=Objective.MARGIN, **(common | {"max_steps": 2})),
        problem(model, "one", seed=3, **race),
        problem(model, "two", seed=4, **race),
        problem(model, "stalled", seed=5, pairs=HOPELESS, prompt_tokens=2, patience=2),
    ]


@pytest.mark.parametrize("budget", [ROOMY, 2**17])
def test_training_with_steps_ahead_gives_what_training_without_gives(budget, tiny, monkeypatch):
    asked = {"slots": 4, "budget_bytes": budget}
    expected = by_key(train_many(tiny, mixed(tiny), **asked))
    assert {fit.outcome for fit in expected.values()} >= {
        Outcome.SOLVED,
        Outcome.OVERTAKEN,
        Outcome.STALLED,
        Outcome.OUT_OF_STEPS,
    }
    steps = {}

    def note(key, report, _state):
        steps.setdefault(key, []).append(report.step)

    with PretendDevice(monkeypatch):
        several = [moved(one) for one in mixed(tiny)]
        for fit in train_many(MovedModel(tiny), several, on_step=note, **asked):
            (state,) = PackedState.of([fit.state]).on_host().unpacked()
            twin = expected.pop(fit.key)
            same(replace(fit, state=state), twin)
            assert state.best_step == twin.state.best_step
            assert steps[fit.key] == list(range(1, fit.steps + 1))
    assert not expected


def test_a_stop_forgets_the_step_ahead(tiny, pretended):
    answers = iter([None, None, Outcome.OUT_OF_BUDGET])
    fits = train_many(
        MovedModel(tiny),
        hopeless(tiny, 2),
        budget_bytes=ROOMY,
        should_stop=lambda: next(answers),
    )
    assert [fit.steps for fit in fits] == [2, 2]
