"""Training ends for the right reason, resumes where it was, and keeps what it scored."""

from dataclasses import asdict, replace

import pytest
import torch
from tests.capacity.train.problems import PAIRS, problem

from promptlimits.capacity.train import evaluate as evaluation
from promptlimits.capacity.train.batch import Batch
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.engine import train, train_many
from promptlimits.capacity.train.evaluate import evaluate
from promptlimits.capacity.train.memory import MemoryBudget
from promptlimits.capacity.train.problem import PREFIX_RATE, Outcome
from promptlimits.capacity.train.state import (
    PackedState,
    TrainingState,
    from_vocabulary,
)
from promptlimits.nets.protocol import PromptKind, pack

CONFIG = TrainingConfig(prompt_tokens=4, learning_rate=0.3, max_steps=80, patience=80)


def run(model, pairs, config, *, state=None, **told):
    one = problem(model, pairs=pairs, dtype=torch.float32, **asdict(config))
    return train(model, one.pairs, config, state=state or one.state, **told)


def test_a_small_problem_is_solved_and_its_prompt_really_answers(tiny, pairs):
    fit = run(tiny, pairs, CONFIG)
    assert fit.outcome is Outcome.SOLVED
    assert fit.held == (0, 1, 2)
    assert 1 < fit.steps < CONFIG.max_steps
    assert evaluate(tiny, fit.prompt, pairs, relative_lead=CONFIG.relative_lead).held == fit.held


def test_the_best_prompt_is_the_one_whose_score_is_reported(tiny, pairs):
    # Not the prompt one update later, a known flaw of earlier code.
    for steps in (3, 7, 11):
        fit = run(tiny, pairs, replace(CONFIG, max_steps=steps))
        assert evaluate(tiny, fit.prompt, pairs, relative_lead=1e-3).held == fit.held
        held = evaluate(tiny, fit.state.best_prompt, pairs, relative_lead=1e-3).held
        assert tuple(fit.state.best_exact.nonzero().flatten().tolist()) == held


@pytest.mark.parametrize("cut", [1, 5])
def test_a_run_cut_off_and_resumed_from_bytes_equals_one_that_was_not(cut, tiny, pairs):
    config = replace(CONFIG, max_steps=9)
    whole = run(tiny, pairs, config)
    saved = []

    def stop():
        return Outcome.OUT_OF_BUDGET if len(saved) >= cut else None

    part = run(
        tiny,
        pairs,
        config,
        should_stop=stop,
        on_step=lambda _, state: saved.append(state().to_bytes()),
    )
    assert part.outcome is Outcome.OUT_OF_BUDGET
    assert part.steps == cut
    resumed = TrainingState.from_bytes(saved[-1], device=tiny.device)
    rest = run(tiny, pairs, config, state=resumed)
    assert rest.outcome is whole.outcome
    assert rest.steps == whole.steps
    assert rest.state.to_bytes() == whole.state.to_bytes()


def test_endings(tiny, pairs):
    hopeless = [replace(pairs[0], value_ids=(9, 0)), replace(pairs[0], value_ids=(10, 0))]
    assert run(tiny, hopeless, replace(CONFIG, max_steps=5)).outcome is Outcome.OUT_OF_STEPS
    stalled = run(tiny, hopeless, replace(CONFIG, patience=4))
    assert stalled.outcome is Outcome.STALLED
    assert len(stalled.held) <= 1
    broken = problem(tiny, dtype=torch.float32).state
    broken.prompt[0, 0] = float("nan")
    assert run(tiny, pairs, CONFIG, state=broken).outcome is Outcome.DIVERGED
    never = run(tiny, pairs, CONFIG, should_stop=lambda: Outcome.INTERRUPTED)
    assert (never.outcome, never.steps, never.held) == (Outcome.INTERRUPTED, 0, ())


