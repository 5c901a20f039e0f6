"""The oracle's problem in balls, cut along what the heads' ranges share.

Two heads whose ranges together are all of R^d share a space I of dimension r_1 + r_2 - d, and
each range is the orthogonal sum of I and its part beside I. Those parts are independent. Hence
the squared distance is, for every (v, W), the sum of one on the complement of I, where the least
squares problem in W is regular for every v, and one on I, where both heads may choose anything:

    |C^-1 (G - M W)|^2 on I,        M = (mu_j^i), k x h.

The second alone can degenerate, and is out of reach of no W once k <= h. With three heads or
more no such cut exists in general, and the problem is kept whole.

**Two heads that may write anything, near the corner where both prompts weigh infinitely much.** At
v = 0 both columns of M = (mu^1, mu^2) are (1, .., 1), and f jumps: close to the corner it depends
on the direction in which v leaves. Since mu^i = 1 - v_i p^i with p^i = s^i mu^i,

    span(mu^1, mu^2) = span(mu^1, e),      e = (1 - tau) p^1 - tau p^2,    tau = v_2 / (v_1 + v_2),

which is smooth in (v, tau). With X = G less its part along mu^1, and p^1, p^1 + p^2 less theirs
called alpha and beta, the squared distance of G from matrices with columns in that span is

    |X|^2 - Q(tau) / N(tau),     N = |alpha - tau beta|^2,     Q = |X^T (alpha - tau beta)|^2,

so it is at least L on an interval of tau iff (|X|^2 - L) N - Q >= 0 there: a quadratic in tau.
Its coefficients are enclosed over the box, and L is found by bisection. The limit is tight as the
box shrinks to the corner, unlike Eckart and Young's, which lets e be anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from promptlimits.base.errors import RunFailed
from promptlimits.base.exact import working_precision
from promptlimits.lab.one_layer.oracle.inputs import (
    PRECISION,
    ExactInputs,
    Vector,
    ball_array,
    independent_columns,
    orthonormalised,
    unit_vectors,
)
from promptlimits.lab.one_layer.oracle.problem import Problem
from promptlimits.lab.one_layer.setting import Floats
from promptlimits.lipschitz.balls.entries import Balls
from promptlimits.lipschitz.balls.rounding import dot


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """One orthogonal part of the problem, proved constants and their midpoints."""

    targets: Balls  # c_j t_j, (k, m)
    means: Balls  # c_j a_j^i, (k, h, m)
    excess: Balls  # s_j^i, (k, h)
    scale: Floats  # c_j, exact
    bases: tuple[Balls, ...]  # (m, r_i) each, orthonormal
    near: Problem  # the same with midpoints, for `local_model`


def split(inputs: ExactInputs, scale: Floats) -> list[Part]:
    """Cut the problem into parts whose squared distances add up to (at most) the whole's."""
    with working_precision(PRECISION):
        dim, heads = len(inputs.targets[0]), len(inputs.bases)
        if heads == 2 and sum(map(len, inputs.bases)) > dim and _fills(inputs.bases):
            return _cut(inputs, scale)
        return [_part(inputs, scale, None, inputs.bases)]


def _floats(vectors: Sequence[Vector], width: int) -> Floats:
    return np.array([[float(x.mid()) for x in vector] for vector in vectors]).reshape(-1, width)


def _fills(bases: list[list[Vector]]) -> bool:
    """Whether the ranges seem to span everything, with room for rounding."""
    dim = len(bases[0][0])
    joined = np.concatenate([_floats(b, dim) for b in bases])
    if not np.isfinite(joined).all():
        raise _out_of_range()
    sizes = np.linalg.svd(joined, compute_uv=False)
    return bool(sizes[dim - 1] > 1e-7)


def _out_of_range() -> RunFailed:
    return RunFailed(
        "the layer's numbers leave the range of doubles or its ranges nearly collapse",
        remedy="scale the weights or tokens down",
    )


def _beside(vectors: list[Vector], count: int, pool: list[Vector]) -> list[Vector]:
    """`count` orthonormal vectors made from a pool, orthogonal to given orthonormal ones."""
    dim = len(pool[0]) if pool else 0
    if count == 0:
        return []
    have, offered = _floats(vectors, dim), _floats(pool, dim)
    left = offered - offered @ have.T @ have
    return orthonormalised([pool[i] for i in independent_columns(left.T, count)], start=vectors)


def _cut(inputs: ExactInputs, scale: Floats) -> list[Part]:
    dim, units = len(inputs.targets[0]), unit_vectors(len(inputs.targets[0]))
    outside: list[Vector] = []
    for basis in inputs.bases:
        # The complements of the two ranges are independent, as the ranges span everything.
        outside += _beside(basis, dim - len(basis), units)
    complement = orthonormalised(outside)
    common = _beside(complement, dim - len(complement), units)
    own = [_beside(common, len(b) - len(common), b) for b in inputs.bases]
    parts = [_part(inputs, scale, complement, own)] if complement else []
    if len(scale) > len(inputs.bases):
        free = unit_vectors(len(common))
        parts.append(_part(inputs, scale, common, [free, free], turned=True))
    return parts


