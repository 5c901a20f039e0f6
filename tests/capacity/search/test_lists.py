"""The search of a list: its working sets, its end, its budget, and that it can be cut off."""

from dataclasses import replace

import pytest
from tests.capacity.cases import after, facts, never

from promptlimits.capacity.search.choice import choose
from promptlimits.capacity.search.control import control_size
from promptlimits.capacity.search.lists import ROUND_PATIENCE, search_list
from promptlimits.capacity.search.search import LEAST_STEPS, SearchConfig
from promptlimits.capacity.task.random_tokens import random_pairs
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.evaluate import evaluate
from promptlimits.capacity.train.problem import Outcome

TRAINING = TrainingConfig(prompt_tokens=4, learning_rate=0.3, max_steps=40, patience=20)
CONFIG = SearchConfig(training=TRAINING, first_size=2, starts=2)
LEAD = TRAINING.relative_lead


@pytest.fixture(scope="module")
def targets(model):
    return random_pairs(model.codec, count=8, seed=0).targets


def run(place, targets, config=CONFIG, *, stop=never, warm=None, nearest_first=True, **given):
    return search_list(
        place,
        targets,
        config,
        warm=warm,
        nearest_first=nearest_first,
        should_stop=stop,
        **given,
    )


def held_by(model, targets, prompt):
    right = evaluate(model, prompt, targets.trained, relative_lead=LEAD).right
    return set(targets.held(right))


def test_every_round_holds_what_it_says_and_the_next_one_trains_for_what_is_wrong(
    place, model, targets, monkeypatch
):
    from promptlimits.capacity.search import lists as module

    chosen = []
    attempt = module.attempt

    def noted(place, members, *given, **named):
        chosen.append(members)
        return attempt(place, members, *given, **named)

    monkeypatch.setattr(module, "attempt", noted)
    result = run(place, targets)
    assert result.complete
    best, warm_rounds = set(), 0
    rounds = [one for one in result.attempts if one.seed == TRAINING.seed]
    assert len(rounds) == len(chosen)
    for one, members in zip(rounds, chosen, strict=True):
        of_set = held_by(model, members, one.prompt)
        assert set(one.held) == of_set
        assert one.size == len(members)
        of_list = held_by(model, targets, one.prompt)
        # Asked as far as four times the set: here the whole list.
        assert set(one.of_list) == of_list
        wrong = [index for index in members.order if index not in best]
        assert wrong
        assert best <= set(members.order)
        assert len(wrong) <= max(len(best), CONFIG.first_size)
        unsolved = one.outcome is not Outcome.SOLVED
        followed = one.row.remedy == "nothing to do: another working set followed"
        assert followed == (unsolved and not one.decides)
        warm_rounds += bool(best)
        best = max(best, of_list, key=len)
    assert warm_rounds >= 2
    assert len(result.best.of_list) == len(best) >= 3
    if len(best) < len(targets):
        assert result.stopped_because == (
            f"{len(best)} pairs are held and {len(best) + 1} were not, in every start"
        )
        assert control_size(result) == len(best) + 1
        last = [one for one in result.attempts if one.size == len(best) + 1 and one.decides]
        assert sorted(one.seed for one in last)[-2:] == [0, 1]
        assert all(one.outcome is not Outcome.SOLVED for one in last)


def test_a_round_goes_on_with_adams_moments_at_half_the_rate(place, targets):
    result = run(place, targets)
    runs = place.store.runs()
    warm = [one for one in runs if one.spec["warm"] is not None]
    assert warm
    full = TRAINING.learning_rate
    for one in runs:
        training = one.spec["training"]
        assert training["learning_rate"] == (full if one.spec["warm"] is None else full / 2)
        assert training["patience"] in (TRAINING.patience, ROUND_PATIENCE)
    first, second = result.attempts[:2]
    assert second.state.moment_steps == first.state.moment_steps + second.steps


def test_in_a_given_order_the_first_wrong_pairs_come_next(place, targets):
    few = replace(CONFIG, training=replace(TRAINING, max_steps=5))
    result = run(place, targets, few, nearest_first=False)
    first = result.attempts[0]
    assert set(first.held) <= set(targets.order[:2])
    by_loss = run(place, targets, few)
    assert facts(by_loss.attempts[0]) == facts(first)


def test_a_search_stopped_at_every_tenth_step_ends_like_one_that_was_not(
    open_place, targets, tmp_path
):
    whole = run(open_place(), targets)
    for part in list(tmp_path.glob("store.sqlite*")):
        part.rename(tmp_path / part.name.replace("store", "whole"))
    for _ in range(200):
        part = run(open_place(), targets, stop=after(10))
        if part.complete:
            break
        assert part.stopped_because.startswith("the budget was used up while it trained for ")
    assert facts(*part.attempts) == facts(*whole.attempts)
    assert [one.of_list for one in part.attempts] == [one.of_list for one in whole.attempts]
    place = open_place()
    assert len(place.store.runs()) == len(whole.attempts)
    again = run(place, targets, stop=lambda: pytest.fail("a finished search trained"))
    assert facts(*again.attempts) == facts(*whole.attempts)


def test_no_round_but_the_first_begins_without_room_for_its_steps(place, targets):
    asked = []

    def no_room(steps, seconds):
        asked.append((steps, seconds))
        return False

    result = run(place, targets, has_room=no_room)
    assert len(result.attempts) == 1
    assert not result.complete
    assert result.stopped_because == "the budget had no room for 40 steps of another round"
    (one,) = result.attempts
    # The pair that it holds and two that are wrong, then one: more and as many as it had.
    assert (one.size, len(one.of_list)) == (2, 1)
    each = one.seconds / one.steps
    assert asked == [(LEAST_STEPS, pytest.approx(share * each)) for share in (1.5, 1.0)]


def test_a_longer_prompt_goes_on_from_a_shorter_one(place, model, targets):
    short = run(place, targets, replace(CONFIG, training=replace(TRAINING, prompt_tokens=2)))
    first = short.best
    long = run(place, targets, warm=first.state)
    assert long.best.prompt.shape[0] == 4
    assert long.attempts[0].state.moment_steps == first.state.moment_steps + long.attempts[0].steps
    choice = choose(place, targets, long.attempts, work={"w": 1}, relative_lead=LEAD)
    assert set(choice.held) == held_by(model, targets, choice.prompt)
    assert len(choice.held) >= max(len(one.of_list) for one in long.attempts)


def test_the_whole_list_ends_it(place, targets):
    result = run(place, targets.first(3))
    assert result.complete
    assert result.stopped_because == "the whole list is held"
    assert len(result.best.of_list) == 3
    assert control_size(result) is None
