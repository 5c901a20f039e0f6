"""The search on a tiny model: resumable, deterministic, and honest about what it holds."""

from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.capacity.cases import after, attempt_of, facts, never

from promptlimits.capacity.search import step_log
from promptlimits.capacity.search.attempt import attempt, race
from promptlimits.capacity.search.search import (
    SearchConfig,
    best_of,
    next_size,
    search,
    train_all,
)
from promptlimits.capacity.task.random_tokens import random_pairs
from promptlimits.capacity.task.targets import Targets
from promptlimits.capacity.task.text import TextSpec, text_task
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.evaluate import evaluate
from promptlimits.capacity.train.problem import Outcome
from promptlimits.capacity.train.state import TrainingState

TRAINING = TrainingConfig(prompt_tokens=4, learning_rate=0.3, max_steps=40, patience=40)
CONFIG = SearchConfig(training=TRAINING, first_size=2, starts=2)
LEAD = TRAINING.relative_lead
# Of the text enough steps for a few tokens, too few for all of them.
OF_TEXT = replace(CONFIG, training=replace(TRAINING, prompt_tokens=2, max_steps=30, patience=30))
TEXT = "the dog and the cat: one two three of the big red house and then"


def text_of(model, tokens=None):
    return text_task(TextSpec(text=TEXT, file="text.txt", tokens=tokens), model.codec)


@pytest.fixture(scope="module")
def task(model):
    return random_pairs(model.codec, count=8, seed=0)


@pytest.fixture(scope="module")
def pairs(task):
    return task.targets


@pytest.fixture(params=["pairs", "text"])
def asked(request, pairs, model):
    """A list and a text, each with settings under which a part of it is held."""
    return (pairs, CONFIG) if request.param == "pairs" else (text_of(model).targets, OF_TEXT)


def set_aside(folder):
    """Move a store out of the way, its log with it."""
    for part in list(folder.glob("store.sqlite*")):
        part.rename(folder / part.name.replace("store", "whole"))


def run(place, targets, config=CONFIG):
    return search(place, targets, config, warm=None, should_stop=never)


# --- the sizes --------------------------------------------------------------------------------


def follow(total, first, capacity):
    """The sizes tried when exactly those up to `capacity` can be solved."""
    solved = set()
    failed = set()
    tried = []
    while (size := next_size(solved, failed, total=total, first=first)) is not None:
        assert size not in solved | failed
        tried.append(size)
        (solved if size <= capacity else failed).add(size)
    assert max(solved, default=0) == min(capacity, total)
    return tried


def test_sizes_double_and_are_then_bisected():
    assert follow(100, 8, 21) == [8, 16, 32, 24, 20, 22, 21]
    assert follow(100, 8, 3) == [8, 4, 2, 3]
    assert follow(20, 8, 50) == [8, 16, 20]
    assert follow(5, 8, 5) == [5]
    assert follow(8, 8, 0) == [8, 4, 2, 1]


@given(st.integers(1, 400), st.integers(1, 64), st.integers(0, 500))
def test_the_search_ends_at_the_capacity_within_twice_the_logarithm(total, first, capacity):
    tried = follow(total, first, capacity)
    assert all(1 <= size <= total for size in tried)
    assert len(tried) <= 2 * max(total, first).bit_length() + 2


@given(st.sets(st.integers(1, 40)), st.sets(st.integers(1, 40)), st.integers(1, 40))
def test_whatever_is_known_the_next_size_is_new_and_between(solved, failed, total):
    solved = {size for size in solved if size <= total}
    failed = {size for size in failed if size <= total} - solved
    size = next_size(solved, failed, total=total, first=8)
    if size is not None:
        assert max(solved, default=0) < size <= total
        assert size not in solved | failed


# --- a search ---------------------------------------------------------------------------------


def test_every_attempt_holds_what_it_says(place, model, asked):
    targets, config = asked
    result = run(place, targets, config)
    assert result.complete
    assert 2 <= len(result.best.held) < len(targets)
    solved = max(one.size for one in result.attempts if one.outcome is Outcome.SOLVED)
    assert result.stopped_because == (
        f"{solved} {targets.units} were solved and {solved + 1} were not, in every start"
    )
    for one in result.attempts:
        alone = [
            index
            for index in range(one.size)
            if evaluate(
                model,
                one.prompt,
                [targets.first(one.size).member(index)],
                relative_lead=LEAD,
            ).held
        ]
        assert tuple(alone) == one.held
        assert (one.outcome is Outcome.SOLVED) == (len(one.held) == one.size)
        assert 0 < one.steps <= config.training.max_steps
    # A prompt that failed counts for what it holds all the same.
    assert any(one.held for one in result.attempts if one.outcome is not Outcome.SOLVED)


