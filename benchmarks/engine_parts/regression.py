"""Regression on the papers' transformer: batched Levenberg-Marquardt against Adam.

d = 16, 2 layers, m_p = 8, k = 8 pairs, m = 1 token each, targets drawn from a standard normal.
A case reads 1 coordinate of each pair's last token (8 equations for 128 unknowns), or 8 of them
(64 equations). Solved means that the largest Euclidean norm of a pair's residuals is at most
1e-6 in float64. Levenberg-Marquardt keeps prompts in float64 and computes its Jacobian, and the
residuals while they are large, in float32; Adam runs in float64. All begin at the same starts.

Adam runs twice: `batched_adam` with many problems in one pass of the same fast forward, and
`adam_loop` with one problem after the other, as plain code does it. The first says what the method
gains, the second what method and batch gain together.

Seconds are of processor time in this process, which a busy machine changes less than wall time.
Adam is run on a sample of the problems, half of it (of the batch's steps) before
Levenberg-Marquardt and half after, and multiplied up; "estimated_from" says from how many. A
problem in a batch of 4 takes two to three times as long as in one of 32, and from there on as long
as in one of 256.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from promptlimits.lab.regression.levenberg_marquardt import LevenbergMarquardt, Solutions
from promptlimits.lab.regression.regression import (
    RegressionProblems,
    RegressionSystem,
    all_reads,
    planted_control,
    solve_regression,
)
from promptlimits.nets.paper.transformer import PaperTransformer, from_weights
from promptlimits.nets.paper.weights import random_weights

DIM, LAYERS, PROMPT_TOKENS, PAIRS, TOKENS = 16, 2, 8, 8, 1
TOLERANCE: Final = 1e-6
STEPS: Final = 1000
LEARNING_RATE: Final = 0.1
STARTS: Final = 6


def run(quick: bool) -> dict[str, object]:
    """Both cases.

    Args:
        quick: 64 problems, 32 of them by batched Adam and 1 by its loop, instead of 256, 64 and 8.

    Returns:
        Shares solved, seconds of processor time, ratios and the planted control, as JSON values.
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
        "clock": "process time",
        "threads": torch.get_num_threads(),
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
    sample = range(1) if quick else range(8)
    runs = [_adam(network, problems, starts[0, b], b) for b in sample[: len(sample) // 2]]
    batch = _BatchedAdam(network, problems, starts[0], 32 if quick else 64)
    batch.go_on(STEPS // 2)
    found, seconds = _levenberg_marquardt(network, problems, starts, repeats=3)
    runs += [_adam(network, problems, starts[0, b], b) for b in sample[len(sample) // 2 :]]
    batch.go_on(STEPS - STEPS // 2)
    loop, together = _loop(runs, count), batch.found()
    control = planted_control(
        network,
        problems.queries,
        draw(count, DIM, PROMPT_TOKENS),
        starts,
        reads=problems.reads,
        settings=LevenbergMarquardt(tolerance=TOLERANCE),
        jacobian_dtype=torch.float32,
    )
    return {
        "reads_per_pair": reads,
        "equations": PAIRS * reads,
        "unknowns": DIM * PROMPT_TOKENS,
        "levenberg_marquardt": {
            "solved_share": found.share_solved,
            "seconds": seconds,
            "steps": int(found.steps.sum()),
            "median_steps": float(found.steps.double().median()),
            "solved_from_first_start": float((found.starts_used == 1).double().mean()),
            "largest_error": float(found.errors.max()),
        },
        "adam_loop": {"estimated_from": f"{len(runs)} of {count}", **loop},
        "batched_adam": together,
        "ratio_to_batched_adam": together["seconds"] / seconds,
        "ratio_to_batched_adam_that_stops_when_solved": together["seconds_to_solved"] / seconds,
        "ratio_to_adam_loop": loop["seconds"] / seconds,
        "ratio_to_adam_loop_that_stops_when_solved": loop["seconds_to_solved"] / seconds,
        "planted_control": control.to_json(),
    }


def _levenberg_marquardt(
    network: PaperTransformer, problems: RegressionProblems, starts: Tensor, *, repeats: int
) -> tuple[Solutions, float]:
    settings, seconds = LevenbergMarquardt(tolerance=TOLERANCE), []
    for _ in range(repeats):
        began = time.process_time()
        found = solve_regression(
            network, problems, starts, settings=settings, jacobian_dtype=torch.float32
        )
        seconds.append(time.process_time() - began)
    return found, statistics.median(seconds)


@dataclass(frozen=True, kw_only=True)
class _AdamRun:
    """One problem by Adam; `seconds_to_solved` is all of them where it was not solved."""

    seconds: float
    seconds_to_solved: float
    error: float


def _adam(
    network: PaperTransformer, problems: RegressionProblems, start: Tensor, b: int
) -> _AdamRun:
    """One problem alone, with the model's own forward and torch's Adam."""
    coordinates = [row for row, _ in problems.reads]
    prompt = start.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([prompt], lr=LEARNING_RATE)
    began, solved_after, least = time.process_time(), None, float("inf")
    for _ in range(STEPS):
        outputs = network.with_prompt(prompt, problems.queries[b])
        residuals = outputs[:, coordinates, 0] - problems.targets[b]
        least = min(least, float(residuals.detach().norm(dim=-1).max()))
        if least <= TOLERANCE and solved_after is None:
            solved_after = time.process_time() - began
        optimiser.zero_grad()
        residuals.square().sum().backward()
        optimiser.step()
    seconds = time.process_time() - began
    to_solved = seconds if solved_after is None else solved_after
    return _AdamRun(seconds=seconds, seconds_to_solved=to_solved, error=least)


def _loop(runs: list[_AdamRun], count: int) -> dict[str, float]:
    """What a loop over all problems takes, from the runs of a sample."""
    return {
        "seconds": statistics.fmean(run.seconds for run in runs) * count,
        "seconds_to_solved": statistics.fmean(run.seconds_to_solved for run in runs) * count,
        "solved_share": statistics.fmean(run.error <= TOLERANCE for run in runs),
        "median_error": statistics.median(run.error for run in runs),
    }


class _BatchedAdam:
    """The first problems in one batch, with the fast forward; all of it stops together."""

    def __init__(
        self, network: PaperTransformer, problems: RegressionProblems, start: Tensor, sample: int
    ) -> None:
        few = RegressionProblems(
            queries=problems.queries[:sample],
            targets=problems.targets[:sample],
            reads=problems.reads,
        )
        self._system = RegressionSystem(network, few, PROMPT_TOKENS)
        self._prompts = start[:sample].flatten(1).clone().requires_grad_(True)
        self._optimiser = torch.optim.Adam([self._prompts], lr=LEARNING_RATE)
        self._least = torch.full((sample,), torch.inf, dtype=torch.float64)
        self._seconds, self._to_solved = 0.0, float("inf")
        self._share = problems.count / sample
        self._of = f"{sample} of {problems.count}"

    def go_on(self, steps: int) -> None:
        """Do so many steps more."""
        index = torch.arange(len(self._least))
        began = time.process_time() - self._seconds
        for _ in range(steps):
            residuals = self._system.residuals_with_graph(self._prompts, index)
            errors = self._system.errors(residuals.detach())
            self._least = torch.minimum(self._least, errors)
            if float(self._least.max()) <= TOLERANCE:
                self._to_solved = min(self._to_solved, time.process_time() - began)
            self._optimiser.zero_grad()
            residuals.square().sum().backward()
            self._optimiser.step()
        self._seconds = time.process_time() - began

    def found(self) -> dict[str, Any]:
        """Seconds for all problems, in batches of this size, and how good the prompts were."""
        return {
            "estimated_from": self._of,
            "seconds": self._seconds * self._share,
            "seconds_to_solved": min(self._to_solved, self._seconds) * self._share,
            "solved_share": float((self._least <= TOLERANCE).double().mean()),
            "median_error": float(self._least.median()),
        }
