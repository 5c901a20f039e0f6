"""How many small balls cover a set, and how many points far apart fit into it.

Definitions 3.1 and 3.2 of the paper. N(K, eps): the least number of closed eps-balls, centred in
K, that cover K. P(K, eps): the most points of K with pairwise distances above eps.

*Where we differ from the paper.* (1) Its Definition 3.2 writes M, its Lemma 3.3 P, for packing:
here P. (2) It calls "disjoint open balls of radius eps/2" equivalent: those give distances of at
least eps, not above it, and only in normed spaces. Strictly separated points are meant here.
(3) Centres lie in K; from a cover with other centres of a convex set in Euclidean space one gets
such a cover by projecting the centres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from flint import arb

from promptlimits.base.bound import Exact, LogBound, Source, log_ball, tightest, working_precision
from promptlimits.base.checks import require_positive_int
from promptlimits.base.errors import UserError
from promptlimits.theory.prompt_setting import require_exact_positive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

_BITS: Final = 192
PROPOSITION_3_4: Final = Source(
    reference="vershynin2025", statement="Proposition 4.2.10", form="as published"
)
LEMMA_3_3: Final = Source(reference="vershynin2025", statement="Lemma 4.2.8", form="as published")
ROGERS: Final = Source(
    reference="rogers1957",
    statement="covering density at most n ln n + n ln ln n + 5 n, n >= 3",
    form="as published",
)
_ELLIPSOID: Final = Source(
    reference="promptlimits",
    statement="ellipsoid covering (promptlimits.theory.covering)",
    form="proved here",
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
    one ball does. Tight up to the factor (2 + eps/r)^n.
    """
    return _ball(dim, radius, eps, f"balls of radius {eps} that cover one of {radius}")


def ball_packing(*, dim: int, radius: Exact, eps: Exact) -> CoveringBounds:
    """Limits on P(B, eps) for the r-ball B of any norm on R^n: the same as for N(B, eps).

    N(B, eps) <= P(B, eps) (Lemma 3.3) gives the lower one, Proposition 3.4 the upper one. For
    eps >= 2r there is one point; between r and 2r only the lower limit is 1.
    """
    what = f"points more than {eps} apart in a ball of radius {radius}"
    return _ball(dim, radius, eps, what, one_from=2)


def token_balls_covering(*, tokens: int, dim: int, radius: Exact, eps: Exact) -> CoveringBounds:
    """Limits on N for m tokens of R^d, each of norm at most r, in the largest-token norm.

    The set is the r-ball of that norm on R^(d m), so `ball_covering` with n = d m applies.
    """
    require_positive_int("tokens", tokens)
    require_positive_int("dim", dim)
    return ball_covering(dim=dim * tokens, radius=radius, eps=eps)


def covering_from_packing(packing: LogBound, *, eps: Exact) -> LogBound:
    """Lemma 3.3, right half: N(K, eps) <= P(K, eps), with an upper limit on P.

    A largest set of points more than eps apart is an eps-net: any other point could be added.
    """
    return _carried(packing, "upper", f"balls of radius {eps} that cover the set")


def packing_from_covering(covering: LogBound, *, eps: Exact) -> LogBound:
    """Lemma 3.3, left half: P(K, 2 eps) <= N(K, eps), with an upper limit on N.

    Two points more than 2 eps apart do not share a closed ball of radius eps.
    """
    return _carried(covering, "upper", f"points of the set more than {2 * eps} apart")


def volume_covering(
    *, dim: int, eps: Exact, volume_ratio: Exact, enlarged_ratio: Exact
) -> CoveringBounds:
    """Proposition 3.4 for any K in R^n: volumes on both sides.

    Vol(K)/Vol(eps B) <= N <= P <= Vol(K + (eps/2) B)/Vol((eps/2) B).
    """
    require_positive_int("dim", dim)
    for name, value in (("eps", eps), ("volume", volume_ratio), ("volume", enlarged_ratio)):
        require_exact_positive(name, value)
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
    require_rogers_dim(dim)
    require_exact_positive("radius", radius)
    require_exact_positive("eps", eps)

    def log() -> arb:
        return rogers_log_factor(dim) + dim * log_ball(1 + Fraction(radius) / Fraction(eps))

    what = f"balls of radius {eps} that cover one of {radius}"
    return _bound("upper", log, what, source=ROGERS)


def require_rogers_dim(dim: int) -> None:
    """Refuse dimensions for which Rogers' density is not proved."""
    if require_positive_int("dim", dim) < 3:
        raise UserError("dim", "be 3 or more", got=dim, remedy="use the cover by volumes")


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
    """
    require_positive_int("number of semi-axes", len(semi_axes))
    for axis in semi_axes:
        require_exact_positive("semi-axis", axis)
    require_exact_positive("eps", eps)
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

    best = min((2.0 ** (power / 4) for power in range(-120, 41)), key=half_sum)
    lam = Fraction(best)

    def log() -> arb:
        terms = ((1 + lam) * x**2 + 1 + 1 / lam for x in ratios)
        return sum((log_ball(term) for term in terms), arb(0)) / 2

    return log


def _log_add(first: float, second: float) -> float:
    """log(e^first + e^second)."""
    return max(first, second) + math.log1p(math.exp(-abs(first - second)))


def greedy_packing(points: NDArray[np.float64], eps: float) -> list[int]:
    """Points of a finite set, taken in order, each more than eps from those taken before.

    The result is also an eps-net of the set. Costs (number of points) x (number taken).
    """
    import numpy as np

    taken: list[int] = []
    for row, point in enumerate(points):
        gaps = np.linalg.norm(points[taken] - point, axis=1)
        if not taken or gaps.min() > eps:
            taken.append(row)
    return taken


def is_net(points: NDArray[np.float64], centres: NDArray[np.float64], eps: float) -> bool:
    """Whether each point lies within eps of a centre."""
    import numpy as np

    gaps = np.linalg.norm(points[:, None, :] - centres[None, :, :], axis=2)
    return bool((gaps.min(axis=1) <= eps).all())


def _ball(dim: int, radius: Exact, eps: Exact, what: str, *, one_from: int = 1) -> CoveringBounds:
    require_positive_int("dim", dim)
    require_exact_positive("radius", radius)
    require_exact_positive("eps", eps)
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


def _carried(bound: LogBound, direction: str, quantity: str) -> LogBound:
    if bound.direction != direction:
        raise ValueError(
            f"Lemma 3.3 carries an {direction} limit here, got a {bound.direction} one"
        )
    return LogBound(
        direction=bound.direction,
        log=bound.log,
        quantity=quantity,
        source=LEMMA_3_3,
        assumptions=bound.assumptions,
        factors=(bound,),
    )