def test_patience_counts_from_the_step_that_was_better(tiny, pairs):
    hopeless = [replace(pairs[0], value_ids=(9, 0)), replace(pairs[0], value_ids=(10, 0))]
    reports = []
    fit = run(
        tiny,
        hopeless,
        replace(CONFIG, patience=40, max_steps=300),
        on_step=lambda report, _: reports.append(report),
    )
    assert fit.outcome is Outcome.STALLED
    # One of two answers to one key can be held, and that takes a few steps.
    first = next(one.step for one in reports if one.best_exact == 1)
    assert first > 1
    assert fit.steps == first + 40


def test_patience_sees_progress_in_tokens_where_pairs_show_none(tiny, pairs):
    text = [replace(pairs[0], value_ids=(9, 14, 3, 11, 7, 22, 5, 18, 30, 2, 13, 8))]
    reports = []
    fit = run(
        tiny,
        text,
        replace(CONFIG, prompt_tokens=8, learning_rate=1.0, patience=30, max_steps=400),
        on_step=lambda report, _: reports.append(report),
    )
    right = [report.tokens_right for report in reports]
    gains = [step for step in range(1, len(right)) if right[step] > max(right[:step])]
    # No pair in all that time, but more and more tokens.
    assert fit.outcome is Outcome.STALLED
    assert len(gains) > 2
    assert fit.held == ()
    # Steps count from 1.
    assert fit.steps == gains[-1] + 1 + 30 > 60


def test_many_chunks_say_what_one_says(tiny, pairs, monkeypatch):
    prompt = from_vocabulary(
        tiny, count=1, prompt_tokens=2, generator=torch.Generator().manual_seed(0)
    )[0]
    several = pairs * 3
    done = []
    whole = evaluate(tiny, prompt, several, on_chunk=done.append)
    assert done == [9]
    monkeypatch.setattr(evaluation, "_LOGIT_BYTES", 4 * tiny.card.vocabulary * 5)
    parts = evaluate(tiny, prompt, several, on_chunk=done.append)
    assert done[1:] == [2, 4, 6, 8, 9]
    assert parts.right == whole.right
    assert parts.loss_nats == pytest.approx(whole.loss_nats, rel=1e-9)


def test_each_step_is_reported_once_with_the_best_so_far(tiny, pairs):
    reports = []
    fit = run(tiny, pairs, CONFIG, on_step=lambda report, _: reports.append(report))
    assert [report.step for report in reports] == list(range(1, fit.steps + 1))
    best = [report.best_exact for report in reports]
    assert best == sorted(best)
    assert best[-1] == 3
    assert all(report.exact <= report.best_exact <= report.pairs == 3 for report in reports)


def test_a_warm_start_keeps_the_shorter_prompt_next_to_the_key():
    fresh, short = torch.zeros(3, 4), TrainingState.start(torch.ones(2, 4), 5)
    moments = {"first_moment": torch.full((2, 4), 2.0), "second_moment": torch.full((2, 4), 3.0)}
    warm = replace(short, step=7, best_step=3, moment_steps=9, **moments).for_pairs(6, start=fresh)
    assert (warm.step, warm.best_step, warm.moment_steps, len(warm.best_exact)) == (0, 0, 9, 6)
    for rows, one in ((warm.prompt, 4), (warm.first_moment, 8), (warm.second_moment, 12)):
        assert rows.sum(dim=1).tolist() == [0, one, one]
    assert fresh.eq(0).all()


def test_starts_are_embeddings_of_ordinary_tokens_and_follow_the_seed(tiny):
    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return from_vocabulary(tiny, count=3, prompt_tokens=2, generator=generator)

    table = tiny.embed(torch.tensor(tiny.codec.plain_token_ids())).float()
    drawn = draw(0)
    assert drawn.shape == (3, 2, tiny.card.dim)
    assert all(bool((table == row).all(dim=1).any()) for row in drawn.flatten(0, 1))
    assert torch.equal(drawn, draw(0))
    assert not torch.equal(drawn, draw(1))


def prefix_problem(model):
    start = from_vocabulary(
        model,
        count=1,
        prompt_tokens=4,
        generator=torch.Generator().manual_seed(0),
        kind=PromptKind.PREFIX,
    )[0]
    soft = problem(model, max_steps=1, clip_norm=1e3)
    state = TrainingState.start(start.double(), len(PAIRS))
    return replace(soft, kind=PromptKind.PREFIX, pairs=pack(PAIRS), state=state)


