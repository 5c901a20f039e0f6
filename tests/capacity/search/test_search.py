"""The search on a tiny model: resumable, deterministic, and honest about what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from promptlimits.base.errors import UserError
from promptlimits.capacity.fit import FitRequest, fit_all, train_all
from promptlimits.capacity.search import ordering
from promptlimits.capacity.search.attempt import Attempt, Workplace, attempt, race
from promptlimits.capacity.search.baselines import in_context, no_prompt
from promptlimits.capacity.search.budget import Budget, StepCount
from promptlimits.capacity.search.ordering import Order, ordered
from promptlimits.capacity.search.search import SearchConfig, SearchResult, best_of, search
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.encoded import EncodedTask
from promptlimits.capacity.task.random_tokens import random_pairs
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.evaluate import Evaluation, evaluate
from promptlimits.capacity.train.outcome import Outcome
from promptlimits.capacity.train.problem import StepReport
from promptlimits.nets.load.load import load_parts
from promptlimits.nets.protocol import EncodedPair
from promptlimits.nets.routes.causal import HuggingFaceCausalLM

TRAINING = TrainingConfig(prompt_tokens=4, learning_rate=0.3, max_steps=40, patience=40)
CONFIG = SearchConfig(training=TRAINING, first_size=2, starts=2)


def never() -> None:
    """A stopper that never stops."""


def after(steps: int) -> Callable[[], Outcome | None]:
    """A stopper that lets so many steps through."""
    left = iter(range(steps))
    return lambda: Outcome.OUT_OF_BUDGET if next(left, None) is None else None


@pytest.fixture
def stock(model: HuggingFaceCausalLM) -> PreTrainedModel:
    """The same weights with the attention they came with."""
    return load_parts(model.card.path).model


@pytest.fixture(scope="module")
def task(model: HuggingFaceCausalLM) -> EncodedTask:
    return random_pairs(model.codec, count=8, seed=0)


@pytest.fixture
def open_place(model: HuggingFaceCausalLM, tmp_path: Path) -> Iterator[Callable[[], Workplace]]:
    """Opens the one store of the test, again and again, as separate commands would."""
    opened: list[Store] = []

    def open_it() -> Workplace:
        while opened:
            opened.pop().close()
        opened.append(Store.open(tmp_path / "store.sqlite"))
        return Workplace(model=model, store=opened[0], task_hash="t", provenance={})

    yield open_it
    while opened:
        opened.pop().close()


def run(place: Workplace, task: EncodedTask, stop: Callable[[], Outcome | None]) -> SearchResult:
    return search(place, task.pairs, CONFIG, warm=None, should_stop=stop)


def facts_of(one: Attempt) -> tuple[object, ...]:
    return one.pairs, one.outcome, one.held, one.steps, one.seed, one.prompt.numpy().tobytes()


def facts(result: SearchResult) -> list[tuple[object, ...]]:
    return [facts_of(one) for one in result.attempts]


def test_every_attempt_holds_what_it_says(
    open_place: Callable[[], Workplace], model: HuggingFaceCausalLM, task: EncodedTask
) -> None:
    result = run(open_place(), task, never)
    assert result.complete
    assert result.best is not None
    assert len(result.best.held) >= 2
    for one in result.attempts:
        found = evaluate(model, one.prompt, task.pairs[: one.pairs], relative_lead=1e-3)
        assert found.held == one.held
        assert (one.outcome is Outcome.SOLVED) == (len(one.held) == one.pairs)
        assert 0 < one.steps <= TRAINING.max_steps


def test_a_search_stopped_at_every_tenth_step_ends_like_one_that_was_not(
    open_place: Callable[[], Workplace], task: EncodedTask, tmp_path: Path
) -> None:
    whole = run(open_place(), task, never)
    set_aside(tmp_path)
    for _ in range(100):
        part = run(open_place(), task, after(10))
        if part.complete:
            break
        assert part.attempts[-1].outcome is Outcome.OUT_OF_BUDGET
    assert facts(part) == facts(whole)
    # No run twice, and a finished search asks the store alone.
    place = open_place()
    assert len(place.store.runs()) == len(whole.attempts)
    again = run(place, task, lambda: pytest.fail("a finished search trained"))
    assert facts(again) == facts(whole)


def test_fresh_starts_follow_a_warm_one_that_fails(
    open_place: Callable[[], Workplace], task: EncodedTask
) -> None:
    result = run(open_place(), task, never)
    by_size: dict[int, list[Attempt]] = {}
    for one in result.attempts:
        by_size.setdefault(one.pairs, []).append(one)
    for attempts in by_size.values():
        assert [one.seed for one in attempts] == list(range(len(attempts)))
        assert all(one.outcome is not Outcome.SOLVED for one in attempts[:-1])
        assert len(attempts) == 2 or attempts[-1].outcome is Outcome.SOLVED


def test_a_warm_start_goes_on_at_half_the_learning_rate(
    open_place: Callable[[], Workplace], task: EncodedTask
) -> None:
    place = open_place()
    run(place, task, never)
    runs = place.store.runs()
    assert any(one.spec["warm"] is not None for one in runs)
    for one in runs:
        training = one.spec["training"]
        assert isinstance(training, dict)
        full = TRAINING.learning_rate
        expected = full if one.spec["warm"] is None else full / 2
        assert training["learning_rate"] == expected
        # Only the first start at a size is warm.
        assert training["seed"] == 0 or one.spec["warm"] is None
    assert any(one.seed == 1 for one in runs)


def test_runs_differ_by_pairs_settings_and_start(
    open_place: Callable[[], Workplace], task: EncodedTask
) -> None:
    place = open_place()
    quick = replace(TRAINING, max_steps=2)
    warm = torch.ones(1, place.model.card.dim)
    for pairs, config, start in (
        (task.pairs[:2], quick, None),
        (task.pairs[:3], quick, None),
        (task.pairs[:2], replace(quick, seed=1), None),
        (task.pairs[:2], quick, warm),
        (task.pairs[:2], quick, 2 * warm),
        (task.pairs[:2], quick, None),
    ):
        attempt(place, pairs, config, warm=start, should_stop=never)
    assert len(place.store.runs()) == 5


def test_best_is_the_one_that_holds_most(open_place: Callable[[], Workplace]) -> None:
    def made(held: int, seed: int) -> Attempt:
        return Attempt(
            pairs=9,
            outcome=Outcome.STALLED,
            held=tuple(range(held)),
            prompt=torch.zeros(1, 2),
            steps=1,
            seconds=0.0,
            seed=seed,
        )

    best = best_of([made(0, 0), made(3, 1), made(5, 2), made(5, 3)])
    assert best is not None
    assert best.seed == 2
    assert best_of([made(0, 0)]) is None


class Told:
    """A listener that keeps the attempts it is told of."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []

    def attempted(self, _kind: object, _prompt_tokens: int, attempt: Attempt) -> None:
        self.attempts.append(attempt)

    def stage(self, text: str, total: int | None = None) -> None: ...

    def ends_at(self, moment: float) -> None: ...

    def advanced(self, done: int) -> None: ...

    def step(self, *_: object) -> None: ...

    def found(self, text: str) -> None: ...


