"""Queries that no prompt tells apart, taken as one.

Queries of the same tokens have the same statistics, so every prompt gives them one output o.
With weights w_j of sum w and t the weighted mean of their targets,

    sum_j w_j |o - t_j|^2  =  w |o - t|^2  +  sum_j w_j |t_j - t|^2,

exactly: the first term is a problem with one query less, the second a constant that no prompt
lowers. Without it two copies of one query look like a problem in which heads degenerate.

One query left: mu = 1, and o is a sum of vectors of the ranges of the V_i, a_j^i among them. So
its error is at least the distance of t from the sum of the ranges, for any number of heads.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from flint import arb

from promptlimits.base.exact import working_precision
from promptlimits.lab.one_layer.oracle.inputs import (
    PRECISION,
    ExactInputs,
    Vector,
    dot,
    fraction_of,
    independent_columns,
    orthonormalised,
)
from promptlimits.lab.one_layer.reachable import joint_rank
from promptlimits.lab.one_layer.setting import Floats, SharedQuery
from promptlimits.nets.paper.weights import LayerWeights


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
        ExactInputs(
            targets=targets,
            means=[inputs.means[j] for j in first],
            excess=[inputs.excess[j] for j in first],
            log_least=inputs.log_least,
            bases=inputs.bases,
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
