"""Many problems at once come out as each would alone, and leave and enter as they should."""

from dataclasses import replace

import pytest
import torch
from tests.capacity.train.problems import HOPELESS, PAIRS, problem
from torch.utils._python_dispatch import TorchDispatchMode

from promptlimits.base.errors import UserError
from promptlimits.capacity.train import engine as module
from promptlimits.capacity.train.batch import Batch
from promptlimits.capacity.train.config import Objective
from promptlimits.capacity.train.engine import train_many
from promptlimits.capacity.train.memory import MemoryBudget
from promptlimits.capacity.train.problem import Outcome
from promptlimits.capacity.train.state import TrainingState
from promptlimits.nets.routes.whole_model import IdentityHead


def ragged(model):
    """Problems that differ in everything that may differ; some end long before others."""
    common = {"max_steps": 20, "patience": 20}
    return [
        problem(model, "a", seed=0, prompt_tokens=4, **common),
        problem(model, "b", seed=1, prompt_tokens=1, pairs=PAIRS[1:], learning_rate=0.1, **common),
        problem(model, "c", seed=3, pairs=PAIRS[:1], prompt_tokens=3, sharpening=2.0),
        problem(model, "d", seed=3, prompt_tokens=2, objective=Objective.MARGIN, **common),
        problem(model, "e", seed=4, prompt_tokens=2, pairs=HOPELESS, patience=4, max_steps=20),
        problem(model, "f", seed=5, prompt_tokens=5, sharpening=2.0, decay_steps=3, **common),
        problem(model, "g", seed=6, prompt_tokens=1, pairs=PAIRS, clip_norm=0.1, **common),
    ]


def by_key(fits):
    return {fit.key: fit for fit in fits}


def same(one, other):
    assert (one.outcome, one.steps, one.held) == (other.outcome, other.steps, other.held)
    for name in ("prompt", "first_moment", "second_moment", "best_prompt", "best_loss"):
        torch.testing.assert_close(
            getattr(one.state, name), getattr(other.state, name), rtol=1e-8, atol=1e-8
        )


@pytest.fixture(scope="module")
def alone(tiny):
    return by_key(fit for one in ragged(tiny) for fit in train_many(tiny, [one]))


@pytest.mark.parametrize("slots", [1, 2, 3, 7, None])
def test_each_problem_equals_the_same_problem_alone(slots, tiny, alone):
    together = by_key(train_many(tiny, ragged(tiny), slots=slots))
    assert together.keys() == alone.keys()
    for key, fit in together.items():
        same(fit, alone[key])
    endings = {fit.outcome for fit in alone.values()}
    assert endings >= {Outcome.SOLVED, Outcome.STALLED, Outcome.OUT_OF_STEPS}


def test_the_order_of_problems_does_not_matter(tiny, alone):
    backwards = by_key(train_many(tiny, reversed(ragged(tiny)), slots=4))
    for key, fit in backwards.items():
        same(fit, alone[key])


def test_the_same_batch_again_gives_the_same_bits(tiny):
    once, again = (by_key(train_many(tiny, ragged(tiny), slots=3)) for _ in range(2))
    for key, fit in once.items():
        assert fit.state.to_bytes() == again[key].state.to_bytes()


def test_problems_are_prepared_again_only_when_others_run(tiny, monkeypatch):
    ran = []
    prepared = []

    class Counted(Batch):
        def __init__(self, model, problems, budget):
            prepared.append(len(problems))
            super().__init__(model, problems, budget)

    monkeypatch.setattr(module, "Batch", Counted)
    steps = []

    def note(key, report, _):
        steps.append(key)
        if len(steps) == report.problems:
            ran.append(tuple(steps))
            steps.clear()

    by_key(train_many(tiny, ragged(tiny), slots=3, on_step=note))
    changes = [one for before, one in zip([(), *ran], ran, strict=False) if one != before]
    assert prepared == [len(one) for one in changes]
    assert max(prepared) == 3
    assert len(ran) > 2 * len(prepared)


def test_a_solved_start_ends_its_race_and_no_other(tiny):
    race = [problem(tiny, seed, seed=seed, race="starts") for seed in range(4)]
    other = problem(tiny, "other", pairs=HOPELESS, max_steps=60)
    late = problem(tiny, "late", seed=9, race="starts")
    fits = list(train_many(tiny, [*race, other, late], slots=5))
    outcomes = {fit.key: fit.outcome for fit in fits}
    steps = {fit.key: fit.steps for fit in fits}
    winner = fits[0]
    assert winner.outcome is Outcome.SOLVED
    lone = by_key(fit for one in race for fit in train_many(tiny, [one]))
    solved = [fit for fit in lone.values() if fit.outcome is Outcome.SOLVED]
    assert winner.steps == min(fit.steps for fit in solved)
    assert set(outcomes.values()) == {Outcome.SOLVED, Outcome.OVERTAKEN, Outcome.OUT_OF_STEPS}
    assert steps["other"] == 60
    assert (outcomes["late"], steps["late"]) == (Outcome.OVERTAKEN, 0)
    for key, outcome in outcomes.items():
        if outcome is Outcome.OVERTAKEN and key != "late":
            assert steps[key] == winner.steps


