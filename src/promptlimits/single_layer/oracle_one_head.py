"""One head: the oracle's certificate in ball arithmetic alone.

For h = 1 the minimum over W is explicit. With y = sum_j c_j mu_j g_j, P the projection on
range(V) and g_j = c_j (t_j - lambda_j a_j),

    f(v) = sum_j |g_j|^2 - |P y|^2 / sum_j (c_j mu_j)^2,        sum_j (c_j mu_j)^2 > 0,

a rational function of v through inner products of the t_j and a_j, all enclosed from the exact
weights (`oracle_inputs`). Power series in arb give f, f' and f''/2 over a box rigorously, so on a
box with centre c and half-width r

    f(v) >= min over |x| <= r of f(c) + f'(c) x + m x^2,     m = lower end of f''/2 over the box,

and where f' has one sign f(v) is at least f at an end. Boxes are halved until the least limit
is within the tolerance of a value found. No limit on the prompt enters anywhere.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from flint import arb, arb_series, ctx

from promptlimits.bound import working_precision
from promptlimits.single_layer.oracle_inputs import ExactInputs, Vector, dot, fraction_of
from promptlimits.single_layer.setting import Floats

PRECISION: Final = 128
_ORDER: Final = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class _Products:
    """Inner products that f consists of; those seen in range(V) have `inside` in their name."""

    weight: list[arb]
    excess: list[arb]
    squares: list[tuple[arb, arb, arb]]
    inside: list[list[arb]]


def one_head_limit(
    inputs: ExactInputs, scale: Floats, *, aim: float, most_boxes: int, stop: float
) -> tuple[Fraction, int]:
    """A proved lower limit on the least weighted sum of squares of one head.

    Args:
        inputs: Of a layer with one head.
        scale: c_j, read as exact.
        aim: Branching ends once this much is proved; any number is sound.
        most_boxes: Stop after as many.
        stop: Stop at this reading of `time.perf_counter`.

    Returns:
        The limit, at least 0, and how many boxes were looked at.
    """
    before = ctx.cap
    with working_precision(PRECISION):
        try:
            ctx.cap = _ORDER
            return _branch(_products(inputs, scale), aim, most_boxes, stop)
        finally:
            ctx.cap = before


def _products(inputs: ExactInputs, scale: Floats) -> _Products:
    weight = [arb(float(c)) ** 2 for c in scale]
    basis, owns = inputs.bases[0], [row[0] for row in inputs.means]
    squares = [(dot(t, t), dot(t, a), dot(a, a)) for t, a in zip(inputs.targets, owns, strict=True)]
    seen: list[Vector] = [[dot(b, x) for b in basis] for x in inputs.targets + owns]
    inside = [[dot(x, y) for y in seen[: n + 1]] for n, x in enumerate(seen)]
    return _Products(
        weight=weight, excess=[row[0] for row in inputs.excess], squares=squares, inside=inside
    )


def _series(products: _Products, at: arb) -> arb_series:
    """The Taylor series of f about a point or a ball."""
    v = arb_series([at, 1])
    total, norm = arb_series([0]), arb_series([0])
    plain: list[arb_series] = []
    turned: list[arb_series] = []
    for weight, excess, (tt, ta, aa) in zip(
        products.weight, products.excess, products.squares, strict=True
    ):
        share = 1 / (1 + excess * v)
        own = (1 + excess) * v * share
        total += weight * (tt - own * (2 * ta - own * aa))
        norm += weight * share * share
        plain.append(weight * share)
        turned.append(-(weight * share * own))
    square, factors = arb_series([0]), plain + turned
    for n, left in enumerate(factors):
        row = products.inside[n][n] * left
        for right, product in zip(factors[:n], products.inside[n][:n], strict=True):
            row += 2 * product * right
        square += left * row
    return total - square / norm


def _branch(
    products: _Products, target: float, most_boxes: int, stop: float
) -> tuple[Fraction, int]:
    if target <= 0:
        return Fraction(0), 0
    aim, seen = arb(target), 1
    first = (arb(0), arb(1))
    heap = [(0.0, 0, *first, arb(0))]
    done: list[arb] = []
    while heap and seen < most_boxes and time.perf_counter() < stop:
        _, _, low, high, _ = heapq.heappop(heap)
        limit = _limit(products, low, high)
        if limit >= aim:
            done.append(limit)
            continue
        middle = (low + high) / 2
        for ends in ((low, middle), (middle, high)):
            seen += 1
            heapq.heappush(heap, (float(limit), seen, *ends, limit))
    left = done + [entry[-1] for entry in heap]
    least = min(left, key=fraction_of)
    return max(fraction_of(least), Fraction(0)), seen


def _limit(products: _Products, low: arb, high: arb) -> arb:
    """A lower limit on f over [low, high], as an exact number."""
    middle, half = (low + high) / 2, (high - low) / 2
    whole = middle + half * arb(0, 1)
    if not all(1 + excess * whole > 0 for excess in products.excess):
        # arb rounds radii up to 30 bits, so a wide box may seem to reach below 0.
        return arb(0)
    shares = [1 / (1 + excess * whole) for excess in products.excess]
    if not sum((w * m * m for w, m in zip(products.weight, shares, strict=True)), arb(0)) > 0:
        return arb(0)
    over = _series(products, whole)
    slope = over[1]
    if slope > 0:
        return _series(products, low)[0].lower()
    if slope < 0:
        return _series(products, high)[0].lower()
    here, bend = _series(products, middle), over[2].lower()
    value, tilt = here[0].lower(), here[1].abs_upper()
    if bend > 0 and 2 * bend * half > tilt:
        return (value - tilt * tilt / (4 * bend)).lower()
    edge = value - tilt * half + bend * half * half
    return edge.lower()