def test_a_prefix_takes_smaller_steps_the_more_layers_it_acts_in(tiny):
    soft, prefix = problem(tiny), prefix_problem(tiny)
    for step in (0, 50, 1000):
        whole = soft.learning_rate_at(step, layers=7)
        assert whole == soft.config.learning_rate_at(step)
        assert prefix.learning_rate_at(step, layers=1) == pytest.approx(PREFIX_RATE * whole)
        assert prefix.learning_rate_at(step, layers=12) == pytest.approx(PREFIX_RATE * whole / 12)


def test_the_engine_moves_a_prefix_by_its_own_rate(tiny):
    one, states = prefix_problem(tiny), []
    list(train_many(tiny, [one], on_step=lambda _key, _report, state: states.append(state())))
    # Adam's first step moves every number that has a gradient by the learning rate.
    moved = (states[0].prompt - one.state.prompt).abs().max()
    rate = one.learning_rate_at(0, layers=tiny.card.layers)
    assert float(moved) == pytest.approx(rate, rel=1e-3)


FIRST = 0.25
ROOMY = MemoryBudget(total_bytes=2**30)


def fixed(model, key, factor):
    """Problem number `key`, of as many prompt tokens, with a sharpening that never changes."""
    return problem(model, key, prompt_tokens=key + 1, sharpening=factor, first_sharpening_share=1.0)


def growing(model, key, factor):
    """The same with one that grows."""
    return problem(
        model, key, prompt_tokens=key + 1, sharpening=factor, first_sharpening_share=FIRST
    )


def test_each_problem_is_sharpened_by_its_own_progress(tiny):
    right = (0.0, 0.5, 1.0)
    shares = [FIRST + (1 - FIRST) * one for one in right]
    ours = [growing(tiny, key, 8.0) for key in range(3)]
    told = [fixed(tiny, key, 8.0 * share) for key, share in enumerate(shares)]
    prompts = PackedState.of([one.state for one in ours]).prompt
    scores, gradient = Batch(tiny, ours, ROOMY).run(prompts, torch.tensor(right))
    expected, told_gradient = Batch(tiny, told, ROOMY).run(prompts, torch.zeros(3))
    torch.testing.assert_close(gradient, told_gradient, rtol=1e-10, atol=1e-12)
    # Losses are over the share, so that those of one problem's steps compare.
    loss = expected.loss_nats / torch.tensor(shares, dtype=torch.float64)
    torch.testing.assert_close(scores.loss_nats, loss, rtol=1e-10, atol=0)
    assert torch.equal(scores.tokens_right, expected.tokens_right)


@pytest.mark.parametrize("right", [0.0, 0.5])
def test_a_step_takes_the_progress_from_the_state(right, tiny):
    def after_one(one):
        config = replace(one.config, max_steps=1)
        state = replace(one.state, most_right=torch.tensor(right))
        (fit,) = train_many(tiny, [replace(one, config=config, state=state)])
        return fit.state.first_moment

    share = FIRST + (1 - FIRST) * right
    expected = after_one(fixed(tiny, 1, 4.0 * share))
    torch.testing.assert_close(after_one(growing(tiny, 1, 4.0)), expected, rtol=1e-10, atol=1e-12)


def test_a_run_that_was_cut_off_goes_on_at_its_sharpening(tiny):
    states = []

    def note(_key, _report, state):
        states.append(state())

    one = problem(tiny, pairs=PAIRS, max_steps=12, first_sharpening_share=FIRST)
    (whole,) = train_many(tiny, [one], on_step=note)
    begun = next(at for at, state in enumerate(states) if state.most_right > 0)
    stored = TrainingState.from_bytes(states[begun].to_bytes(), device=tiny.device)
    (resumed,) = train_many(tiny, [replace(one, state=stored)])
    assert torch.equal(resumed.prompt, whole.prompt)
    assert resumed.steps == whole.steps > begun + 1
