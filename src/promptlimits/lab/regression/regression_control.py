"""Planted control for regression: targets that some prompt is known to give.

Targets made by a known prompt have a solution, so what the solver misses there is a limit of the
solver (or of the starts and steps that it had), not of the model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from promptlimits.base.typing import JsonObject
from promptlimits.capacity.train.problem import Outcome
from promptlimits.lab.regression.levenberg_marquardt import LevenbergMarquardt
from promptlimits.lab.regression.regression import (
    RegressionProblems,
    require_matching,
    solve_regression,
)
from promptlimits.nets.paper.transformer import PaperTransformer

MEANING: Final = (
    "Share of problems solved whose targets were made by a known prompt, from starts that do not "
    "know it. Below 1, the solver misses prompts that exist. At 1, it found one for these planted "
    "targets; it says nothing about whether a prompt exists for other targets."
)


@dataclass(frozen=True, kw_only=True)
class PlantedControl:
    """What the solver does on targets that have a solution.

    Attributes:
        problems: Problems tried.
        solved: Problems solved.
        tolerance: Error up to which a problem is solved.
        starts: Starts allowed for each problem.
        residuals: Equations of one problem.
        unknowns: Numbers in one prompt.
        largest_error: Over all problems, of the best prompt found, in float64.
        dtype: What the solver worked in.
        meaning: What this shows, and what it does not.
    """

    problems: int
    solved: int
    tolerance: float
    starts: int
    residuals: int
    unknowns: int
    largest_error: float
    dtype: str
    meaning: str = MEANING

    @property
    def share_solved(self) -> float:
        """Share of the problems that were solved."""
        return self.solved / self.problems

    def to_json(self) -> JsonObject:
        """The report as JSON values."""
        return {**vars(self), "share_solved": self.share_solved}


def planted_targets(
    model: PaperTransformer,
    queries: Tensor,
    prompts: Tensor,
    reads: tuple[tuple[int, int], ...],
) -> RegressionProblems:
    """Problems that the given prompts solve.

    Args:
        model: The transformer; targets are computed in float64 from its weights.
        queries: (B, K, d, m).
        prompts: (B, d, m_p), one for each problem.
        reads: (coordinate, column) of each number read.

    Returns:
        The problems.

    Raises:
        UserError: Shapes do not fit.
    """
    blank = queries.new_zeros(*queries.shape[:2], len(reads), dtype=torch.float64)
    problems = RegressionProblems(queries=queries, targets=blank, reads=reads)
    require_matching(model, problems, prompts[None])
    exact = model.to(torch.float64)
    with torch.no_grad():
        copies = prompts.double()[:, None].expand(-1, queries.shape[1], -1, -1)
        outputs = exact(torch.cat([copies, queries.double()], dim=-1))[..., prompts.shape[-1] :]
    rows, columns = zip(*reads, strict=True)
    return replace(problems, targets=outputs[..., list(rows), list(columns)])


def planted_control(
    model: PaperTransformer,
    queries: Tensor,
    prompts: Tensor,
    starts: Tensor,
    *,
    reads: tuple[tuple[int, int], ...],
    settings: LevenbergMarquardt | None = None,
    jacobian_dtype: torch.dtype | None = None,
) -> PlantedControl:
    """Run the solver on targets made by known prompts, from fresh starts.

    Args:
        model: The transformer.
        queries: (B, K, d, m).
        prompts: (B, d, m_p), the planted ones; the solver does not see them.
        starts: (S, B, d, m_p), drawn apart from the planted prompts.
        reads: (coordinate, column) of each number read.
        settings: Of the solver, as for the figure that the control stands beside.
        jacobian_dtype: As for `solve_regression`.

    Returns:
        The report.
    """
    chosen = LevenbergMarquardt() if settings is None else settings
    problems = planted_targets(model, queries, prompts, reads)
    found = solve_regression(
        model, problems, starts, settings=chosen, jacobian_dtype=jacobian_dtype
    )
    return PlantedControl(
        problems=problems.count,
        solved=sum(outcome is Outcome.SOLVED for outcome in found.outcomes),
        tolerance=chosen.tolerance,
        starts=len(starts),
        residuals=problems.targets[0].numel(),
        unknowns=starts[0, 0].numel(),
        largest_error=float(found.errors.max()),
        dtype=str(model.dtype).removeprefix("torch."),
    )