def test_a_search_stopped_at_every_tenth_step_ends_like_one_that_was_not(
    open_place, asked, tmp_path
):
    targets, config = asked
    whole = run(open_place(), targets, config)
    set_aside(tmp_path)
    for _ in range(100):
        part = search(open_place(), targets, config, warm=None, should_stop=after(10))
        if part.complete:
            break
        assert part.attempts[-1].outcome is Outcome.OUT_OF_BUDGET
        assert part.stopped_because.startswith("the budget was used up while it trained for ")
        assert part.stopped_because.endswith(f" {targets.units}")
    assert facts(*part.attempts) == facts(*whole.attempts)
    # No run twice, and a finished search asks the store alone.
    place = open_place()
    assert len(place.store.runs()) == len(whole.attempts)
    again = search(
        place,
        targets,
        config,
        warm=None,
        should_stop=lambda: pytest.fail("a finished search trained"),
    )
    assert facts(*again.attempts) == facts(*whole.attempts)


def test_a_warm_start_at_half_the_rate_and_fresh_ones_where_it_fails(place, pairs):
    by_size = {}
    for one in run(place, pairs).attempts:
        by_size.setdefault(one.size, []).append(one)
    for attempts in by_size.values():
        assert [one.seed for one in attempts] == list(range(len(attempts)))
        assert all(one.outcome is not Outcome.SOLVED for one in attempts[:-1])
        assert len(attempts) == 2 or attempts[-1].outcome is Outcome.SOLVED
    runs = place.store.runs()
    assert any(one.spec["warm"] is not None for one in runs)
    for one in runs:
        training = one.spec["training"]
        assert isinstance(training, dict)
        full = TRAINING.learning_rate
        assert training["learning_rate"] == (full if one.spec["warm"] is None else full / 2)
        # Only the first start at a size is warm.
        assert training["seed"] == 0 or one.spec["warm"] is None
    assert any(one.seed == 1 for one in runs)


def test_runs_differ_by_targets_settings_and_start(place, task, model):
    quick = replace(TRAINING, max_steps=2)
    warm = TrainingState.start(torch.ones(1, place.model.card.dim), 1)
    two, short = task.targets.first(2), text_of(model, 1)
    for targets, config, start in (
        (two, quick, None),
        (task.targets.first(3), quick, None),
        (two, replace(quick, seed=1), None),
        (two, quick, warm),
        (two, quick, replace(warm, moment_steps=2)),
        (two, quick, None),
        # A text of one token is not the pair that holds it.
        (short.targets, quick, None),
        (Targets.of(short.pairs), quick, None),
    ):
        attempt(place, targets, config, warm=start, should_stop=never)
    assert len(place.store.runs()) == 7


def test_best_is_the_one_that_holds_most():
    made = [attempt_of(9, Outcome.STALLED, held=h, seed=s) for s, h in enumerate((0, 3, 5, 5))]
    best = best_of(made)
    assert best.seed == 2
    assert best_of(made[:1]) is None


# --- starts side by side ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "steps", "stop", "seeds", "outcome"),
    [
        (2, 40, None, [0], Outcome.SOLVED),
        (8, 2, None, [0, 1, 2], Outcome.OUT_OF_STEPS),
        # Without budget the first start alone is begun.
        (8, 40, 0, [0], Outcome.OUT_OF_BUDGET),
    ],
)
def test_all_at_once_races_only_after_the_first_start_failed_alone(
    size, steps, stop, seeds, outcome, open_place, pairs
):
    config = replace(CONFIG, training=replace(TRAINING, max_steps=steps), starts=3)
    told = []
    for _ in range(2):
        # Asked again, everything comes out of the store.
        place = open_place()
        told.clear()
        result = train_all(
            place,
            pairs.first(size),
            config,
            should_stop=never if stop is None else after(stop),
            on_attempt=told.append,
        )
        assert list(result.attempts) == told
        assert sorted(one.seed for one in told) == seeds
        assert (told[0].seed, {one.outcome for one in told}) == (0, {outcome})
        assert (result.complete, result.stopped_because) == (outcome.final, outcome.value)
        assert len(place.store.runs()) == len(seeds)


def starts(count):
    config = replace(TRAINING, max_steps=60, patience=60)
    return [(replace(config, seed=seed), None) for seed in range(count)]


