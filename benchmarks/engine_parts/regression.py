"""Regression on the papers' transformer: batched Levenberg-Marquardt against loops of Adam.

d = 16, 2 layers, m_p = 8, k = 8 pairs, m = 1 token each, targets drawn from a standard normal.
A case reads 1 coordinate of each pair's last token (8 equations for 128 unknowns), or 8 of them
(64 equations). Solved means that the largest Euclidean norm of a pair's residuals is at most
1e-6 in float64. Levenberg-Marquardt keeps residuals and prompts in float64 and computes its
Jacobian in float32; Adam runs in float64.
"""

from __future__ import annotations

import statistics
import time
from typing import Final

import numpy as np
import torch
from torch import Tensor

from promptlimits.lipschitz.weights import random_weights
from promptlimits.models.transformer import PaperTransformer, from_weights
from promptlimits.tuning.levenberg_marquardt import LevenbergMarquardt, Solutions
from promptlimits.tuning.regression import (
    RegressionProblems,
    RegressionSystem,
    all_reads,
    solve_regression,
)
from promptlimits.tuning.regression_control import planted_control

DIM, LAYERS, PROMPT_TOKENS, PAIRS, TOKENS = 16, 2, 8, 8, 1
TOLERANCE: Final = 1e-6
STEPS: Final = 1000
LEARNING_RATE: Final = 0.1
STARTS: Final = 6


def run(quick: bool) -> dict[str, object]:
    """Both cases.

    Args:
        quick: 64 problems and small samples of the loops, instead of 256.

    Returns:
        Shares solved, seconds, ratios and the planted control, as JSON values.
    """
    count = 64 if quick else 256
    return {
        "problems": count,
        "dim": DIM,
        "layers": LAYERS,
        "prompt_tokens": PROMPT_TOKENS,
        "pairs": PAIRS,
        "tokens": TOKENS,
        "tolerance": TOLERANCE,
        "adam_steps": STEPS,
        "adam_learning_rate": LEARNING_RATE,
        "cases": [_case(count, reads, quick) for reads in (1, 8)],
    }


def model() -> PaperTransformer:
    """Four heads of width 4, MLP of width 64, no normalisation, in float64."""
    weights = random_weights(
        dim=DIM,
        heads=4,
        head_dim=4,
        hidden=64,
        layers=LAYERS,
        generator=np.random.default_rng(0),
        masked=False,
    )
    return from_weights(weights)


def _case(count: int, reads: int, quick: bool) -> dict[str, object]:
    network, generator = model(), torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    problems = RegressionProblems(
        queries=draw(count, PAIRS, DIM, TOKENS),
        targets=draw(count, PAIRS, reads),
        reads=all_reads(DIM, TOKENS)[:reads],
    )
    starts = draw(STARTS, count, DIM, PROMPT_TOKENS)
    found, seconds = _levenberg_marquardt(network, problems, starts, repeats=1 if reads > 1 else 3)
    control = planted_control(
        network,
        problems.queries,
        draw(count, DIM, PROMPT_TOKENS),
        starts,
        reads=problems.reads,
        settings=LevenbergMarquardt(tolerance=TOLERANCE),
        jacobian_dtype=torch.float32,
    )
    loop = _adam_loop(network, problems, starts[0], sample=2 if quick else 16)
    together = _batched_adam(network, problems, starts[0], sample=16 if quick else 64)
    return {
        "reads_per_pair": reads,
        "equations": PAIRS * reads,
        "unknowns": DIM * PROMPT_TOKENS,
        "levenberg_marquardt": {
            "solved_share": found.share_solved,
            "seconds": seconds,
            "median_steps": float(found.steps.double().median()),
            "solved_from_first_start": float((found.starts_used == 1).double().mean()),
            "largest_error": float(found.errors.max()),
        },
        "adam_loop": loop,
        "batched_adam": together,
        "ratio_to_adam_loop": float(str(loop["seconds"])) / seconds,
        "ratio_to_adam_loop_that_stops_when_solved": float(str(loop["seconds_to_solved"]))
        / seconds,
        "planted_control": control.to_json(),
    }


def _levenberg_marquardt(
    network: PaperTransformer, problems: RegressionProblems, starts: Tensor, *, repeats: int
) -> tuple[Solutions, float]:
    settings, seconds = LevenbergMarquardt(tolerance=TOLERANCE), []
    for _ in range(repeats):
        began = time.perf_counter()
        found = solve_regression(
            network, problems, starts, settings=settings, jacobian_dtype=torch.float32
        )
        seconds.append(time.perf_counter() - began)
    return found, statistics.median(seconds)


def _adam_loop(
    network: PaperTransformer, problems: RegressionProblems, start: Tensor, *, sample: int
) -> dict[str, object]:
    """One problem at a time, with the model's own forward and torch's Adam."""
    coordinates = [row for row, _ in problems.reads]
    spent, until_solved, errors = 0.0, 0.0, []
    for b in range(sample):
        prompt = start[b].clone().requires_grad_(True)
        optimiser = torch.optim.Adam([prompt], lr=LEARNING_RATE)
        began, solved_after, least = time.perf_counter(), None, float("inf")
        for _ in range(STEPS):
            outputs = network.with_prompt(prompt, problems.queries[b])
            residuals = outputs[:, coordinates, 0] - problems.targets[b]
            least = min(least, float(residuals.detach().norm(dim=-1).max()))
            if least <= TOLERANCE and solved_after is None:
                solved_after = time.perf_counter() - began
            optimiser.zero_grad()
            residuals.square().sum().backward()
            optimiser.step()
        seconds = time.perf_counter() - began
        spent += seconds
        until_solved += seconds if solved_after is None else solved_after
        errors.append(least)
    scale = problems.count / sample
    return {
        "estimated_from": f"{sample} of {problems.count}",
        "seconds": spent * scale,
        "seconds_to_solved": until_solved * scale,
        "solved_share": sum(error <= TOLERANCE for error in errors) / sample,
        "median_error": statistics.median(errors),
    }


def _batched_adam(
    network: PaperTransformer, problems: RegressionProblems, start: Tensor, *, sample: int
) -> dict[str, object]:
    """All problems of the sample in one batch, with the fast forward."""
    few = RegressionProblems(
        queries=problems.queries[:sample], targets=problems.targets[:sample], reads=problems.reads
    )
    system = RegressionSystem(network, few, PROMPT_TOKENS)
    prompts = start[:sample].flatten(1).clone().requires_grad_(True)
    optimiser, index = torch.optim.Adam([prompts], lr=LEARNING_RATE), torch.arange(sample)
    least = torch.full((sample,), torch.inf, dtype=torch.float64)
    began = time.perf_counter()
    for _ in range(STEPS):
        residuals = system.residuals_with_graph(prompts, index)
        least = torch.minimum(least, system.errors(residuals.detach()))
        optimiser.zero_grad()
        residuals.square().sum().backward()
        optimiser.step()
    seconds = time.perf_counter() - began
    return {
        "estimated_from": f"{sample} of {problems.count}",
        "seconds": seconds * problems.count / sample,
        "solved_share": float((least <= TOLERANCE).double().mean()),
        "median_error": float(least.median()),
    }