def test_a_problem_that_breaks_leaves_before_its_numbers_are_used(tiny, alone):
    members = ragged(tiny)
    broken = replace(members[1], key="broken")
    spoiled = broken.state.prompt.clone()
    spoiled[0, 0] = torch.inf
    broken = replace(broken, state=replace(broken.state, prompt=spoiled))
    # Its first step throws this one out of every number's range.
    thrown = problem(tiny, "thrown", learning_rate=1e308, clip_norm=1e308, prompt_tokens=2)
    fits = by_key(train_many(tiny, [members[0], broken, thrown, members[3]]))
    assert (fits["broken"].outcome, fits["broken"].steps) == (Outcome.DIVERGED, 0)
    assert fits["thrown"].outcome is Outcome.DIVERGED
    same(fits["a"], alone["a"])
    same(fits["d"], alone["d"])


def test_every_problem_can_go_on_from_its_own_last_state(tiny, alone):
    members = ragged(tiny)
    kept = {one.key: one.state.to_bytes() for one in members}

    class Killed(Exception):
        """Stands for a kill: in the midst of a step, some states are stored, others not."""

    done = {}
    for patience in (5, 11, 23, 40, 10**9):
        left = iter(range(patience))

        def keep(key, _, state, left=left):
            kept[key] = state().to_bytes()
            if next(left, None) is None:
                raise Killed

        waiting = [
            replace(one, state=TrainingState.from_bytes(kept[one.key], device=tiny.device))
            for one in members
            if one.key not in done
        ]
        try:
            done |= by_key(train_many(tiny, waiting, slots=3, on_step=keep))
        except Killed:
            continue
    assert done.keys() == alone.keys()
    for key, fit in done.items():
        same(fit, alone[key])


def test_a_stop_ends_what_runs_and_asks_for_no_more(tiny):
    asked = []

    def endless():
        for seed in range(10**6):
            asked.append(seed)
            yield problem(tiny, seed, seed=seed, pairs=HOPELESS)

    answers = iter([None, None, Outcome.OUT_OF_BUDGET])
    fits = list(train_many(tiny, endless(), slots=2, should_stop=lambda: next(answers)))
    assert [(fit.key, fit.outcome, fit.steps) for fit in fits] == [
        (0, Outcome.OUT_OF_BUDGET, 2),
        (1, Outcome.OUT_OF_BUDGET, 2),
    ]
    assert len(asked) <= 3


@pytest.mark.parametrize("slots", [0, -1])
def test_no_room_at_all_is_refused(slots, tiny):
    with pytest.raises(UserError, match="slots"):
        list(train_many(tiny, ragged(tiny), slots=slots))


def test_problems_of_another_layout_wait_for_their_turn(tiny):
    members = [
        problem(tiny, "double", max_steps=4),
        problem(tiny, "single", max_steps=4, dtype=torch.float32),
    ]
    together = set()
    fits = by_key(
        train_many(tiny, members, on_step=lambda _, report, __: together.add(report.problems))
    )
    assert together == {1}
    assert {key: fit.prompt.dtype for key, fit in fits.items()} == {
        "double": torch.float64,
        "single": torch.float32,
    }


def test_reports_are_those_of_the_problem_alone(tiny):
    told = {}
    members = ragged(tiny)[:2]
    by_key(
        train_many(tiny, members, on_step=lambda key, one, _: told.setdefault(key, []).append(one))
    )
    for member in members:
        lone = []
        by_key(train_many(tiny, [member], on_step=lambda _, one, __, lone=lone: lone.append(one)))
        for one, other in zip(lone, told[member.key], strict=True):
            facts = ("step", "exact", "best_exact", "pairs", "tokens_right")
            assert [getattr(one, name) for name in facts] == [
                getattr(other, name) for name in facts
            ]
            assert other.loss_nats == pytest.approx(one.loss_nats, rel=1e-9)


def test_an_ending_says_the_most_memory_of_its_steps(tiny):
    members = [
        problem(tiny, "long", pairs=HOPELESS, max_steps=9),
        problem(tiny, "brief", pairs=HOPELESS, max_steps=2),
        problem(tiny, "large", pairs=PAIRS * 4, max_steps=3),
    ]
    kept = []

    def note(key, report, _):
        if key == "long":
            kept.append(report.activation_bytes)

    fits = by_key(train_many(tiny, members, slots=2, on_step=note))
    # Beside the brief one, beside the large one, alone.
    assert 0 < kept[-1] < kept[0] < max(kept)
    assert fits["long"].activation_bytes == max(kept)
    assert fits["brief"].activation_bytes == kept[0]


class _Calls(TorchDispatchMode):
    """Counts the kernels that are called."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


class _Parts:
    """A model with a body of three kernels, whatever it is given."""

    def __init__(self, model):
        self.card, self.device = model.card, model.device
        self.head = IdentityHead(vocabulary=model.card.vocabulary)
        self._weight = torch.ones(model.card.dim, model.card.vocabulary, dtype=torch.float64)
        self.step_bytes = model.step_bytes
        self.logit_deviation = 1.0

    def prepare(self, parts, *, kind):
        self._reads = torch.cat([part.pairs.targets for part in parts])
        return self

    def read_states(self, prompts):
        return (prompts.sum(dim=0) @ self._weight).expand(len(self._reads), -1)

    def kept_bytes(self, states):
        return 0


def test_a_step_takes_as_many_kernels_for_many_problems_as_for_one(tiny):
    def kernels(count):
        members = [problem(tiny, seed, seed=seed) for seed in range(count)]
        engine = module._Running(_Parts(tiny), MemoryBudget(total_bytes=2**30), None)
        assert engine.admit(module._Waiting(iter(members)), None)
        engine.step()
        with _Calls() as calls:
            engine.step()
        return calls.count

    assert kernels(1) == kernels(2) == kernels(32) < 134