def fitted(
    place: Workplace,
    task: EncodedTask,
    config: TrainingConfig = TRAINING,
    *,
    budget: Budget | None = None,
) -> Told:
    told = Told()
    request = FitRequest(training=config, starts=3)
    result = train_all(place, task, request, budget or Budget(), told)
    assert list(result.attempts) == told.attempts
    return told


def test_fit_stops_at_the_first_start_that_solves(
    open_place: Callable[[], Workplace], task: EncodedTask
) -> None:
    small = replace(task, pairs=task.pairs[:2], places=task.places[:2])
    attempts = fitted(open_place(), small).attempts
    assert attempts[-1].outcome is Outcome.SOLVED
    assert all(one.outcome is not Outcome.SOLVED for one in attempts[:-1])


def test_fit_races_only_after_the_first_start_failed_alone(
    open_place: Callable[[], Workplace], task: EncodedTask, tmp_path: Path
) -> None:
    def first(pairs: int, config: TrainingConfig) -> list[Attempt]:
        small = replace(task, pairs=task.pairs[:pairs], places=task.places[:pairs])
        return fitted(open_place(), small, config).attempts

    alone = first(2, TRAINING)
    assert [(one.seed, one.outcome) for one in alone] == [(0, Outcome.SOLVED)]
    assert len(open_place().store.runs()) == 1
    failed = first(8, replace(TRAINING, max_steps=2))
    assert sorted(one.seed for one in failed) == [0, 1, 2]
    assert failed[0].seed == 0
    assert {one.outcome for one in failed} == {Outcome.OUT_OF_STEPS}
    # Asked again, everything comes out of the store.
    assert [one.steps for one in first(8, replace(TRAINING, max_steps=2))] == [2, 2, 2]
    assert len(open_place().store.runs()) == 4


