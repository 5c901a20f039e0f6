"""One head: the oracle's certificate in ball arithmetic alone.

For h = 1 the minimum over W is explicit. With y = sum_j c_j mu_j g_j, P the projection on
range(V) and g_j = c_j (t_j - lambda_j a_j),

    f(v) = sum_j |g_j|^2 - |P y|^2 / sum_j (c_j mu_j)^2,        sum_j (c_j mu_j)^2 > 0,

a rational function of v through inner products of the t_j and a_j, all enclosed from the exact
weights (`inputs`). Power series in arb give f, f' and f''/2 over a box rigorously, so on a
box with centre c and half-width r

    f(v) >= min over |x| <= r of f(c) + f'(c) x + m x^2,     m = lower end of f''/2 over the box,

and where f' has one sign f(v) is at least f at an end. Boxes are halved until the least limit
is within the tolerance of a value found. No limit on the prompt enters anywhere.

Where V is invertible, entropy keeps the minimiser W* in a slab (`length`). On a box where
W* is outside on one side throughout, the same is done with f(v) + S(v) e(v)^2 / |eta|^2; on boxes
that touch 0 or 1, where b has a logarithm, e is bounded by its enclosure; elsewhere f alone is a
limit, as e^2 is not negative.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from flint import arb, arb_series, ctx

from promptlimits.base.exact import working_precision
from promptlimits.lab.one_layer.oracle.inputs import ExactInputs, Vector, fraction_of
from promptlimits.lab.one_layer.oracle.length import Slab
from promptlimits.lab.one_layer.setting import Floats
from promptlimits.lipschitz.balls.rounding import dot

PRECISION: Final = 128
_ORDER: Final = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class _Products:
    """Inner products that f consists of; those seen in range(V) have `inside` in their name."""

    weight: list[arb]
    excess: list[arb]
    squares: list[tuple[arb, arb, arb]]
    inside: list[list[arb]]
    slab: Slab | None


def one_head_limit(
    inputs: ExactInputs,
    scale: Floats,
    *,
    aim: float,
    most_boxes: int,
    slab: Slab | None = None,
) -> tuple[Fraction, int]:
    """A proved lower limit on the least weighted sum of squares of one head."""
    with working_precision(PRECISION):
        before = ctx.cap
        try:
            ctx.cap = _ORDER
            return _branch(_products(inputs, scale, slab), aim, most_boxes)
        finally:
            ctx.cap = before


def _products(inputs: ExactInputs, scale: Floats, slab: Slab | None) -> _Products:
    weight = [arb(float(c)) ** 2 for c in scale]
    basis, owns = inputs.bases[0], [row[0] for row in inputs.means]
    squares = [(dot(t, t), dot(t, a), dot(a, a)) for t, a in zip(inputs.targets, owns, strict=True)]
    seen: list[Vector] = [[dot(b, x) for b in basis] for x in inputs.targets + owns]
    inside = [[dot(x, y) for y in seen[: n + 1]] for n, x in enumerate(seen)]
    return _Products(
        weight=weight,
        excess=[row[0] for row in inputs.excess],
        squares=squares,
        inside=inside,
        slab=slab,
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


def _branch(products: _Products, target: float, most_boxes: int) -> tuple[Fraction, int]:
    if target <= 0:
        return Fraction(0), 0
    aim, seen = arb(target), 1
    first = (arb(0), arb(1))
    heap = [(0.0, 0, *first, arb(0))]
    done: list[arb] = []
    while heap and seen < most_boxes:
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
    """A lower limit on the least value over [low, high], as an exact number."""
    middle, half = (low + high) / 2, (high - low) / 2
    whole = middle + half * arb(0, 1)
    if not all(1 + excess * whole > 0 for excess in products.excess):
        # arb rounds radii up to 30 bits, so a wide box may seem to reach below 0.
        return arb(0)
    if not _norm(products, whole) > 0:
        return arb(0)
    free = _least(lambda at: _series(products, at), low, high, whole)
    if products.slab is None:
        return free
    return _within_slab(products, products.slab, low, high, whole, free)


def _least(series: Callable[[arb], arb_series], low: arb, high: arb, whole: arb) -> arb:
    """A lower limit on a function over [low, high] from its Taylor series."""
    middle, half = (low + high) / 2, (high - low) / 2
    over = series(whole)
    slope = over[1]
    if slope > 0:
        return series(low)[0].lower()
    if slope < 0:
        return series(high)[0].lower()
    here, bend = series(middle), over[2].lower()
    value, tilt = here[0].lower(), here[1].abs_upper()
    if bend > 0 and 2 * bend * half > tilt:
        return (value - tilt * tilt / (4 * bend)).lower()
    edge = value - tilt * half + bend * half * half
    return edge.lower()


def _norm(products: _Products, v: arb) -> arb:
    """S(v), as a ball."""
    shares = [1 / (1 + excess * v) for excess in products.excess]
    return sum((w * m * m for w, m in zip(products.weight, shares, strict=True)), arb(0))


def _scored(products: _Products, slab: Slab, v: arb | arb_series) -> tuple[Any, Any]:
    """S and eta.y = S eta.W*, at a ball or as series."""
    norm, along = 0 * v, 0 * v
    for weight, excess, target, mean in zip(
        products.weight, products.excess, slab.targets, slab.means, strict=True
    ):
        share = 1 / (1 + excess * v)
        own = (1 + excess) * v * share
        norm += weight * share * share
        along += weight * share * (target - own * mean)
    return norm, along


def _within_slab(
    products: _Products, slab: Slab, low: arb, high: arb, whole: arb, free: arb
) -> arb:
    """The limit raised by what entropy forbids, if W* is outside the slab over the whole box."""
    norm, along = _scored(products, slab, whole)
    best, rest = along / norm, 1 - whole
    if low > 0 and high < 1 and whole > 0 and rest > 0:
        edge = rest * (slab.log_least + rest.log() - whole.log())
        side = _side(slab, best, edge, rest)
        if side == 0:
            return free
        return max(free, _least(lambda at: _outside(products, slab, at, side), low, high, whole))
    if high == 1 and low > 0:
        away = _away(slab, best, _edge_at_one(slab, low), rest)
    else:
        least = _edge_at_zero(slab, high)
        # b has no upper limit here: W* can be seen to be below the slab, not above.
        below = None if least is None else least - _room(slab, rest) - best
        away = below if below is not None and below > 0 else None
    if away is None:
        return free
    raised: arb = free + norm.lower() * away.abs_lower() ** 2 / slab.size
    return max(free, raised.lower())


def _away(slab: Slab, best: arb, edge: arb, rest: arb) -> arb | None:
    """How far eta.W* is outside the slab for certain, or None."""
    side = _side(slab, best, edge, rest)
    if side == 0:
        return None
    away: arb = best - edge if side > 0 else edge - _room(slab, rest) - best
    return away


def _room(slab: Slab, rest: arb | arb_series) -> Any:
    return 0 * rest if slab.room is None else rest * slab.room


def _side(slab: Slab, best: arb, edge: arb, rest: arb) -> int:
    """1 where eta.W* is above the slab for certain, -1 where it is below, 0 if neither."""
    if best > edge:
        return 1
    if slab.room is not None and best < edge - _room(slab, rest):
        return -1
    return 0


def _outside(products: _Products, slab: Slab, at: arb, side: int) -> arb_series:
    """The series of f + S e^2 / |eta|^2 where W* is outside on one side."""
    v = arb_series([at, 1])
    rest = 1 - v
    norm, along = _scored(products, slab, v)
    edge = rest * (slab.log_least + rest.log() - v.log())
    away = along - norm * (edge if side > 0 else edge - _room(slab, rest))
    raised: arb_series = _series(products, at) + away * away / (norm * slab.size)
    return raised


def _edge_at_one(slab: Slab, low: arb) -> arb:
    """b over [low, 1]: u (l - log v) + u log u with u in [0, 1 - low]; -1/e <= u log u <= 0."""
    height = 1 - low
    u = height / 2 + height / 2 * arb(0, 1)
    v = (low + 1) / 2 + height / 2 * arb(0, 1)
    deepest = -(arb(-1).exp())
    if height < arb(-1).exp():
        deepest = height * height.log()
    return u * (slab.log_least - v.log()) + deepest / 2 + deepest / 2 * arb(0, 1)


def _edge_at_zero(slab: Slab, high: arb) -> arb | None:
    """A lower limit on b over (0, high], where both of its factors are positive and fall."""
    if not high < 1 or slab.room is None:
        return None
    factor = slab.log_least + (1 - high).log() - high.log()
    return ((1 - high) * factor).lower() if factor > 0 else None
