"""The oracle's constants as proved enclosures, from the exact numbers of weights and tokens.

Doubles are read as the numbers that they are; scores, exponentials, means and bases are
computed in ball arithmetic (python-flint's arb), so that what is proved later is a statement on
the layer as given and not on its rounded statistics. A normalisation in front and rotary
positions are those of `setting`, with their parameters read as exact too.

Bases. V_i = W_o W_v has an exactly known rank r_i (`reachable.value_ranks`). r_i of its columns
are picked in floats and orthonormalised in balls; that this succeeds proves them independent, so
they span range(V_i) exactly. If r_i = d, the identity is the basis.

**Queries that no prompt tells apart** are taken as one. Queries of the same tokens have the same
statistics, so every prompt gives them one output o. With weights w_j of sum w and t the weighted
mean of their targets,

    sum_j w_j |o - t_j|^2  =  w |o - t|^2  +  sum_j w_j |t_j - t|^2,

exactly: the first term is a problem with one query less, the second a constant that no prompt
lowers. Without it two copies of one query look like a problem in which heads degenerate.

One query left: mu = 1, and o is a sum of vectors of the ranges of the V_i, a_j^i among them. So
its error is at least the distance of t from the sum of the ranges, for any number of heads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

import numpy as np
from flint import arb, arb_mat

from promptlimits.base.errors import RunFailed
from promptlimits.base.exact import working_precision
from promptlimits.lab.one_layer.reachable import joint_rank, value_ranks
from promptlimits.lab.one_layer.setting import Floats, SharedQuery, normalised
from promptlimits.lipschitz.balls.entries import Balls
from promptlimits.lipschitz.balls.rounding import dot, exact_matrix, exact_vector, lower
from promptlimits.nets.paper.weights import Array, HeadWeights, LayerWeights, exact_array

PRECISION: Final = 192
"""Bits for the constants: bases of condition up to 1e30 still come out of full precision."""

RANK_CUT: Final = 1e-10
"""Singular values of V below this share of the largest are noise to doubles."""

Vector = list[arb]


@dataclass(frozen=True, kw_only=True, eq=False)
class ExactInputs:
    """The data of `problem.Problem`, as arb's balls."""

    targets: list[Vector]  # t_j, k vectors
    means: list[list[Vector]]  # a_j^i, indexed [j][i]
    # Rho_j^i - 1, indexed [j][i]: 0 where Z_j^i is the least as floats see it.
    excess: list[list[arb]]
    log_least: list[arb]  # log Z_min of each head, to which the excesses refer
    bases: list[list[Vector]]  # for each head orthonormal vectors that span range(V_i) exactly


def float_rank(value: Floats) -> int:
    """How many singular values of a matrix doubles tell from 0."""
    sizes = np.linalg.svd(value, compute_uv=False)
    return int((sizes > RANK_CUT * max(sizes[0], 1e-300)).sum())


def exact_inputs(setting: SharedQuery, targets: Floats) -> ExactInputs:
    """Enclose the oracle's constants."""
    wanted = exact_array("the targets", targets, (setting.count, setting.layer.dim))
    with working_precision(PRECISION):
        each = [_query_statistics(setting, query) for query in setting.queries]
        excess, log_least = [], []
        for i in range(len(setting.layer.heads)):
            logs = [one[i][1] for one in each]
            least = min(range(len(logs)), key=lambda j: float(logs[j].mid()))
            log_least.append(logs[least])
            excess.append(
                [
                    arb(0) if j == least else (log - logs[least]).expm1()
                    for j, log in enumerate(logs)
                ]
            )
        return ExactInputs(
            targets=[exact_vector(row) for row in wanted],
            means=[[mean for mean, _ in one] for one in each],
            excess=[list(column) for column in zip(*excess, strict=True)],
            log_least=log_least,
            bases=[
                _range(head, rank)
                for head, rank in zip(setting.layer.heads, value_ranks(setting.layer), strict=True)
            ],
        )


def _column(vector: Vector) -> arb_mat:
    return arb_mat([[entry] for entry in vector])


def exact_entries(column: arb_mat) -> Vector:
    """The entries of a matrix of one column."""
    return [column[i, 0] for i in range(column.nrows())]


