"""Wasserstein distances between measures with finite support, to the precision of float64.

Definition 2.8 of meyer2025, and the distance d^m of its section 2.4 (after castin2024) that
compares only equal positions. Values are computed, not proved: they serve experiments and tests.
"""

from __future__ import annotations

import math
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from promptlimits.base.errors import RunFailed, UserError

Array: TypeAlias = NDArray[np.float64]

_LARGEST_MATCHING: Final = 2000
"""Atoms on each side up to which unequal sizes are repeated to a common one and matched."""


def wasserstein_distance(
    first: Any,
    second: Any,
    *,
    order: float = 1,
    first_weights: Any = None,
    second_weights: Any = None,
) -> float:
    """W_q(mu, nu) for the Euclidean cost.

    Uniform measures are matched one to one, after each point was repeated up to a common size:
    an optimal coupling of uniform measures of one size is a permutation (Birkhoff). Others go to
    an exact linear programme. Cost: n^3, or a programme of N x N' variables.

    Args:
        first: Atoms of mu, of shape (N, d).
        second: Atoms of nu, of shape (N', d).
        order: q, 1 or more and finite.
        first_weights: Masses of the atoms of mu, adding up to 1; uniform if None.
        second_weights: The same for nu.

    Returns:
        The distance. A distance of 0 between measures with general weights may come out as
        the q-th root of a rounding error.

    Raises:
        UserError: A shape, the order, or a mass is not as said, or a number is not finite.
    """
    q = _require_order(order)
    x, y = _points("first", first), _points("second", second)
    if x.shape[1] != y.shape[1]:
        raise UserError(
            "the measures",
            "lie in one space",
            got=f"dimensions {x.shape[1]} and {y.shape[1]}",
            remedy="give points of one dimension",
        )
    common = math.lcm(len(x), len(y))
    if first_weights is None and second_weights is None and common <= _LARGEST_MATCHING:
        x, y = np.repeat(x, common // len(x), axis=0), np.repeat(y, common // len(y), axis=0)
        return _matched(x, y, q)
    a = _weights("first_weights", first_weights, len(x))
    b = _weights("second_weights", second_weights, len(y))
    return _transported(*_merged(x, a), *_merged(y, b), q)


def position_distance(
    first: Any,
    second: Any,
    *,
    first_times: Any,
    second_times: Any,
    order: float = 1,
    first_weights: Any = None,
    second_weights: Any = None,
) -> float:
    """The position-aware distance d^m(mu, nu) on [0, 1] x R^d.

    (int W_q(mu^s, nu^s)^q dtheta(s))^{1/q} if both have the position marginal theta, where mu^s
    is mu given the position s; infinite if their marginals differ.

    Args:
        first: Atoms of mu, of shape (N, d).
        second: Atoms of nu, of shape (N', d).
        first_times: Positions of the atoms of mu, of shape (N,).
        second_times: The same for nu.
        order: q, 1 or more and finite.
        first_weights: Masses of the atoms of mu, adding up to 1; uniform if None.
        second_weights: The same for nu.

    Returns:
        The distance.

    Raises:
        UserError: As for `wasserstein_distance`.
    """
    q = _require_order(order)
    x, y = _points("first", first), _points("second", second)
    s, t = _times("first_times", first_times, len(x)), _times("second_times", second_times, len(y))
    a = _weights("first_weights", first_weights, len(x))
    b = _weights("second_weights", second_weights, len(y))
    total = 0.0
    for time in np.union1d(s[a > 0], t[b > 0]):
        here, there = s == time, t == time
        mass, other = float(a[here].sum()), float(b[there].sum())
        if not math.isclose(mass, other, rel_tol=1e-12):
            return math.inf
        part = wasserstein_distance(
            x[here],
            y[there],
            order=q,
            first_weights=a[here] / mass,
            second_weights=b[there] / other,
        )
        total += mass * part**q
    return float(total ** (1 / q))


def _require_order(order: float) -> float:
    if isinstance(order, bool) or not 1 <= order < math.inf:
        raise UserError("the order q", "be 1 or more and finite", got=order, remedy="use 1 or 2")
    return float(order)


def _numbers(name: str, values: Any) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise UserError(name, "be finite numbers", got="NaN or infinity", remedy="mend them")
    return array


def _points(name: str, values: Any) -> Array:
    array = _numbers(name, values)
    if array.ndim != 2 or array.shape[0] < 1:
        raise UserError(
            name, "have shape (N, d)", got=f"shape {array.shape}", remedy="put one atom in each row"
        )
    return array


def _times(name: str, values: Any, count: int) -> Array:
    array = _numbers(name, values)
    if array.shape != (count,):
        raise UserError(
            name, f"have shape ({count},)", got=f"shape {array.shape}", remedy="one for each atom"
        )
    return array


def _weights(name: str, values: Any, count: int) -> Array:
    if values is None:
        return np.full(count, 1 / count)
    array = _times(name, values, count)
    # Masses may come from float32: a sum that is off by more than its rounding is a mistake.
    if (array < 0).any() or abs(array.sum() - 1) > 1e-6:
        raise UserError(
            name,
            "be 0 or more and add up to 1",
            got=f"a sum of {array.sum()}",
            remedy="divide them by their sum",
        )
    return np.asarray(array / array.sum())


def _costs(x: Array, y: Array, q: float) -> tuple[Array, float]:
    """Distances to the power q, divided by a scale to the power q, and the scale."""
    from scipy.spatial.distance import cdist

    distances = cdist(x, y)
    scale = float(distances.max())
    return ((distances / scale) ** q if scale > 0 else distances), scale


def _matched(x: Array, y: Array, q: float) -> float:
    from scipy.optimize import linear_sum_assignment

    costs, scale = _costs(x, y, q)
    rows, columns = linear_sum_assignment(costs)
    return float(scale * costs[rows, columns].mean() ** (1 / q))


def _merged(points: Array, weights: Array) -> tuple[Array, Array]:
    """Each point once, with all of its mass, and only points with mass."""
    points, weights = points[weights > 0], weights[weights > 0]
    once, place = np.unique(points, axis=0, return_inverse=True)
    return once, np.bincount(place.ravel(), weights=weights).astype(np.float64)


def _transported(x: Array, a: Array, y: Array, b: Array, q: float) -> float:
    from scipy.optimize import linprog
    from scipy.sparse import eye_array, kron, vstack

    costs, scale = _costs(x, y, q)
    if len(x) == 1 or len(y) == 1:  # the product is the only coupling
        return float(scale * (a @ costs @ b) ** (1 / q))
    rows = kron(eye_array(len(x)), np.ones((1, len(y))))
    columns = kron(np.ones((1, len(x))), eye_array(len(y)))
    # One constraint follows from the others; with it, rounding would make them contradict.
    marginals = vstack([rows, columns], format="csr")[:-1]
    solved = linprog(
        costs.ravel(), A_eq=marginals, b_eq=np.concatenate([a, b])[:-1], method="highs-ds"
    )
    if not solved.success:
        raise RunFailed(
            f"the transport problem was not solved ({solved.message})",
            remedy="merge points that lie close together",
        )
    return float(scale * max(solved.fun, 0.0) ** (1 / q))
