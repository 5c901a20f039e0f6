"""Many-start minimisation over the cube: Newton's method with a trust weight, all at once.

What it finds is a point of the cube, so an upper limit on the infimum (up to rounding) and
nothing more; `certificate` says how far below it the infimum can be.

Large problems are searched in fewer dimensions where that changes nothing (`_reduced`), from fewer
starts, and all within a budget of work (`problem`), so that the same problem and seed give the same
result on a machine of any speed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from promptlimits.lab.one_layer.oracle.problem import (
    SEARCH,
    Budget,
    LocalModel,
    Problem,
    local_model,
    step_cost,
)
from promptlimits.lab.one_layer.setting import Floats

STEPS: Final = 60
STARTS_PER_HEAD: Final = 24
LAWSON_ROUNDS: Final = 60
LAWSON_STARTS: Final = 4

_NUMBERS: Final = 2**23
"""Starts of large problems are so few that their arrays hold about as many numbers."""

_WORK: Final = 3e7
"""The cubes of their coordinates, for which eigenvalues are taken, add up to about this."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """A point of the cube and what it gives."""

    point: Floats  # v, (h,)
    solution: Floats  # w, (n,)
    squares: Floats  # |t_j - (u_j - x_0)|^2 without weights, (k,)
    scale: Floats  # the weights c_j it is the best found for, (k,)

    @property
    def value(self) -> float:
        """The weighted sum, c_j^2 squares_j over j."""
        return float((self.scale**2 * self.squares).sum())


def starting_points(problem: Problem, generator: np.random.Generator) -> Floats:
    """Uniform points, points close to the faces, and the corners of few heads."""
    heads = problem.heads
    count = STARTS_PER_HEAD * heads
    uniform = generator.random((count, heads))
    close = 1 / (1 + np.exp(-4 * generator.standard_normal((count, heads))))
    corners = np.indices((2,) * min(heads, 4)).reshape(min(heads, 4), -1).T.astype(np.float64)
    padded = np.pad(corners, ((0, 0), (0, heads - corners.shape[1])), constant_values=0.5)
    every = np.concatenate([uniform, close, padded])
    queries, coordinates = len(problem.scale), len(problem.blocks)
    width = problem.targets.shape[1]
    numbers = queries * heads**2 * width + coordinates**2
    most = max(min(_NUMBERS // numbers, int(_WORK / max(coordinates, 1) ** 3)), 4)
    return every if len(every) <= most else generator.permutation(every)[:most]


def _reduced(problem: Problem) -> Problem:
    """The same f in fewer dimensions: one head, or heads that all write everywhere.

    The best W lies in the span of what the ranges see of targets and means; what lies beside
    the range of one head is a sum of its own.
    """
    basis = problem.bases[0]
    width = len(basis)
    if problem.heads > 1 and any(one.shape[1] < width for one in problem.bases):
        return problem
    vectors = np.concatenate([problem.targets, problem.means.reshape(-1, width)])
    if len(vectors) * 2 >= width:
        return problem
    # Directions in coordinates of the range, so that none leaves it.
    inside = basis @ np.linalg.svd(vectors @ basis, full_matrices=False)[2].T
    rest = (vectors - vectors @ inside @ inside.T).T
    left, sizes, _ = np.linalg.svd(rest, full_matrices=False)
    beside = left[:, sizes > 1e-12 * float(np.linalg.norm(vectors))]
    frame, size = np.concatenate([inside, beside], axis=1), inside.shape[1]
    bases = tuple(np.eye(frame.shape[1])[:, :size] for _ in problem.bases)
    return replace(
        problem, targets=problem.targets @ frame, means=problem.means @ frame, bases=bases
    )


def descend(
    problem: Problem, points: Floats, steps: int = STEPS, *, budget: Budget | None = None
) -> tuple[Floats, LocalModel]:
    """Run Newton's method from points (N, h), keeping to the cube: the ends, and models there."""
    model = local_model(problem, points)
    trust = np.full(len(points), 1e-3)
    budget, cost = budget or Budget(math.inf), step_cost(problem) * len(points)
    for _ in range(steps):
        if not budget.take(cost):
            break
        moved = np.clip(points + _newton_step(points, model, trust), 0.0, 1.0)
        tried = local_model(problem, moved)
        better = tried.value < model.value
        trust = np.where(better, trust / 4, trust * 8)
        gain = np.where(better, model.value - tried.value, 0.0)
        points = np.where(better[:, None], moved, points)
        model = _chosen(better, tried, model)
        if (gain <= 1e-15 * model.value).all() and (better | (trust > 1e6)).all():
            break
    return points, model