def _query_statistics(setting: SharedQuery, query: Array) -> list[tuple[Vector, arb]]:
    """(a, log Z) of each head over the columns of one query."""
    tokens, front = [exact_vector(column) for column in query.T], setting.front
    seen = tokens if front is None else [normalised(front, token) for token in tokens]
    return [_head_statistics(setting, head, seen) for head in setting.layer.heads]


def _head_statistics(
    setting: SharedQuery, head: HeadWeights, seen: list[Vector]
) -> tuple[Vector, arb]:
    asked = exact_entries(exact_matrix(head.query) * _column(seen[-1]))
    key = exact_matrix(head.key)
    scores = []
    for place, token in enumerate(seen):
        plain = exact_entries(key * _column(token))
        scores.append(dot(asked, _turned(plain, len(seen) - 1 - place, setting.rotary_base)))
    top = max(scores, key=lambda score: float(score.mid()))
    weights = [(score - top).exp() for score in scores]
    total = sum(weights, arb(0))
    mixed = [
        sum((w * token[r] for w, token in zip(weights, seen, strict=True)), arb(0)) / total
        for r in range(head.dim)
    ]
    mean = exact_matrix(head.output) * (exact_matrix(head.value) * _column(mixed))
    return exact_entries(mean), top + total.log()


def _turned(key: Vector, steps: int, base: float | None) -> Vector:
    if base is None:
        return key
    half = len(key) // 2
    first, second = [], []
    for number, (x, y) in enumerate(zip(key[:half], key[half:], strict=True)):
        angle = -steps * (-arb(float(base)).log() * number / half).exp()
        first.append(x * angle.cos() - y * angle.sin())
        second.append(y * angle.cos() + x * angle.sin())
    return first + second


def exact_range(head: HeadWeights, rank: int) -> Floats:
    """An orthonormal basis of the range of W_o W_v, taken before any rounding of the product."""
    with working_precision(PRECISION):
        balls = ball_array(_range(head, rank), head.dim)
    if not np.isfinite(balls.mid + balls.rad).all():
        raise RunFailed(
            "the range of a head's values nearly collapses",
            remedy="drop values far below the others",
        )
    return np.ascontiguousarray(balls.mid.T)


def _range(head: HeadWeights, rank: int) -> list[Vector]:
    """Orthonormal vectors that span the range of W_o W_v exactly."""
    if rank == head.dim:
        return unit_vectors(head.dim)
    product = exact_matrix(head.output) * exact_matrix(head.value)
    approximate = np.asarray(head.output @ head.value)
    if float_rank(approximate) < rank:
        return orthonormalised(_pivot_columns(product, rank))
    columns = [
        [product[r, c] for r in range(head.dim)] for c in independent_columns(approximate, rank)
    ]
    return orthonormalised(columns)


def _pivot_columns(product: arb_mat, count: int) -> list[Vector]:
    """Columns picked greedily in balls, each the longest left beside the span of those before."""
    whole = [[product[r, c] for r in range(product.nrows())] for c in range(product.ncols())]
    left, chosen = list(whole), []
    for _ in range(count):
        sizes = [float(dot(column, column).mid()) for column in left]
        best = int(np.argmax(sizes))
        chosen.append(whole[best])
        unit = orthonormalised([left[best]])[0]
        left = [
            [x - along * u for x, u in zip(column, unit, strict=True)]
            for column, along in ((column, dot(column, unit)) for column in left)
        ]
    return chosen


def unit_vectors(dim: int) -> list[Vector]:
    """The standard basis."""
    return [[arb(int(r == c)) for r in range(dim)] for c in range(dim)]


def independent_columns(matrix: Floats, count: int) -> list[int]:
    """Columns picked greedily, each the longest that is left beside the span of those before."""
    left, chosen = np.array(matrix), []
    for _ in range(count):
        best = int((left**2).sum(axis=0).argmax())
        direction = left[:, best] / max(float(np.linalg.norm(left[:, best])), 1e-300)
        left -= np.outer(direction, direction @ left)
        left[:, best] = 0.0
        chosen.append(best)
    return chosen


