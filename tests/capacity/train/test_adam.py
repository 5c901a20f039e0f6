"""Adam equals torch's, problem by problem."""

import pytest
import torch

from promptlimits.capacity.train.adam import (
    BETA_1,
    BETA_2,
    EPSILON,
    Segments,
    StepSettings,
    adam_step,
    clip_each,
    step_numbers,
)

SIZES = (2, 1, 3)
SEGMENTS = Segments.of(SIZES, device=torch.device("cpu"))
RATES = (0.3, 0.01, 2.0)
CLIPS = (2.0, 1e6, 0.5)


def test_ragged_problems_step_as_torchs_adam_does_each():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    gradients = 5 * torch.randn(6, 6, 4, generator=generator, dtype=torch.float64)
    prompts, first, second = start, torch.zeros_like(start), torch.zeros_like(start)
    numbers = step_numbers(
        [
            [
                StepSettings(moment_steps=step, learning_rate=rate, clip_norm=clip)
                for rate, clip in zip(RATES, CLIPS, strict=True)
            ]
            for step in range(len(gradients))
        ],
        like=start,
    )
    for of_step, gradient in zip(numbers, gradients, strict=True):
        prompts, first, second = adam_step(
            prompts, gradient, first, second, segments=SEGMENTS, numbers=of_step
        )
    for problem, found in enumerate(SEGMENTS.split(prompts)):
        twin = SEGMENTS.split(start)[problem].clone().requires_grad_(True)
        optimiser = torch.optim.Adam([twin], lr=RATES[problem], betas=(BETA_1, BETA_2), eps=EPSILON)
        for gradient in gradients:
            twin.grad = SEGMENTS.split(gradient)[problem].clone()
            # Not torch's clip_grad_norm_, which adds 1e-6 to the norm it divides by.
            twin.grad *= min(1.0, CLIPS[problem] / float(twin.grad.norm()))
            optimiser.step()
        torch.testing.assert_close(found, twin.detach(), rtol=1e-12, atol=1e-12)


def test_each_problem_counts_its_own_steps():
    gradient, zero = torch.ones(6, 4, dtype=torch.float64), torch.zeros(6, 4, dtype=torch.float64)
    settings = [
        StepSettings(moment_steps=step, learning_rate=1.0, clip_norm=1e9) for step in (0, 1, 9)
    ]
    (numbers,) = step_numbers([settings], like=zero)
    moved, _, _ = adam_step(zero, gradient, zero, zero, segments=SEGMENTS, numbers=numbers)
    for part, step in zip(SEGMENTS.split(moved), (0, 1, 9), strict=True):
        mean = (1 - BETA_1) / (1 - BETA_1 ** (step + 1))
        spread = ((1 - BETA_2) / (1 - BETA_2 ** (step + 1))) ** 0.5
        expected = torch.full_like(part, -mean / (spread + EPSILON))
        torch.testing.assert_close(part, expected, rtol=1e-12, atol=0)


def test_clipping_is_by_each_problems_own_norm_and_keeps_a_broken_one_to_itself():
    gradient = torch.tensor([[10.0, 0.0], [0.0, 10.0], [0.1, 0.1], [torch.nan, 1.0]])
    segments = Segments.of((2, 1, 1), device=torch.device("cpu"))
    clipped = clip_each(gradient, segments, torch.tensor([1.0, 1.0, 1.0]))
    assert float(clipped[:2].norm()) == pytest.approx(1.0)
    torch.testing.assert_close(clipped[2], gradient[2])
    assert clipped[3].isnan().all()


def test_inputs_are_left_as_they_were():
    prompts, zero = torch.ones(1, 2), torch.zeros(1, 2)
    segments = Segments.of((1,), device=torch.device("cpu"))
    (numbers,) = step_numbers(
        [[StepSettings(moment_steps=0, learning_rate=1.0, clip_norm=1.0)]], like=prompts
    )
    adam_step(prompts, torch.ones(1, 2), zero, zero, segments=segments, numbers=numbers)
    assert prompts.eq(1).all()
    assert zero.eq(0).all()


def test_sums_by_segment():
    values = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    assert SEGMENTS.sum(values).tolist() == [3.0, 4.0, 56.0]
    assert SEGMENTS.mean(values).tolist() == [1.5, 4.0, pytest.approx(56 / 3)]
    assert SEGMENTS.spread(torch.tensor([1, 2, 3])).tolist() == [1, 1, 2, 3, 3, 3]


def test_the_constants_are_those_the_runs_of_the_store_were_made_with():
    # Another value makes other runs: raise ENGINE in capacity/search/attempt.py with it.
    assert (BETA_1, BETA_2, EPSILON) == (0.9, 0.99, 1e-8)