def _newton_step(points: Floats, model: LocalModel, trust: Floats) -> Floats:
    heads = points.shape[1]
    frozen = ((points <= 0) & (model.slope > 0)) | ((points >= 1) & (model.slope < 0))
    free = (~frozen).astype(np.float64)
    slope = model.slope * free
    bent = model.curvature * free[:, :, None] * free[:, None, :]
    sizes, vectors = np.linalg.eigh(bent)
    level = np.maximum(np.abs(sizes).max(axis=1), 1e-12)
    safe = np.abs(sizes) + (trust * level)[:, None] + 1e-14 * level[:, None]
    along = np.einsum("bij,bi->bj", vectors, slope)
    step = -np.einsum("bij,bj->bi", vectors, along / safe) * free
    longest = np.maximum(np.abs(step).max(axis=1, initial=0.0), 1e-300) if heads else step
    return np.asarray(step * np.minimum(1.0, 1.0 / longest)[:, None])


def _chosen(better: NDArray[np.bool_], new: LocalModel, old: LocalModel) -> LocalModel:
    picked: dict[str, Any] = {}
    for field in fields(LocalModel):
        left, right = getattr(new, field.name), getattr(old, field.name)
        picked[field.name] = np.where(better.reshape(-1, *[1] * (left.ndim - 1)), left, right)
    return LocalModel(**picked)


def least_sum(
    problem: Problem, generator: np.random.Generator, *, most_work: float = SEARCH
) -> Found:
    """The least weighted sum of squares found."""
    small = _reduced(problem)
    points = starting_points(small, generator)
    ends, model = descend(small, points, budget=Budget(most_work))
    return _at(problem, ends[int(model.value.argmin())])


def _at(problem: Problem, point: Floats) -> Found:
    """What a point gives in the whole problem."""
    return _found(problem, point[None], local_model(problem, point[None]), 0)


def _found(problem: Problem, ends: Floats, model: LocalModel, best: int) -> Found:
    return Found(
        point=ends[best],
        solution=model.solution[best],
        squares=(model.residual[best] ** 2).sum(axis=1) / problem.scale**2,
        scale=problem.scale,
    )


def least_largest(
    problem: Problem, generator: np.random.Generator, *, most_work: float = SEARCH
) -> tuple[Found, Found]:
    """The least largest error found, and the weights that support a lower limit best.

    Lawson's method: a weighted sum is minimised, then each weight grows with its error. For
    fixed v that converges to the minimax, whose optimal weights make both sides equal; over v,
    which is not convex, a gap may remain.
    """
    small = _reduced(problem)
    first = Budget(most_work / 2)
    ends, model = descend(small, starting_points(small, generator), budget=first)
    budget = Budget(most_work / 2 + first.left)
    order = np.argsort(model.value)[:LAWSON_STARTS]
    best = _found(small, ends, model, int(order[0]))
    duals: list[Found] = []
    for start in order:
        near, weights = _lawson(small, ends[start], best, budget)
        weighted = small.weighted(np.sqrt(weights))
        again = starting_points(weighted, generator)
        points = np.concatenate([near.point[None], again])
        ended, there = descend(weighted, points, budget=budget)
        dual = _found(weighted, ended, there, int(there.value.argmin()))
        best = min(best, near, dual, key=lambda one: one.squares.max())
        duals.append(dual)
        if budget.left <= 0:
            break
    dual = max(duals, key=lambda one: one.value)
    whole = [_at(problem.weighted(one.scale), one.point) for one in (best, dual)]
    return whole[0], whole[1]


def _lawson(problem: Problem, start: Floats, best: Found, budget: Budget) -> tuple[Found, Floats]:
    """The least largest error on the way from a start, and the weights where it ended."""
    weights, point = np.full(len(problem.scale), 1 / len(problem.scale)), start[None]
    for _ in range(LAWSON_ROUNDS):
        weighted = problem.weighted(np.sqrt(weights))
        point, model = descend(weighted, point, steps=8, budget=budget)
        found = _found(weighted, point, model, 0)
        best = min(best, found, key=lambda one: one.squares.max())
        grown = weights * np.sqrt(found.squares)
        if not grown.sum() > 0 or budget.left <= 0:
            break
        weights = np.maximum(grown / grown.sum(), 1e-12)
        weights /= weights.sum()
    return best, weights
