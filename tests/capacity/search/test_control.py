"""The planted control: a known prompt's answers, and what training makes of them."""

import math
import time
from dataclasses import replace

import pytest
import torch
from tests.capacity.cases import after, attempt_of, never, result_of, runs

from promptlimits.capacity.search import planting
from promptlimits.capacity.search.budget import Budget
from promptlimits.capacity.search.control import (
    BUDGET_USED_UP,
    NOTHING_PLANTED,
    SearchBudget,
    conclusion_of,
    control_size,
    entropy_bits,
    run_control,
)
from promptlimits.capacity.search.planting import plant
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.random_tokens import random_pairs
from promptlimits.capacity.task.text import TextSpec, text_task
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.evaluate import evaluate
from promptlimits.capacity.train.problem import Outcome
from promptlimits.nets.protocol import PromptKind
from promptlimits.record.parts import Control

TRAINING = TrainingConfig(prompt_tokens=2, learning_rate=0.3, max_steps=60, patience=30)


@pytest.fixture(scope="module")
def task(model):
    return random_pairs(model.codec, count=24, value_tokens=2, seed=0)


def ended(size, outcome, held=0):
    return attempt_of(size, outcome, held=held)


def planted(model, task, size=12):
    made = plant(model, task.pairs, TRAINING, size=size, token_norm=4.0, should_stop=never)
    assert made is not None
    return made


S, F, T = Outcome.SOLVED, Outcome.STALLED, Outcome.OUT_OF_BUDGET


@pytest.mark.parametrize(
    ("attempts", "size"),
    [
        ([], None),
        ([(8, S), (16, S)], None),
        ([(8, S), (16, F), (16, F), (12, S), (14, F), (14, F)], 14),
        ([(8, S), (16, F), (16, S), (32, T)], None),
        # A start that can go on may yet be solved.
        ([(8, S), (16, F), (16, T)], None),
        # The 16 ended unsolved; the time ran out at a smaller size that may yet be solved.
        ([(8, S), (16, F), (16, F), (12, T)], 16),
        ([(8, T)], None),
        ([(8, F)], 8),
    ],
)
def test_the_control_is_at_the_size_that_failed(attempts, size):
    assert control_size(result_of(*(ended(*each) for each in attempts))) == size


