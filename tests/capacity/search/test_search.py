"""The search on a tiny model: resumable, deterministic, and honest about what it holds."""

from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from tests.capacity.cases import after, attempt_of, facts, never, set_aside

from promptlimits.capacity.search import step_log
from promptlimits.capacity.search.attempt import attempt, race
from promptlimits.capacity.search.search import (
    SearchConfig,
    best_of,
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
TEXT = "the dog and the cat: one two three of the big red house and then"


def text_of(model, tokens=None):
    return text_task(TextSpec(text=TEXT, file="text.txt", tokens=tokens), model.codec)


@pytest.fixture(scope="module")
def task(model):
    return random_pairs(model.codec, count=8, seed=0)


@pytest.fixture(scope="module")
def pairs(task):
    return task.targets


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


@pytest.mark.parametrize("every", [1, 9])
def test_a_race_for_two_ends_with_the_second_however_often_it_was_cut_off(
    every, open_place, pairs, tmp_path
):
    whole = race(open_place(), pairs.first(2), starts(4), enough=2, should_stop=never)
    outcomes = sorted(one.outcome for one in whole)
    assert outcomes == [Outcome.OVERTAKEN] * 2 + [Outcome.SOLVED] * 2
    assert max(one.steps for one in whole) == max(
        one.steps for one in whole if one.outcome is Outcome.SOLVED
    )
    set_aside(tmp_path)
    for _ in range(100):
        done = race(open_place(), pairs.first(2), starts(4), enough=2, should_stop=after(every))
        if all(one.outcome.final for one in done):
            break
    assert facts(*done) == facts(*whole)


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