def test_a_race_ends_with_its_first_solved_start_and_the_others_can_go_on(open_place, pairs):
    place, two = open_place(), pairs.first(2)
    done = race(place, two, starts(3), should_stop=never)
    assert [one.outcome for one in done] == [Outcome.OVERTAKEN] * 2 + [Outcome.SOLVED]
    assert all(one.steps == done[-1].steps for one in done)
    # The store says nothing final of the overtaken, and asking again trains nothing.
    assert sorted(run.finished for run in place.store.runs()) == [False, False, True]
    again = race(
        open_place(),
        two,
        starts(3),
        should_stop=lambda: pytest.fail("a race that was won went on"),
    )
    assert facts(*again) == facts(*done)
    # Asked for alone, a start that was overtaken goes on from its last step.
    loser, place = done[0], open_place()
    alone = attempt(place, two, starts(3)[loser.seed][0], warm=None, should_stop=never)
    assert alone.outcome.final
    assert alone.steps > loser.steps
    assert len(place.store.runs()) == 3


class Killed(BaseException):
    """Stands for a kill, or a Ctrl-C, after some starts have taken a step and others have not."""


def cut_off(open_place, pairs, tmp_path, every):
    """A race that is cut off every so many steps of a start; the stored curve is looked at."""
    two = pairs.first(2)
    whole = race(open_place(), two, starts(3), should_stop=never)
    set_aside(tmp_path)
    times = 0
    while True:
        left = iter(range(every))

        def cut(_, left=left):
            if next(left, None) is None:
                raise Killed

        try:
            place = replace(open_place(), on_step=cut)
            done = race(place, two, starts(3), should_stop=never)
            break
        except Killed:
            times += 1
            runs = place.store.runs()
            # No start falls behind, however often its turn is cut off.
            assert max(run.steps for run in runs) - min(run.steps for run in runs) <= 1
            for run in runs:
                steps = [row["step"] for row in place.store.curve(run.id)]
                assert steps == list(range(1, run.steps + 1))
                stored = place.store.checkpoint(run.id)
                assert (stored is None) == (not steps)
                if stored is not None:
                    state = TrainingState.from_bytes(stored, device=torch.device("cpu"))
                    assert state.step == run.steps
    assert facts(done[-1]) == facts(whole[-1])
    return times


@pytest.mark.parametrize("every", [4, 7])
def test_an_interrupted_race_loses_no_step_and_has_the_same_winner(
    every, open_place, pairs, tmp_path
):
    assert cut_off(open_place, pairs, tmp_path, every) > 1


@pytest.mark.parametrize(("every", "written_every"), [(4, 1), (7, 3), (20, 14)])
def test_a_killed_race_goes_on_from_what_was_written_and_has_the_same_winner(
    every, written_every, open_place, pairs, tmp_path, monkeypatch
):
    ticks = count(step=step_log.WRITE_SECONDS / written_every)
    monkeypatch.setattr(step_log, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    # Nobody tidies up after a kill.
    monkeypatch.setattr(step_log.StepLog, "__exit__", lambda *_: None)
    assert cut_off(open_place, pairs, tmp_path, every) > 1


def test_a_race_without_time_says_so(place, pairs):
    done = race(place, pairs.first(2), starts(2), should_stop=after(2))
    assert [(one.outcome, one.steps) for one in done] == [(Outcome.OUT_OF_BUDGET, 2)] * 2


def test_starts_that_search_in_bfloat16_are_won_by_what_the_model_scores(
    open_place, pairs, tmp_path
):
    two = pairs.first(2)
    narrow = [(replace(config, search_dtype="bfloat16"), warm) for config, warm in starts(3)]
    whole = race(open_place(), two, narrow, should_stop=never)
    place = open_place()
    assert whole[-1].outcome is Outcome.SOLVED
    for one in whole:
        found = evaluate(place.model, one.prompt, two.trained, relative_lead=LEAD)
        assert set(one.held) <= set(found.held)
    assert len(whole[-1].held) == 2
    # Runs are named by it, and those that are cut off go on to the same end.
    assert race(place, two, starts(3), should_stop=after(1))[-1].steps == 1
    set_aside(tmp_path)
    for _ in range(100):
        done = race(open_place(), two, narrow, should_stop=after(7))
        if done[-1].outcome.final:
            break
        assert all(one.outcome is Outcome.OUT_OF_BUDGET for one in done)
    assert facts(*done) == facts(*whole)
