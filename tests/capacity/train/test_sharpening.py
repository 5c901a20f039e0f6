"""The sharpening grows with the share of right tokens, from a share of it to all of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.capacity.train.problems import PAIRS, problem

from promptlimits.capacity.train.batch import Batch
from promptlimits.capacity.train.engine import train_many
from promptlimits.capacity.train.memory import Budget
from promptlimits.capacity.train.problem import Problem, StepReport
from promptlimits.capacity.train.state import PackedState, TrainingState
from promptlimits.nets.routes.causal import HuggingFaceCausalLM

FIRST = 0.25
ROOMY = Budget(total_bytes=2**30)


def fixed(model: HuggingFaceCausalLM, key: int, factor: float) -> Problem:
    """Problem number `key`, of as many prompt tokens, with a sharpening that never changes."""
    return problem(model, key, prompt_tokens=key + 1, sharpening=factor, first_sharpening_share=1.0)


def growing(model: HuggingFaceCausalLM, key: int, factor: float) -> Problem:
    """The same with one that grows."""
    return problem(
        model, key, prompt_tokens=key + 1, sharpening=factor, first_sharpening_share=FIRST
    )


def test_each_problem_is_sharpened_by_its_own_progress(tiny: HuggingFaceCausalLM) -> None:
    right = (0.0, 0.5, 1.0)
    shares = [FIRST + (1 - FIRST) * one for one in right]
    ours = [growing(tiny, key, 8.0) for key in range(3)]
    told = [fixed(tiny, key, 8.0 * share) for key, share in enumerate(shares)]
    prompts = PackedState.of([one.state for one in ours]).prompts
    scores, gradient = Batch(tiny, ours, ROOMY).run(prompts, torch.tensor(right))
    expected, told_gradient = Batch(tiny, told, ROOMY).run(prompts, torch.zeros(3))
    torch.testing.assert_close(gradient, told_gradient, rtol=1e-10, atol=1e-12)
    # Losses are over the share, so that those of one problem's steps compare.
    loss = expected.loss_nats / torch.tensor(shares, dtype=torch.float64)
    torch.testing.assert_close(scores.loss_nats, loss, rtol=1e-10, atol=0)
    assert torch.equal(scores.tokens_right, expected.tokens_right)


@pytest.mark.parametrize("right", [0.0, 0.5])
def test_a_step_takes_the_progress_from_the_state(right: float, tiny: HuggingFaceCausalLM) -> None:
    def after_one(one: Problem) -> torch.Tensor:
        config = replace(one.config, max_steps=1)
        state = replace(one.state, most_right=torch.tensor(right))
        (fit,) = train_many(tiny, [replace(one, config=config, state=state)])
        return fit.state.first_moment

    share = FIRST + (1 - FIRST) * right
    expected = after_one(fixed(tiny, 1, 4.0 * share))
    torch.testing.assert_close(after_one(growing(tiny, 1, 4.0)), expected, rtol=1e-10, atol=1e-12)


def test_a_run_that_was_cut_off_goes_on_at_its_sharpening(tiny: HuggingFaceCausalLM) -> None:
    states: list[TrainingState] = []

    def note(_key: object, _report: StepReport, state: TrainingState) -> None:
        states.append(state.clone())

    one = problem(tiny, pairs=PAIRS, max_steps=12, first_sharpening_share=FIRST)
    (whole,) = train_many(tiny, [one], on_step=note)
    begun = next(at for at, state in enumerate(states) if state.most_right > 0)
    stored = TrainingState.from_bytes(states[begun].to_bytes(), device=tiny.device)
    (resumed,) = train_many(tiny, [replace(one, state=stored)])
    assert torch.equal(resumed.prompt, whole.prompt)
    assert resumed.steps == whole.steps > begun + 1