def orthonormalised(vectors: list[Vector], start: list[Vector] | None = None) -> list[Vector]:
    """Gram and Schmidt's vectors, exact but for the radii of their balls."""
    before = list(start or [])
    fresh: list[Vector] = []
    for vector in vectors:
        rest = vector
        for unit in before + fresh:
            along = dot(unit, rest)
            rest = [x - along * u for x, u in zip(rest, unit, strict=True)]
        size = dot(rest, rest).sqrt()
        fresh.append([x / size for x in rest])
    return fresh


def ball_array(vectors: Sequence[Vector], width: int) -> Balls:
    """Vectors as the rows of an array of balls, (count, width)."""
    return Balls.of_arbs([x for vector in vectors for x in vector], (len(vectors), width))


def fraction_of(number: arb) -> Fraction:
    """The lower end of a ball as an exact dyadic number; RunFailed if it is none."""
    if not number.is_finite():
        raise RunFailed(
            "the layer's numbers leave the range that the proof resolves",
            remedy="scale the weights or tokens down",
        )
    return lower(number)


def equal_queries(setting: SharedQuery) -> list[list[int]]:
    """Group the queries that consist of the same tokens.

    The order of tokens counts under rotary positions only.
    """
    groups: dict[tuple[tuple[float, ...], ...], list[int]] = {}
    for place, query in enumerate(setting.queries):
        tokens = [tuple(map(float, column)) for column in query.T]
        key = tuple(tokens) if setting.rotary_base is not None else tuple(sorted(tokens))
        groups.setdefault(key, []).append(place)
    return list(groups.values())


def merged(
    setting: SharedQuery, inputs: ExactInputs, roots: Floats
) -> tuple[ExactInputs, Floats, Fraction]:
    """The problem with equal queries taken as one, and the constant beside it."""
    groups = equal_queries(setting)
    if len(groups) == len(roots):
        return inputs, roots, Fraction(0)
    targets, kept, constant = [], [], Fraction(0)
    with working_precision(PRECISION):
        for group in groups:
            target, spread = _centre([inputs.targets[j] for j in group], roots[group])
            targets.append(target)
            constant += max(fraction_of(spread), Fraction(0))
            kept.append(_joint_root([float(roots[j]) for j in group]))
    first = [group[0] for group in groups]
    return (
        replace(
            inputs,
            targets=targets,
            means=[inputs.means[j] for j in first],
            excess=[inputs.excess[j] for j in first],
        ),
        np.array(kept),
        constant,
    )


def distance_from_ranges(layer: LayerWeights, inputs: ExactInputs) -> Fraction:
    """A lower limit on the squared distance of the first target from the sum of all ranges."""
    rank, pool = joint_rank(layer), [vector for basis in inputs.bases for vector in basis]
    if rank == layer.dim:
        return Fraction(0)
    with working_precision(PRECISION):
        floats = np.array([[float(x.mid()) for x in vector] for vector in pool])
        picks = independent_columns(floats.reshape(-1, layer.dim).T, rank)
        rest = inputs.targets[0]
        for unit in orthonormalised([pool[place] for place in picks]):
            along = dot(unit, rest)
            rest = [x - along * u for x, u in zip(rest, unit, strict=True)]
        return max(fraction_of(dot(rest, rest)), Fraction(0))


def _centre(targets: list[Vector], roots: Floats) -> tuple[Vector, arb]:
    """The weighted mean of targets and the weighted sum of squares about it."""
    if len(targets) == 1:
        return targets[0], arb(0)
    weights = [arb(float(c)) ** 2 for c in roots]
    total = sum(weights, arb(0))
    mean = [
        sum((w * x for w, x in zip(weights, column, strict=True)), arb(0)) / total
        for column in zip(*targets, strict=True)
    ]
    away = [[x - y for x, y in zip(target, mean, strict=True)] for target in targets]
    return mean, sum((w * dot(v, v) for w, v in zip(weights, away, strict=True)), arb(0))


def _joint_root(roots: list[float]) -> float:
    """The root of a sum of squares, rounded down."""
    if len(roots) == 1:
        return roots[0]
    total = sum((Fraction(c) ** 2 for c in roots), Fraction(0))
    root = math.sqrt(float(total))
    while Fraction(root) ** 2 > total:
        root = math.nextafter(root, 0.0)
    return root
