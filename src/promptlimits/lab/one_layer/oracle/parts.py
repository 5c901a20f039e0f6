"""The oracle's problem in balls, cut along what the heads' ranges share.

Two heads whose ranges together are all of R^d share a space I of dimension r_1 + r_2 - d, and
each range is the orthogonal sum of I and its part beside I. Those parts are independent. Hence
the squared distance is, for every (v, W), the sum of one on the complement of I, where the least
squares problem in W is regular for every v, and one on I, where both heads may choose anything:

    |C^-1 (G - M W)|^2 on I,        M = (mu_j^i), k x h.

The second alone can degenerate, and is out of reach of no W once k <= h. With three heads or
more no such cut exists in general, and the problem is kept whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
    """One orthogonal part of the problem, proved constants and their midpoints.

    Attributes:
        targets: c_j t_j, (k, m).
        means: c_j a_j^i, (k, h, m).
        excess: s_j^i, (k, h).
        scale: c_j, exact.
        bases: (m, r_i) each, orthonormal.
        near: The same with midpoints, for `local_model`.
    """

    targets: Balls
    means: Balls
    excess: Balls
    scale: Floats
    bases: tuple[Balls, ...]
    near: Problem


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