@pytest.mark.parametrize(
    ("attempts", "kept"),
    [
        ([], False),
        ([(8, S), (16, S)], False),
        ([(8, S), (16, F)], False),
        ([(8, S), (16, F), (16, S)], False),
        ([(8, S), (16, F), (16, T)], False),
        ([(8, S), (16, F), (16, F)], True),
        ([(8, S), (16, F), (16, F), (12, F), (12, S)], True),
        ([(16, F), (16, F), (16, S)], False),
    ],
)
def test_a_search_keeps_time_for_its_control_once_there_is_something_to_control(attempts, kept):
    began = time.monotonic()
    budget = Budget(seconds=1_000.0, began=began)
    for control in (True, False):
        searching = SearchBudget(budget, control=control, starts=2)
        for each in attempts:
            searching.note(ended(*each))
        for seconds, over in ((800, False), (900, control and kept), (1_001, True)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(time, "monotonic", lambda now=began + seconds: now)
                assert searching.should_stop() is (Outcome.OUT_OF_BUDGET if over else None)


def test_the_planted_prompt_answers_every_planted_pair_by_the_lead(model, task):
    made = planted(model, task)
    keys = [pair.key_ids for pair in task.pairs]
    real = {pair.key_ids: len(pair.value_ids) for pair in task.pairs}
    places = [keys.index(pair.key_ids) for pair in made.pairs]
    assert len(made.pairs) == 12
    assert places == sorted(places)
    assert all(len(pair.value_ids) == real[pair.key_ids] for pair in made.pairs)
    # The same draws again, by hand: one of the candidates answers them all.
    generator = torch.Generator().manual_seed(2**31)
    candidates = [torch.randn(2, model.card.dim, generator=generator) for _ in range(3)]
    held = [
        len(
            evaluate(
                model,
                4.0 * each / each.norm(dim=1, keepdim=True),
                made.pairs,
                relative_lead=TRAINING.relative_lead,
            ).held
        )
        for each in candidates
    ]
    assert max(held) == 12


def test_near_ties_are_passed_over_for_the_next_key(model, task):
    def keys(lead):
        config = TrainingConfig(prompt_tokens=2, relative_lead=lead)
        made = plant(model, task.pairs, config, size=12, token_norm=4.0, should_stop=never)
        ids = [pair.key_ids for pair in task.pairs]
        return [ids.index(pair.key_ids) for pair in made.pairs]

    sure = keys(1e-9)
    assert sure == list(range(12))
    demanding = keys(0.05)
    assert 0 < len(demanding) <= 12
    assert demanding != sure
    assert max(demanding) > 11
    assert keys(1.9) == []


def test_the_plant_is_the_same_each_time_and_another_for_another_seed(model, task):
    first = planted(model, task)
    assert planted(model, task) == first
    other = TrainingConfig(prompt_tokens=2, seed=1)
    made = plant(model, task.pairs, other, size=12, token_norm=4.0, should_stop=never)
    assert made.pairs != first.pairs


def test_the_planted_answers_differ_from_those_without_a_prompt(model, task):
    made = planted(model, task)
    nothing = torch.zeros(0, model.card.dim)
    assert made.unprompted == len(evaluate(model, nothing, made.pairs).held)
    assert made.unprompted < 12


@pytest.mark.parametrize("questions", [0, 1, 3, 5])
def test_a_plant_that_is_cut_off_is_none(model, task, questions):
    stop = after(questions)
    made = plant(model, task.pairs, TRAINING, size=12, token_norm=4.0, should_stop=stop)
    assert made is None


def test_the_control_recovers_a_small_plant_and_says_no_more_than_that(place, task):
    search = result_of(ended(3, F, held=1))
    control = run_control(place, task.targets, TRAINING, search, should_stop=never)
    assert (control.size, control.recovered, control.outcome) == (3, 3, S)
    assert control.steps >= 1
    assert 1 <= control.distinct_answers <= 3
    assert control.list_distinct_answers == 3
    # The norm of the prompt that the search found.
    assert control.token_norm == pytest.approx(2.0)
    assert "where one is known to exist" in control.conclusion
    assert "limit" not in control.conclusion


def test_a_control_that_is_cut_off_goes_on_and_ends_as_if_it_never_was(open_place, task, tmp_path):
    search = result_of(ended(12, F))
    seen = []
    for stop in (after(0), after(20), after(24)):
        control = run_control(open_place(), task.targets, TRAINING, search, should_stop=stop)
        assert control.conclusion.startswith("not finished: ")
        seen.append((control.steps, control.outcome))
    assert seen[0] == (0, T)
    assert 0 < seen[1][0] < seen[2][0]
    resumed = run_control(open_place(), task.targets, TRAINING, search, should_stop=never)
    with Store.open(tmp_path / "other.sqlite") as store:
        other = runs(open_place().model, store)
        whole = run_control(other, task.targets, TRAINING, search, should_stop=never)
    assert resumed.model_copy(update={"seconds": whole.seconds}) == whole


def test_the_control_of_a_text_is_as_long_as_the_beginning_that_failed(place, model):
    spec = TextSpec(text="the dog and the cat: one two three of the big red house", file="t.txt")
    text = text_task(spec, model.codec).targets
    search = result_of(replace(ended(3, F, held=2), units="tokens"))
    control = run_control(place, text, TRAINING, search, should_stop=never)
    assert isinstance(control, Control), "this plant is expected to have no near tie"
    assert (control.tokens, control.pairs) == (3, None)
    assert control.recovered <= 3
    assert (control.outcome == S) == (control.recovered == 3)
    assert 1 <= control.distinct_answers <= 3
    assert control.list_distinct_answers == len(set(text.member(2).value_ids))
    assert "pairs" not in control.to_json()


@pytest.mark.parametrize("outcome", list(Outcome))
def test_each_ending_has_its_conclusion(outcome):
    said = conclusion_of(outcome, recovered=9 if outcome is S else 7, size=9, steps=5)
    blames = "may be the optimiser's limit" in said
    assert blames == (outcome.final and outcome is not S)
    assert ("not finished: 7 of 9 after 5 steps" in said) == (not outcome.final)


@pytest.mark.parametrize(
    ("attempts", "reason"),
    [
        ([(24, S, 24)], None),
        *(
            (attempts, BUDGET_USED_UP)
            for attempts in (
                [],
                [(8, T)],
                [(8, S), (16, F), (16, T)],
                [(24, F), (24, T)],
                [(8, S)],
            )
        ),
    ],
)
def test_nothing_to_explain_or_no_time_for_it_means_no_control(place, task, attempts, reason):
    search = result_of(*(ended(*each) for each in attempts))
    none = run_control(place, task.targets, TRAINING, search, should_stop=never)
    assert place.store.runs() == []
    assert none is reason
    if none is BUDGET_USED_UP:
        assert (none.status, none.reason) == ("not run", "budget used up")
        assert "it limits the floor" in none.conclusion


def test_a_plant_that_answers_nothing_is_no_control(place, task):
    config = TrainingConfig(prompt_tokens=2, relative_lead=1.9)
    search = result_of(ended(8, F))
    none = run_control(place, task.targets, config, search, should_stop=never)
    assert none is NOTHING_PLANTED
    assert "answers no key" in none.conclusion
    assert "limited by time" not in none.conclusion


def test_entropy_of_shares():
    assert entropy_bits([5]) == 0.0
    assert math.copysign(1, entropy_bits([5])) == 1.0
    assert entropy_bits([1, 1, 1, 1]) == pytest.approx(2.0)
    assert entropy_bits([2, 1, 1]) == pytest.approx(1.5)


def test_the_candidate_whose_answers_begin_most_diversely_is_planted(model, task, monkeypatch):
    drawn = []
    draw = planting._random_prompt

    def kept(*given):
        # Long ones: behind a very long token this model says the same to every key.
        scale = 1.0 if len(drawn) == 1 else 1e4
        drawn.append(scale * draw(*given))
        return drawn[-1]

    monkeypatch.setattr(planting, "_random_prompt", kept)
    made = planted(model, task)
    heads = [pair.key_ids for pair in task.pairs[:12]]
    begun = [
        set(planting._next_tokens(model, prompt, PromptKind.SOFT, heads)[0]) for prompt in drawn
    ]
    distinct = [len(tokens) for tokens in begun]
    assert len(distinct) == 3
    assert max(distinct) > min(distinct)
    best = drawn[distinct.index(max(distinct))]
    held = evaluate(model, best, made.pairs, relative_lead=TRAINING.relative_lead).held
    assert len(held) == 12


def test_a_planted_prefix_answers_every_planted_pair(model, task, monkeypatch):
    drawn = []
    draw = planting._random_prompt

    def kept(*given):
        drawn.append(draw(*given))
        return drawn[-1]

    monkeypatch.setattr(planting, "_random_prompt", kept)
    kind = PromptKind.PREFIX
    made = plant(
        model, task.pairs, TRAINING, size=12, token_norm=None, should_stop=never, kind=kind
    )
    assert len(made.pairs) == 12
    assert all(prefix.shape == (2, model.prompt_width(kind)) for prefix in drawn)
    held = [
        len(
            evaluate(
                model, prefix, made.pairs, relative_lead=TRAINING.relative_lead, kind=kind
            ).held
        )
        for prefix in drawn
    ]
    assert max(held) == 12
    for prefix in drawn:
        assert prefix.norm(dim=1).tolist() == pytest.approx([made.token_norm] * 2)


def test_a_planted_prefix_has_each_layer_at_its_own_size(model):
    """Keys and values of one layer can be many times as large as those of another."""
    generator = torch.Generator().manual_seed(0)
    shape = model.prefix_shape
    drawn = planting._as_cached(model, torch.ones(1, shape.width), generator)
    sizes = drawn.view(2 * shape.layers, shape.token_dim)
    assert torch.equal(sizes, sizes[:, :1].expand_as(sizes))
    tokens = torch.tensor([model.codec.plain_token_ids()[:8]])
    cached = model.prefix_from_tokens(tokens)[0].view(8, 2 * shape.layers, shape.token_dim)
    usual = cached.square().mean(dim=(0, 2)).sqrt()
    assert ((sizes[:, 0] / usual) > 0.3).all()
    assert ((sizes[:, 0] / usual) < 3.0).all()