@pytest.mark.parametrize("budget", [Budget(seconds=0.0), Budget(steps=0)])
def test_fit_does_not_race_when_its_budget_is_used_up(
    budget: Budget, open_place: Callable[[], Workplace], task: EncodedTask
) -> None:
    done = fitted(open_place(), task, budget=budget).attempts
    assert [(one.seed, one.outcome) for one in done] == [(0, Outcome.OUT_OF_BUDGET)]


def set_aside(folder: Path) -> None:
    """Move a store out of the way, its log with it."""
    for part in list(folder.glob("store.sqlite*")):
        part.rename(folder / part.name.replace("store", "whole"))


def starts(count: int) -> list[TrainingConfig]:
    return [replace(TRAINING, max_steps=60, patience=60, seed=seed) for seed in range(count)]


def test_a_race_ends_with_its_first_solved_start_and_the_others_can_go_on(
    open_place: Callable[[], Workplace], task: EncodedTask
) -> None:
    place = open_place()
    done = race(place, task.pairs[:2], starts(3), warm=None, should_stop=never)
    assert [one.outcome for one in done] == [Outcome.OVERTAKEN] * 2 + [Outcome.SOLVED]
    assert all(one.steps == done[-1].steps for one in done)
    # The store says nothing final of the overtaken, and asking again trains nothing.
    assert sorted(run.finished for run in place.store.runs()) == [False, False, True]
    again = race(
        open_place(),
        task.pairs[:2],
        starts(3),
        warm=None,
        should_stop=lambda: pytest.fail("a race that was won went on"),
    )
    assert [(one.seed, one.steps, one.held) for one in again] == [
        (one.seed, one.steps, one.held) for one in done
    ]
    # Asked for alone, a start that was overtaken goes on from its last step.
    loser = done[0]
    config = starts(3)[loser.seed]
    place = open_place()
    alone = attempt(place, task.pairs[:2], config, warm=None, should_stop=never)
    assert alone.outcome.final
    assert alone.steps > loser.steps
    assert len(place.store.runs()) == 3


