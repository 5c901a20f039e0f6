"""Regression on the papers' transformer: prompts that make it give wanted numbers.

A problem has K queries X^i (d, m), a target for each, and an unknown prompt P (d, m_p); the
residuals are read(tau([P, X^i])) - y^i (Definition 4.2 of meyer2025, E16), where some or all of
the d m numbers of the last m columns are read.

The error of a prompt is the largest over the pairs of the Euclidean norm of all residuals of a
pair. For whole outputs this is the epsilon of Definition 4.2 under the Frobenius norm; it is at
least the error of every token and at least every single residual. It is computed in float64
whatever the solver works in.

**Planted control.** Targets made by a known prompt have a solution, so what the solver misses there
is a limit of the solver (or of the starts and steps that it had), not of the model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from promptlimits.base.errors import UserError, require_positive
from promptlimits.base.files import JsonObject
from promptlimits.capacity.train.memory import keep_freed_memory
from promptlimits.capacity.train.problem import Outcome
from promptlimits.lab.regression.levenberg_marquardt import LevenbergMarquardt, Solutions, solve
from promptlimits.lab.regression.regression_network import RowNetwork
from promptlimits.nets.paper.transformer import PaperTransformer

_CHUNK_NUMBERS: Final = 2**18
"""Numbers of one activation computed at once: what a processor's cache holds."""
_NEAR: Final = 1e-2
"""Norm of the residuals, as a share of 1 + that of the targets, below which rounding counts."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RegressionProblems:
    """B problems of one shape.

    Attributes:
        queries: X, (B, K, d, m).
        targets: y, (B, K, R): one number for each entry of `reads`.
        reads: (coordinate, column) of each number that is read of the last m columns; both
            count from 0.

    Raises:
        UserError: Shapes do not fit, a read lies outside (d, m) or comes twice.
    """

    queries: Tensor
    targets: Tensor
    reads: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if self.queries.dim() != 4 or 0 in self.queries.shape:
            _refuse("the queries", "have shape (B, K, d, m), with no axis of 0", self.queries)
        dim, columns = self.queries.shape[-2:]
        inside = all(0 <= row < dim and 0 <= column < columns for row, column in self.reads)
        if not self.reads or not inside or len(set(self.reads)) != len(self.reads):
            raise UserError(
                "the reads",
                f"be different places (coordinate, column) within ({dim}, {columns})",
                got=self.reads,
                remedy="count both from 0",
            )
        wanted = (*self.queries.shape[:2], len(self.reads))
        if tuple(self.targets.shape) != wanted:
            _refuse("the targets", f"have shape {wanted}", self.targets)

    @property
    def count(self) -> int:
        """B."""
        return int(self.queries.shape[0])


def all_reads(dim: int, columns: int) -> tuple[tuple[int, int], ...]:
    """Every number of the last `columns` columns of `dim` coordinates."""
    return tuple((row, column) for column in range(columns) for row in range(dim))


def solve_regression(
    model: PaperTransformer,
    problems: RegressionProblems,
    starts: Tensor,
    *,
    settings: LevenbergMarquardt | None = None,
    jacobian_dtype: torch.dtype | None = None,
    radius: float | None = None,
) -> Solutions:
    """Find a prompt for each problem by Levenberg-Marquardt.

    Args:
        model: The transformer; its dtype is that of the prompts and residuals.
        problems: B problems.
        starts: (S, B, d, m_p); a problem that its first start does not solve is tried from the
            next. With a radius these are the free variables z, not the prompts.
        settings: Tolerance, steps and damping; the defaults when None.
        jacobian_dtype: Dtype of the Jacobian and of the linear algebra; the model's when None.
            With float32 a float64 model still gives errors and prompts of float64; residuals
            are computed in float64 once they are small (see `RegressionSystem.residuals`).
        radius: Each prompt token is kept in the ball of this radius, as r z/(1 + |z|^2)^(1/2);
            None for no limit.

    Returns:
        The prompts, flat as (B, d m_p), and the endings. Errors are those of the definition
        above, computed in float64 from the model's weights; a float32 run whose error is above
        the tolerance there counts as stalled.

    Raises:
        UserError: Shapes do not fit.
    """
    chosen = LevenbergMarquardt() if settings is None else settings
    require_matching(model, problems, starts)
    keep_freed_memory(starts.device)
    system = RegressionSystem(
        model, problems, starts.shape[-1], jacobian_dtype=jacobian_dtype, radius=radius
    )
    found = solve(system, starts.to(model.dtype).flatten(2), chosen)
    prompts = system.prompts(found.unknowns)
    errors = regression_errors(model, problems, prompts)
    outcomes = tuple(
        Outcome.STALLED if ending is Outcome.SOLVED and error > chosen.tolerance else ending
        for ending, error in zip(found.outcomes, errors.tolist(), strict=True)
    )
    return replace(found, unknowns=prompts.flatten(1), errors=errors, outcomes=outcomes)


def regression_errors(
    model: PaperTransformer, problems: RegressionProblems, prompts: Tensor
) -> Tensor:
    """The error of a prompt for each problem, as defined above, in float64.

    Args:
        model: The transformer.
        problems: B problems.
        prompts: (B, d, m_p).

    Returns:
        (B,), in float64; infinite where an output is not finite.

    Raises:
        UserError: Shapes do not fit.
    """
    require_matching(model, problems, prompts[None])
    exact = RegressionSystem(model.to(torch.float64), problems, prompts.shape[-1])
    everything = torch.arange(problems.count, device=prompts.device)
    errors = exact.errors(exact.residuals(prompts.double().flatten(1), everything))
    return torch.where(torch.isfinite(errors), errors, torch.inf)


class RegressionSystem:
    """Residuals and Jacobians of regression problems, as `levenberg_marquardt.LeastSquares`.

    A pair's residuals depend on its own sequence only, so each pair has its own copy of the
    prompt, and one backward pass (`RowNetwork.slopes`) gives all rows of the Jacobian.

    Args:
        model: The transformer.
        problems: B problems.
        prompt_tokens: m_p.
        jacobian_dtype: Dtype of the Jacobian; the model's when None.
        radius: Of the ball of each prompt token, or None.
    """

    def __init__(
        self,
        model: PaperTransformer,
        problems: RegressionProblems,
        prompt_tokens: int,
        *,
        jacobian_dtype: torch.dtype | None = None,
        radius: float | None = None,
    ) -> None:
        dtype = model.dtype if jacobian_dtype is None else jacobian_dtype
        self._network = RowNetwork.of(model)
        self._slope = self._network if dtype == model.dtype else RowNetwork.of(model.to(dtype))
        self._radius = None if radius is None else require_positive("radius", radius)
        self._rows = problems.queries.mT.to(model.dtype)
        self._targets = problems.targets.to(model.dtype)
        self._prompt_tokens = prompt_tokens
        columns = sorted({column for _, column in problems.reads})
        device = problems.queries.device
        self._columns = prompt_tokens + torch.tensor(columns, device=device)
        places = [(columns.index(column), row) for row, column in problems.reads]
        column, coordinate = torch.tensor(places, device=device).unbind(dim=1)
        self._places = (column, coordinate)
        pairs, length = self._rows.shape[1], self._rows.shape[2] + prompt_tokens
        self._chunk = max(1, _CHUNK_NUMBERS // (pairs * length * self._network.widest))

    def prompts(self, unknowns: Tensor) -> Tensor:
        """(b, d, m_p) from the unknowns (b, d m_p)."""
        free: Tensor = unknowns.unflatten(-1, (-1, self._prompt_tokens))
        if self._radius is None:
            return free
        shrink: Tensor = self._radius * torch.rsqrt(1 + free.square().sum(dim=-2, keepdim=True))
        return free * shrink

    @torch.no_grad()
    def residuals(self, unknowns: Tensor, index: Tensor) -> Tensor:
        """(b, K R): read(tau([P, X^i])) - y^i, pair after pair.

        Where they are large, they are computed in the Jacobian's dtype, whose rounding then
        changes no decision.
        """
        if self._slope is self._network:
            return self.residuals_with_graph(unknowns, index)
        coarse = unknowns.to(self._slope.model.dtype)
        residuals = self._apart(self._slope, coarse, index)
        size = torch.linalg.vector_norm(self._targets[index].flatten(1), dim=-1)
        near = (residuals.norm(dim=-1) <= _NEAR * (1 + size)).nonzero()[:, 0]
        if len(near):
            residuals[near] = self.residuals_with_graph(unknowns[near], index[near])
        return residuals

    def residuals_with_graph(self, unknowns: Tensor, index: Tensor) -> Tensor:
        """The same, differentiable in the unknowns."""
        return self._apart(self._network, unknowns, index)

    @torch.no_grad()
    def jacobian(self, unknowns: Tensor, index: Tensor) -> Tensor:
        """(b, K R, d m_p), by one backward pass for all numbers read."""
        rows = []
        for part, at in zip(unknowns.split(self._chunk), index.split(self._chunk), strict=True):
            free = part.to(self._slope.model.dtype)
            slopes = self._slope.slopes(self._tokens(free, at), self._columns, self._places)
            of_prompts = slopes[:, :, : self._prompt_tokens].permute(0, 1, 3, 4, 2)
            rows.append(self._slopes_of_free(free, of_prompts.flatten(1, 2)).flatten(2))
        return torch.cat(rows)

    def errors(self, residuals: Tensor) -> Tensor:
        """(b,): the largest Euclidean norm of a pair's residuals (b, K R)."""
        by_pair = residuals.unflatten(-1, (self._rows.shape[1], -1))
        largest: Tensor = torch.linalg.vector_norm(by_pair, dim=-1).amax(dim=-1)
        return largest

    def _tokens(self, unknowns: Tensor, index: Tensor) -> Tensor:
        """(b, K, m_p + m, d): prompt and query of each pair, tokens as rows."""
        queries = self._rows[index].to(unknowns.dtype)
        prompts = self.prompts(unknowns).mT[:, None].expand(-1, queries.shape[1], -1, -1)
        return torch.cat([prompts, queries], dim=-2)

    def _slopes_of_free(self, unknowns: Tensor, slopes: Tensor) -> Tensor:
        """From slopes (b, K R, d, m_p) by the prompts to those by the unknowns."""
        if self._radius is None:
            return slopes
        free = unknowns.unflatten(-1, (1, -1, self._prompt_tokens))
        inverse = torch.rsqrt(1 + free.square().sum(dim=-2, keepdim=True))
        along: Tensor = free * inverse.square() * (free * slopes).sum(dim=-2, keepdim=True)
        return self._radius * inverse * (slopes - along)

    def _apart(self, network: RowNetwork, unknowns: Tensor, index: Tensor) -> Tensor:
        """The numbers read less the targets, (b, K R), in the targets' dtype."""
        column, coordinate = self._places
        read = [
            network(self._tokens(part, at), self._columns)[..., column, coordinate]
            for part, at in zip(unknowns.split(self._chunk), index.split(self._chunk), strict=True)
        ]
        return (torch.cat(read) - self._targets[index]).flatten(1)


def require_matching(model: PaperTransformer, problems: RegressionProblems, starts: Tensor) -> None:
    """Check the shapes of a model, problems and starts (S, B, d, m_p) against each other."""
    if problems.queries.shape[2] != model.dim:
        _refuse("the queries", f"have tokens of {model.dim} numbers", problems.queries)
    known = starts.dim() == 4 and 0 not in starts.shape
    if not known or tuple(starts.shape[1:3]) != (problems.count, model.dim):
        _refuse("the starts", f"have shape (S, {problems.count}, {model.dim}, m_p)", starts)
    length = starts.shape[-1] + problems.queries.shape[-1]
    if model.positions is not None and length > model.positions.shape[-1]:
        raise UserError(
            "the tokens",
            f"be at most {model.positions.shape[-1]}, as there are positional encodings",
            got=length,
            remedy="shorten the prompt or give more positions",
        )


def _refuse(name: str, rule: str, given: Tensor) -> None:
    raise UserError(name, rule, got=f"shape {tuple(given.shape)}", remedy="put tokens in columns")


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