def _part(
    inputs: ExactInputs,
    scale: Floats,
    frame: list[Vector] | None,
    bases: list[list[Vector]],
    *,
    turned: bool = False,
) -> Part:
    """The problem in coordinates of an orthonormal frame; `turned` bases are given in them."""

    def seen(vector: Vector) -> Vector:
        return vector if frame is None else [dot(unit, vector) for unit in frame]

    width = len(inputs.targets[0]) if frame is None else len(frame)
    queries, heads = len(scale), len(bases)
    factor = Balls.exact(scale)
    targets = ball_array([seen(t) for t in inputs.targets], width) * factor[:, None]
    means = ball_array([seen(a) for row in inputs.means for a in row], width)
    means = means.reshape(queries, heads, width) * factor[:, None, None]
    excess = Balls.of_arbs([x for row in inputs.excess for x in row], (queries, heads))
    framed = tuple(
        ball_array(basis if turned else [seen(b) for b in basis], width).swap(0, 1)
        for basis in bases
    )
    if not all(np.isfinite(one.mid + one.rad).all() for one in (targets, means, excess, *framed)):
        raise _out_of_range()
    near = Problem(
        targets=targets.mid,
        means=means.mid,
        excess=excess.mid,
        scale=scale,
        bases=tuple(basis.mid for basis in framed),
        log_least=np.zeros(heads),
    )
    return Part(targets=targets, means=means, excess=excess, scale=scale, bases=framed, near=near)


CLOSE: Final = 0.1
"""Boxes within this distance of v = 0, in units of 1 / s, are tried."""

_BISECTIONS: Final = 40


def free_pair(part: Part) -> bool:
    """Whether the part is one of two heads with every vector in both ranges, and k above 2."""
    width = part.targets.shape[1]
    full = all(basis.shape == (width, width) for basis in part.bases)
    return full and part.excess.shape[1] == 2 and part.excess.shape[0] > 2


def near_corner(part: Part, centre: Floats, half: Floats) -> NDArray[np.bool_]:
    """Boxes close to v = 0 and not small beside their distance from it: where this limit pays."""
    high = centre + half
    steep = (high * (part.excess.mid.max(axis=0) + 1e-3)).max(axis=1)
    coarse = half.max(axis=1) >= 0.1 * high.max(axis=1)
    return np.asarray((steep <= CLOSE) & coarse)


def cone_floor(part: Part, centre: Floats, half: Floats) -> Floats:
    """Proved limits of at least 0 on the f of a `free_pair`, over boxes (N, 2)."""
    if not len(centre):
        return np.zeros(0)
    first, slopes, fixed = _enclosed(part, centre, half)
    size = (first * first).sum(1).reciprocal()

    def beside(columns: Balls) -> Balls:
        """Columns (N, k, n) less their part along mu^1."""
        return columns - (first * size[:, None])[..., None] * (first[:, None] @ columns)

    rest = beside(fixed)
    alpha = beside(slopes[:, :, :1])
    beta = beside(slopes[:, :, :1] + slopes[:, :, 1:])
    along, across = alpha.swap(1, 2) @ rest, beta.swap(1, 2) @ rest
    norm = [_inner(alpha, alpha), -_inner(alpha, beta), _inner(beta, beta)]
    pull = [_inner(along, along), -_inner(along, across), _inner(across, across)]
    total = _inner(rest, rest)
    ends = _ends(centre, half)
    low, high = np.zeros(len(centre)), np.maximum(total.lower(), 0.0)
    high = np.where(np.isfinite(high), high, 0.0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        left = total - Balls.exact(middle)
        proved = _nonnegative([left * n - q for n, q in zip(norm, pull, strict=True)], ends)
        low, high = np.where(proved, middle, low), np.where(proved, high, middle)
    return low


def _inner(left: Balls, right: Balls) -> Balls:
    return (left * right).sum(2).sum(1)


def _enclosed(part: Part, centre: Floats, half: Floats) -> tuple[Balls, Balls, Balls]:
    """Enclose c mu^1 (N, k), c p (N, k, 2) and G (N, k, m) over boxes."""
    one, scale = Balls.exact(np.ones(1)), Balls.exact(part.scale[:, None])[None]
    whole = Balls.around(centre, half)[:, None]
    move = Balls.around(np.zeros(half.shape), half)[:, None]
    excess = part.excess[None]
    share = (one + excess * Balls.exact(centre)[:, None]).reciprocal()
    # rho v mu(v) = rho c m + rho m mu(v) x, and mu(v) = m - s m mu(v) x.
    shift = share * (one + excess * whole).reciprocal() * move
    own = (one + excess) * (share * Balls.exact(centre)[:, None] + shift)
    tight = share - excess * shift
    fixed = part.targets[None] - (own[..., None] * part.means[None]).sum(2)
    return (scale * tight)[:, :, 0], scale * excess * tight, fixed


def _ends(centre: Floats, half: Floats) -> tuple[Floats, Floats]:
    """Limits of tau = v_2 / (v_1 + v_2) over each box."""
    low, high = np.maximum(centre - half, 0.0), centre + half
    least = low[:, 1] / np.maximum(high[:, 0] + low[:, 1], 1e-300)
    most = high[:, 1] / np.maximum(low[:, 0] + high[:, 1], 1e-300)
    # Wider by far more than the rounding of these few operations.
    return np.clip(least - 1e-12, 0.0, 1.0), np.clip(most + 1e-12, 0.0, 1.0)


def _nonnegative(terms: list[Balls], ends: tuple[Floats, Floats]) -> NDArray[np.bool_]:
    """Whether c_0 + 2 c_1 tau + c_2 tau^2 >= 0 is proved between the ends.

    A convex c_2 tau^2 is at least its tangent anywhere; what remains is concave, so least at
    an end.
    """
    convex = np.maximum(terms[2].mid, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex = np.where(convex > 0, -terms[1].mid / convex, 0.0)
    at = np.clip(np.nan_to_num(vertex), *ends)
    bent, touch = Balls.exact(convex), Balls.exact(at)
    constant, slope = terms[0] - bent * touch * touch, terms[1] + bent * touch
    twice = slope + slope
    first, last = (
        (constant + end * (twice + end * (terms[2] - bent))).lower()
        for end in map(Balls.exact, ends)
    )
    return np.asarray(np.minimum(first, last) >= 0)
