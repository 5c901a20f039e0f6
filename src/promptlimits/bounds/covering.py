"""How many small balls cover a set, and how many points far apart fit into it.

Definitions 3.1 and 3.2 of the paper. N(K, eps): the least number of closed eps-balls, centred in
K, that cover K. P(K, eps): the most points of K with pairwise distances above eps.

**Lemma 3.3.** P(K, 2 eps) <= N(K, eps) <= P(K, eps): two points more than 2 eps apart share no
closed ball of radius eps, and a largest set of points more than eps apart is an eps-net.

*Where we differ from the paper.* (1) Its Definition 3.2 writes M, its Lemma 3.3 P, for packing:
here P. (2) It calls "disjoint open balls of radius eps/2" equivalent: those give distances of at
least eps, not above it, and only in normed spaces. Strictly separated points are meant here.
(3) Centres lie in K; from a cover with other centres of a convex set in Euclidean space one gets
such a cover by projecting the centres. (4) Proposition 3.6, N(G, W_q, eps) >= (1/C) exp(1/eps^d),
is no theorem: with C that depends on eps it says nothing, and with C independent of eps it is
false for small r, as it does not scale with r, while log N <= c_d (2r/eps)^d. `paired_measures`
stands in for it, and the stronger Lemma C_out of Theorem 2a (`context.measures`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from flint import arb

from promptlimits.base.bound import Exact, LogBound, Source, log_ball, tightest
from promptlimits.base.checks import require_positive_int
from promptlimits.base.errors import UserError
from promptlimits.base.exact import shown, working_precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BITS: Final = 192
PROPOSITION_3_4: Final = Source(
    reference="vershynin2025", statement="Proposition 4.2.10", form="as published"
)
ROGERS: Final = Source(
    reference="rogers1957",
    statement="covering density at most n ln n + n ln ln n + 5 n, n >= 3",
    form="as published",
)
_ELLIPSOID: Final = Source(
    reference="promptlimits", statement="covering of an ellipsoid", form="proved here"
)


@dataclass(frozen=True, kw_only=True)
class CoveringBounds:
    """Limits on both sides.

    Attributes:
        lower: At least so many balls (or points).
        upper: At most so many.
    """

    lower: LogBound
    upper: LogBound


def ball_covering(*, dim: int, radius: Exact, eps: Exact) -> CoveringBounds:
    """Limits on N(B, eps) for the r-ball B of any norm on R^n: (r/eps)^n and (1 + 2r/eps)^n.

    By Proposition 3.4 with K = B: volumes in any norm scale with the n-th power. For eps >= r
    one ball does. Tight up to the factor (2 + eps/r)^n. Matrices of m tokens of norm at most r
    are the r-ball of the largest-token norm, n = d m.

    Args:
        dim: n.
        radius: r.
        eps: Radius of the covering balls.

    Returns:
        The limits.

    Raises:
        UserError: A value is out of range.
    """
    return _ball(dim, radius, eps, f"balls of radius {eps} that cover one of {radius}")


def ball_packing(*, dim: int, radius: Exact, eps: Exact) -> CoveringBounds:
    """Limits on P(B, eps) for the r-ball B of any norm on R^n: the same as for N(B, eps).

    N(B, eps) <= P(B, eps) (Lemma 3.3) gives the lower one, Proposition 3.4 the upper one. For
    eps >= 2r there is one point; between r and 2r only the lower limit is 1.

    Args:
        dim: n.
        radius: r.
        eps: Distance that pairs of points exceed.

    Returns:
        The limits.

    Raises:
        UserError: A value is out of range.
    """
    what = f"points more than {eps} apart in a ball of radius {radius}"
    return _ball(dim, radius, eps, what, one_from=2)


def volume_covering(
    *, dim: int, eps: Exact, volume_ratio: Exact, enlarged_ratio: Exact
) -> CoveringBounds:
    """Proposition 3.4 for any K in R^n, with B the unit ball: volumes on both sides.

    Vol(K)/Vol(eps B) <= N <= P <= Vol(K + (eps/2) B)/Vol((eps/2) B).

    Args:
        dim: n.
        eps: Radius of the covering balls.
        volume_ratio: Vol(K)/Vol(B).
        enlarged_ratio: Vol(K + (eps/2) B)/Vol(B).

    Returns:
        The limits.

    Raises:
        UserError: A value is out of range.
    """
    _require(dim, eps=eps, volume_ratio=volume_ratio, enlarged_ratio=enlarged_ratio)
    what = f"balls of radius {eps} that cover the set"
    return CoveringBounds(
        lower=_bound(
            "lower", lambda: (log_ball(volume_ratio) - dim * log_ball(eps)).max(arb(0)), what
        ),
        upper=_bound(
            "upper", lambda: log_ball(enlarged_ratio) - dim * log_ball(Fraction(eps) / 2), what
        ),
    )


def rogers_covering(*, dim: int, radius: Exact, eps: Exact) -> LogBound:
    """Upper limit (n ln n + n ln ln n + 5n)(1 + r/eps)^n on N(B, eps), n >= 3, any norm.

    R^n is covered by translates of eps B with that density (Rogers 1957); a random shift of that
    cover has at most Vol(B_r + eps B)/Vol(eps B) times the density centres within eps of B_r
    (Rogers and Zong 1997). Cited, not proved here. It saves almost log 2 per dimension. In
    Euclidean space the centres can be projected into the ball.

    Args:
        dim: n, 3 or more.
        radius: r.
        eps: Radius of the covering balls.

    Returns:
        The limit.

    Raises:
        UserError: A value is out of range.
    """
    _require(dim, radius=radius, eps=eps)
    if dim < 3:
        raise UserError("dim", "be 3 or more", got=dim, remedy="use the cover by volumes")

    def log() -> arb:
        return rogers_log_factor(dim) + dim * log_ball(1 + Fraction(radius) / Fraction(eps))

    what = f"balls of radius {eps} that cover one of {radius}"
    return _bound("upper", log, what, source=ROGERS)


def rogers_log_factor(dim: int) -> arb:
    """log(n ln n + n ln ln n + 5n) at the current precision."""
    log = arb(dim).log()
    return (dim * (log + log.log() + 5)).log()


def ellipsoid_covering(*, semi_axes: Sequence[Exact], eps: Exact) -> CoveringBounds:
    """Limits on the number of Euclidean eps-balls that cover {x : sum x_i^2/a_i^2 <= 1}.

    **Lower.** prod over a_i > eps of a_i/eps: project onto these axes; balls stay balls, and
    the volumes give the rest.

    **Upper.** For a set I of axes, the others below eps with largest semi-axis b:
    eta^2 <= eps^2 - b^2 and any lam > 0,
    N <= prod_I sqrt((1 + lam)(2 a_i/eta)^2 + 1 + 1/lam).
    *Proof.* Take a largest set of points of the part in I that are more than eta apart. Each x
    has a part outside I of norm at most b, and its part in I is within eta of a point: within
    eps in all. The balls of radius eta/2 around the points are disjoint and lie in the Minkowski
    sum of an ellipsoid and a ball, whose support function |a u| + (eta/2)|u| is at most the
    root of (1 + lam)|a u|^2 + (1 + 1/lam)(eta/2)^2 |u|^2: that of an ellipsoid with semi-axes
    sqrt((1 + lam) a_i^2 + (1 + 1/lam) eta^2/4). Compare volumes. []
    I and lam are searched in floats; any choice is sound. For equal axes the best lam = eta/(2a)
    gives (1 + 2a/eta)^n. The product of 1 + 2 a_i/eta itself is not proved: a Minkowski sum has
    at least that volume, not at most.

    Args:
        semi_axes: a_1 to a_n.
        eps: Radius of the covering balls.

    Returns:
        The limits.

    Raises:
        UserError: A value is out of range.
    """
    _require(len(semi_axes), eps=eps, **{f"semi_axes {n}": a for n, a in enumerate(semi_axes)})
    axes = sorted((Fraction(axis) for axis in semi_axes), reverse=True)
    what = f"balls of radius {eps} that cover an ellipsoid of {len(axes)} axes"

    def lower() -> arb:
        return sum((log_ball(axis / eps) for axis in axes if axis > eps), arb(0))

    uppers = [
        _bound("upper", _ellipsoid_log(axes[:kept], eta), what, source=_ELLIPSOID)
        for kept, eta in _splits(axes, Fraction(eps))
    ]
    return CoveringBounds(
        lower=_bound("lower", lower, what, source=_ELLIPSOID), upper=tightest(uppers)
    )


def measures_covering(*, dim: int, radius: Exact, eps: Exact, order: Exact) -> LogBound:
    """Upper limit on log N(P(B), W_q, 2 eps), for the probability measures on the r-ball of R^d.

    Proposition 3.5, (1 + 2r/eps)^d log(e + e (2r)^q/eps^q), with a constant 1/4 more: move all
    mass to an eps-net of B (cost eps), round the weights to multiples of 1/M (cost eps), count the
    weights. Rounding by largest remainders is off by at most N/(4M) in total variation, so that
    (2r/eps)^q may be divided by 4.

    Args:
        dim: d.
        radius: r.
        eps: Half of the radius of the covering W_q-balls.
        order: q, 1 or more.

    Returns:
        The limit, on the logarithm of the logarithm.

    Raises:
        UserError: A value is out of range.
    """
    _require(dim, radius=radius, eps=eps, order=order)
    if order < 1:
        raise UserError("order", "be 1 or more", got=order, remedy="W_q is a distance for q >= 1")
    power = Fraction(order)

    def log() -> arb:
        ratio = log_ball(2 * Fraction(radius) / Fraction(eps))
        moved = ratio * power.numerator / power.denominator - log_ball(4)
        return dim * ratio.exp().log1p() + (1 + moved.exp().log1p()).log()

    return _bound(
        "upper",
        log,
        f"log of the number of W_q-balls of radius {2 * eps} that cover the measures",
        source=Source(
            reference="nguyen2013", statement="Lemma 4(b), constant 1/4", form="proved here"
        ),
    )


def paired_measures(*, dim: int, radius: Exact, eps: Exact) -> LogBound:
    """Lower limit floor(x/2)/8 on log P(P(B), W_q, 3 eps), x = (r/(12 eps))^d, for every q.

    *Proof.* Take x points more than 12 eps apart and pair them; a binary code on the n =
    floor(x/2) pairs with distances at least n/4 has e^(n/8) words (Gilbert and Hoeffding); words
    give uniform measures, of which a quarter of the mass must move more than 12 eps:
    W_q >= W_1 > 3 eps. []

    Args:
        dim: d.
        radius: r.
        eps: A third of the distance that pairs of measures exceed.

    Returns:
        The limit.

    Raises:
        UserError: A value is out of range.
    """
    _require(dim, radius=radius, eps=eps)
    ratio = Fraction(radius) / (12 * Fraction(eps))
    if ratio**dim < 2:
        raise UserError(
            "eps", "be at most r / (12 * 2^(1/d))", got=eps, remedy="no two points are that far"
        )
    with working_precision(max(256, 2 * dim * (ratio.numerator.bit_length() + 1))):
        log = arb(int(ratio**dim / 2)) / 8
    return LogBound(
        direction="lower",
        log=log,
        quantity=f"measures on the ball with pairwise W_q above {3 * eps}",
        source=Source(
            reference="promptlimits", statement="paired points, binary code", form="proved here"
        ),
    )


def greedy_packing(points: NDArray[np.float64], eps: float) -> list[int]:
    """Points of a finite set, taken in order, each more than eps from those taken before.

    The result is also an eps-net of the set. Costs (number of points) x (number taken).

    Args:
        points: Of shape (N, d).
        eps: The distance to exceed.

    Returns:
        Their rows.
    """
    import numpy as np

    taken: list[int] = []
    for row, point in enumerate(points):
        gaps = np.linalg.norm(points[taken] - point, axis=1)
        if not taken or gaps.min() > eps:
            taken.append(row)
    return taken


def _splits(axes: list[Fraction], eps: Fraction) -> list[tuple[int, Fraction]]:
    """How many axes to keep and which eta that leaves, for each useful number."""
    found = []
    for kept in {
        *range(min(12, len(axes) + 1)),
        *range(0, len(axes), len(axes) // 12 + 1),
        len(axes),
    }:
        rest = axes[kept] if kept < len(axes) else Fraction(0)
        if rest > eps or (rest == eps and kept):
            continue
        room = eps**2 - rest**2
        if kept == 0 or room:
            found.append((kept, eps if not rest else _root_below(room)))
    return found


def _root_below(value: Fraction) -> Fraction:
    """The root of a number of any size, rounded down to some 54 bits."""
    if not value:
        return value
    size = value.numerator.bit_length() - value.denominator.bit_length()
    scale = Fraction(2) ** (54 - size // 2)
    return math.isqrt(int(value * scale**2)) / scale


def _ellipsoid_log(axes: list[Fraction], eta: Fraction) -> Callable[[], arb]:
    ratios = [2 * axis / eta for axis in axes]
    squares = [2 * (math.log(x.numerator) - math.log(x.denominator)) for x in ratios]

    def half_sum(lam: float) -> float:
        return sum(_log_add(math.log1p(lam) + s, math.log1p(1 / lam)) for s in squares)

    lam = Fraction(min((2.0 ** (power / 4) for power in range(-120, 41)), key=half_sum))

    def log() -> arb:
        terms = ((1 + lam) * x**2 + 1 + 1 / lam for x in ratios)
        return sum((log_ball(term) for term in terms), arb(0)) / 2

    return log


def _log_add(first: float, second: float) -> float:
    """log(e^first + e^second)."""
    return max(first, second) + math.log1p(math.exp(-abs(first - second)))


def _ball(dim: int, radius: Exact, eps: Exact, what: str, *, one_from: int = 1) -> CoveringBounds:
    _require(dim, radius=radius, eps=eps)
    ratio = Fraction(radius) / Fraction(eps)
    least, most = max(ratio, Fraction(1)), 1 + 2 * ratio if ratio * one_from > 1 else Fraction(1)
    return CoveringBounds(
        lower=_bound("lower", lambda: dim * log_ball(least), what),
        upper=_bound("upper", lambda: dim * log_ball(most), what),
    )


def _bound(
    direction: str, log: Callable[[], arb], quantity: str, *, source: Source = PROPOSITION_3_4
) -> LogBound:
    with working_precision(_BITS):
        ball = log()
    return LogBound(
        direction="upper" if direction == "upper" else "lower",
        log=ball,
        quantity=quantity,
        source=source,
    )


def _require(dim: int, **sizes: Exact) -> None:
    require_positive_int("dim", dim)
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int | Fraction):
            raise TypeError(f"{name} must be an int or a Fraction, got {value!r}")
        if value <= 0:
            raise UserError(name, "be above 0", got=shown(value), remedy="give a positive number")
