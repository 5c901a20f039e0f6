"""Many-start minimisation over the cube: Newton's method with a trust weight, all at once.

What it finds is a point of the cube, so an upper limit on the infimum (up to rounding) and
nothing more; `oracle_certificate` says how far below it the infimum can be.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from promptlimits.single_layer.oracle_problem import LocalModel, Problem, local_model
from promptlimits.single_layer.setting import Floats

STEPS: Final = 60
STARTS_PER_HEAD: Final = 24
LAWSON_ROUNDS: Final = 60
LAWSON_STARTS: Final = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """A point of the cube and what it gives.

    Attributes:
        point: v, (h,).
        solution: w, (n,).
        squares: |t_j - (u_j - x_0)|^2 without weights, (k,).
        scale: The weights c_j it is the best found for, (k,).
    """

    point: Floats
    solution: Floats
    squares: Floats
    scale: Floats

    @property
    def value(self) -> float:
        """The weighted sum, c_j^2 squares_j over j."""
        return float((self.scale**2 * self.squares).sum())


def starting_points(heads: int, generator: np.random.Generator) -> Floats:
    """Uniform points, points close to the faces, and the corners of few heads."""
    count = STARTS_PER_HEAD * heads
    uniform = generator.random((count, heads))
    close = 1 / (1 + np.exp(-4 * generator.standard_normal((count, heads))))
    corners = np.indices((2,) * min(heads, 4)).reshape(min(heads, 4), -1).T.astype(np.float64)
    padded = np.pad(corners, ((0, 0), (0, heads - corners.shape[1])), constant_values=0.5)
    return np.concatenate([uniform, close, padded])


def descend(problem: Problem, points: Floats, steps: int = STEPS) -> tuple[Floats, LocalModel]:
    """Run Newton's method from every point, keeping to the cube.

    Args:
        problem: The problem.
        points: (N, h) starts.
        steps: Most iterations.

    Returns:
        Where each start ended, (N, h), and the models there.
    """
    model = local_model(problem, points)
    trust = np.full(len(points), 1e-3)
    for _ in range(steps):
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


def least_sum(problem: Problem, generator: np.random.Generator) -> Found:
    """The least weighted sum of squares found.

    Args:
        problem: The problem, with its weights.
        generator: Source of starting points.

    Returns:
        The best of all starts.
    """
    ends, model = descend(problem, starting_points(problem.heads, generator))
    return _found(problem, ends, model, int(model.value.argmin()))


def _found(problem: Problem, ends: Floats, model: LocalModel, best: int) -> Found:
    return Found(
        point=ends[best],
        solution=model.solution[best],
        squares=(model.residual[best] ** 2).sum(axis=1) / problem.scale**2,
        scale=problem.scale,
    )


def least_largest(problem: Problem, generator: np.random.Generator) -> tuple[Found, Found]:
    """The least largest error found, and the weights that support a lower limit best.

    Lawson's method: a weighted sum is minimised, then each weight grows with its error. For
    fixed v that converges to the minimax, whose optimal weights make both sides equal; over v,
    which is not convex, a gap may remain.

    Args:
        problem: The problem with weights 1.
        generator: Source of starting points.

    Returns:
        The point with the least max_j error found, and the point and weights (of sum 1) whose
        least weighted sum found is greatest.
    """
    ends, model = descend(problem, starting_points(problem.heads, generator))
    order = np.argsort(model.value)[:LAWSON_STARTS]
    best = _found(problem, ends, model, int(order[0]))
    duals: list[Found] = []
    for start in order:
        weights, point = np.full(len(problem.scale), 1 / len(problem.scale)), ends[start][None]
        for _ in range(LAWSON_ROUNDS):
            weighted = problem.weighted(np.sqrt(weights))
            point, model = descend(weighted, point, steps=8)
            found = _found(weighted, point, model, 0)
            best = min(best, found, key=lambda one: one.squares.max())
            grown = weights * np.sqrt(found.squares)
            if not grown.sum() > 0:
                break
            weights = np.maximum(grown / grown.sum(), 1e-12)
            weights /= weights.sum()
        dual = least_sum(problem.weighted(np.sqrt(weights)), generator)
        best = min(best, dual, key=lambda one: one.squares.max())
        duals.append(dual)
    return best, max(duals, key=lambda one: one.value)
