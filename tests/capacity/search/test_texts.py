"""The search for a text on a tiny model: its lines of runs, resumable and honest."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.capacity.cases import after, facts, never

from promptlimits.capacity.search.search import SearchConfig
from promptlimits.capacity.search.texts import (
    LINE,
    next_length,
    search_text,
    train_text,
)
from promptlimits.capacity.task.text import TextSpec, text_task
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.evaluate import evaluate
from promptlimits.capacity.train.problem import Outcome
from promptlimits.nets.protocol import PromptKind

TEXT = "the dog and the cat: one two three of the big red house and then"
# Enough steps for a few tokens, too few for all of them.
TRAINING = TrainingConfig(prompt_tokens=4, learning_rate=1.0, max_steps=40, patience=40)
CONFIG = SearchConfig(training=TRAINING, first_size=4, starts=2)


@pytest.fixture(scope="module")
def targets(model):
    return text_task(TextSpec(text=TEXT, file="text.txt"), model.codec).targets


@pytest.fixture(scope="module")
def found(model, targets, tmp_path_factory):
    """A search that was not cut off, and the runs of its store."""
    from tests.capacity.cases import runs

    from promptlimits.capacity.store.sqlite import Store

    with Store.open(tmp_path_factory.mktemp("found") / "store.sqlite") as store:
        result = search_text(runs(model, store), targets, CONFIG, warm=None, should_stop=never)
        return result, store.runs()


# --- the beginnings -----------------------------------------------------------------------------


def follow(total, capacity, held=1):
    """The beginnings that are tried when a prompt holds `capacity` tokens and no more."""
    failed = set()
    tried = []
    while (size := next_length(held, failed, total=total)) is not None:
        tried.append(size)
        if size > capacity:
            failed.add(size)
        held = max(held, min(size, capacity))
    assert held == min(total, capacity)
    return tried


def test_beginnings_grow_by_half_and_end_next_to_what_is_held():
    assert follow(50, 11, held=4) == [6, 9, 14, 13, 12]
    assert follow(20, 99, held=8) == [12, 18, 20]
    assert follow(9, 0, held=0) == [1]
    assert follow(9, 9, held=9) == []


@given(st.integers(0, 99), st.sets(st.integers(1, 100)), st.integers(1, 100))
def test_the_next_beginning_is_new_and_above_what_is_held(held, failed, total):
    held, failed = min(held, total), {size for size in failed if size <= total}
    size = next_length(held, failed, total=total)
    if size is not None:
        assert held < size <= total
        assert size not in failed


# --- a search -----------------------------------------------------------------------------------


def test_every_attempt_holds_what_it_says(found, model, targets):
    result, _ = found
    held = len(result.best.held)
    assert result.complete
    assert 4 <= held < len(targets)
    assert result.stopped_because == (
        f"{held} tokens were held and {held + 1} were not, in every start"
    )
    for one in result.attempts:
        # Of the scouts more is asked than of the others.
        (right,) = evaluate(
            model, one.prompt, targets.first(one.size).trained, relative_lead=1e-3
        ).right
        assert one.held == tuple(range(right)) or (one.size == 1 and not one.held)
        assert (one.outcome is Outcome.SOLVED) == (len(one.held) == one.size)


def test_a_start_has_scouts_heats_and_growth(found):
    result, kept = found
    sizes = [one.size for one in result.attempts]
    line = sizes[: sizes.index(1, LINE.scouts)]
    first, second = LINE.heats
    heats = [2] * first.entrants + [4] * second.entrants
    assert line[: LINE.scouts + len(heats)] == [1] * LINE.scouts + heats
    growth = result.attempts[LINE.scouts + len(heats) : len(line)]
    # All of it from one scout.
    assert len({one.seed for one in growth}) == 1
    held = 4
    for one in growth:
        assert one.size > held
        held = max(held, len(one.held))
    # The next start has other scouts.
    scouts = [one.seed for one in result.attempts if one.size == 1]
    assert sorted(scouts) == list(range(2 * LINE.scouts))
    rates = {one.spec["training"]["learning_rate"] for one in kept if one.spec["size"] == 1}
    assert rates == {share * TRAINING.learning_rate for share in LINE.scout_rates}


def test_after_the_scouts_the_rate_is_a_share_of_the_prompt(found):
    result, kept = found
    rates = {one.spec["training"]["learning_rate"] for one in kept if one.spec["size"] > 1}
    shares = {
        LINE.relative_rate * TRAINING.learning_rate * float(one.prompt.square().mean().sqrt())
        for one in result.attempts
    }
    assert len(rates) > 2
    assert rates <= shares


@pytest.mark.slow  # a whole search, read and written many times over
def test_a_search_stopped_every_eighty_steps_ends_like_one_that_was_not(found, open_place, targets):
    for _ in range(100):
        part = search_text(open_place(), targets, CONFIG, warm=None, should_stop=after(80))
        if part.complete:
            break
        assert any(one.outcome is Outcome.OUT_OF_BUDGET for one in part.attempts)
        assert part.stopped_because.startswith("the budget was used up while it trained for ")
    whole, kept = found
    assert facts(*part.attempts) == facts(*whole.attempts)
    # No run twice, and a finished search asks the store alone.
    place = open_place()
    assert len(place.store.runs()) == len(kept)
    again = search_text(
        place,
        targets,
        CONFIG,
        warm=None,
        should_stop=lambda: pytest.fail("a finished search trained"),
    )
    assert facts(*again.attempts) == facts(*whole.attempts)


def test_a_longer_prompt_starts_from_a_shorter_one(place, targets, found):
    shorter = next(one for one in found[0].attempts if len(one.held) == one.size == 4)
    config = replace(CONFIG, training=replace(TRAINING, prompt_tokens=6), starts=1)
    result = search_text(place, targets, config, warm=shorter.state, should_stop=never)
    # What it held comes first, and no scouts.
    assert result.attempts[0].size == 4
    assert len(result.best.held) >= 4
    assert all(one.prompt.shape[0] == 6 for one in result.attempts)
    # Before its first step: shrinking copies of the first token in front.
    start = search_text(
        replace(place, task_hash="other"), targets, config, warm=shorter.state, should_stop=after(0)
    )
    first = shorter.prompt[:1]
    torch.testing.assert_close(
        start.attempts[0].prompt, torch.cat([first / 4, first / 2, shorter.prompt])
    )


@pytest.mark.parametrize("size", [2, 12])
def test_a_start_told_as_one_attempt(size, place, targets):
    some = targets.first(size)
    told = train_text(place, some, TRAINING, warm=None, should_stop=never)
    solved = size == 2
    assert told.size == size
    assert (told.outcome is Outcome.SOLVED) == (len(told.held) == size) == solved
    assert told.outcome.final
    assert told.steps == sum(run.steps for run in place.store.runs())
    cut = train_text(
        replace(place, task_hash="other"), some, TRAINING, warm=None, should_stop=after(3)
    )
    assert cut.outcome is Outcome.OUT_OF_BUDGET


def test_a_whole_text_ends_the_search(place, targets):
    short = targets.first(3)
    result = search_text(place, short, CONFIG, warm=None, should_stop=never)
    assert (result.complete, result.stopped_because) == (True, "the whole text is held")
    assert len(result.best.held) == 3
    assert max(one.size for one in result.attempts) == 3


def test_a_prefix_grows_from_one_fresh_run(place, targets):
    prefixes = replace(place, kind=PromptKind.PREFIX)
    result = search_text(
        prefixes, targets.first(6), replace(CONFIG, starts=1), warm=None, should_stop=never
    )
    assert [one.size for one in result.attempts][:2] == [4, 6]
    assert [one.spec["training"]["learning_rate"] for one in place.store.runs()][:2] == [1.0, 0.5]