@pytest.mark.parametrize("every", [1, 7])
def test_a_race_killed_in_the_midst_of_steps_has_the_same_winner(
    every: int, open_place: Callable[[], Workplace], task: EncodedTask, tmp_path: Path
) -> None:
    whole = race(open_place(), task.pairs[:2], starts(3), warm=None, should_stop=never)
    set_aside(tmp_path)

    class Killed(Exception):
        """Stands for a kill after some starts have stored a step and others have not."""

    for _ in range(1000):
        left = iter(range(every))

        def kill(_: StepReport, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise Killed

        try:
            place = replace(open_place(), on_step=kill)
            done = race(place, task.pairs[:2], starts(3), warm=None, should_stop=never)
        except Killed:
            # No start falls behind, however often its turn is cut off.
            steps = [run.steps for run in place.store.runs()]
            assert max(steps) - min(steps) <= 1
            continue
        break
    assert facts_of(done[-1]) == facts_of(whole[-1])


def test_a_race_without_time_says_so(
    open_place: Callable[[], Workplace], task: EncodedTask
) -> None:
    done = race(open_place(), task.pairs[:2], starts(2), warm=None, should_stop=after(2))
    assert [(one.outcome, one.steps) for one in done] == [(Outcome.OUT_OF_BUDGET, 2)] * 2


def test_a_pair_longer_than_the_context_is_refused_before_training(
    open_place: Callable[[], Workplace], task: EncodedTask, tmp_path: Path
) -> None:
    long = replace(TRAINING, prompt_tokens=128)
    with pytest.raises(UserError, match="fit into the model's context"):
        fit_all(
            open_place(),
            task,
            FitRequest(training=long, starts=1),
            folder=tmp_path,
            listener=Told(),
        )


def test_without_a_prompt_is_what_the_bare_model_answers(
    model: HuggingFaceCausalLM, stock: PreTrainedModel, task: EncodedTask
) -> None:
    without = no_prompt(model, task.pairs)
    assert (without.of, without.shots, without.context_tokens) == (8, 0, 0)
    # Give the model its own greedy answer as the value: then it must count as exact.
    first = task.pairs[0]
    logits = stock(input_ids=torch.tensor([first.key_ids])).logits[0, -1]
    own = replace(first, value_ids=(int(logits.argmax()),))
    assert no_prompt(model, [own, first]).exact[:1] == (0,)


def test_in_context_shows_as_many_pairs_as_fit(
    model: HuggingFaceCausalLM, stock: PreTrainedModel, task: EncodedTask
) -> None:
    each = len(task.pairs[0].key_ids) + len(task.pairs[0].value_ids)
    assert in_context(model, task.pairs).shots == 8
    few = in_context(model, task.pairs, most_tokens=3 * each + 1)
    assert (few.shots, few.context_tokens) == (3, 3 * each)
    assert "5 pairs did not fit" in few.note
    # A pair that stands right in front of its own question, behind the stock model.
    context = [token for pair in task.pairs for token in pair.key_ids + pair.value_ids]
    ids = torch.tensor([[*context, *task.pairs[2].input_ids]])
    tail = stock(input_ids=ids).logits[0, -2:].argmax(dim=-1)
    exact = tuple(tail.tolist()) == task.pairs[2].value_ids
    assert (2 in in_context(model, task.pairs).exact) == exact


def test_orders(model: HuggingFaceCausalLM, task: EncodedTask) -> None:
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


def test_no_pair_is_judged_behind_itself(
    model: HuggingFaceCausalLM, task: EncodedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[tuple[int, ...], list[EncodedPair]]] = []

    def record(
        model: HuggingFaceCausalLM,
        context: tuple[int, ...],
        pairs: list[EncodedPair],
        on_chunk: object,
        should_stop: object,
    ) -> Evaluation:
        asked.append((context, pairs))
        no = (False,) * len(pairs)
        return Evaluation(exact=no, but_end=no, loss_nats=(0.0,) * len(pairs))

    monkeypatch.setattr(ordering, "answers_behind", record)
    assert ordered(model, task.pairs, Order.EASIEST, seed=1) == tuple(range(8))
    assert sorted(pair.key for _, pairs in asked for pair in pairs) == sorted(
        pair.key for pair in task.pairs
    )
    for context, pairs in asked:
        shown = {context[place : place + 3] for place in range(0, len(context), 3)}
        assert len(shown) == 4
        assert shown.isdisjoint({pair.key_ids + pair.value_ids for pair in pairs})


def test_a_budget_of_seconds_in_parts() -> None:
    whole = Budget(seconds=100.0)
    half = whole.part(0.5, keep_seconds=20.0)
    assert half.left_seconds == pytest.approx(40.0, abs=0.5)
    assert half.should_stop() is None
    assert whole.part(1.0, keep_seconds=500.0).should_stop() is Outcome.OUT_OF_BUDGET
    assert Budget().part(0.5).should_stop() is None
    late = replace(whole, began=whole.began - 99.0)
    assert late.at_most(0.25).left_seconds == pytest.approx(1.0, abs=0.5)


def test_a_budget_of_steps_is_used_by_all_its_parts() -> None:
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
