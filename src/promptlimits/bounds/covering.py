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
false for small r, as it does not scale with r, while log N <= c_d (2r/eps)^d. In its stead stand
`BallCovering.paired_measures` and the stronger Lemma C_out of Theorem 2a (`context.measures`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Final

from flint import arb
from pydantic import Field

from promptlimits.base.bound import Direction, LogBound, Source, log_ball, tightest
from promptlimits.base.errors import UserError
from promptlimits.base.exact import ball as ball_of
from promptlimits.base.exact import exact, shown, working_precision
from promptlimits.bounds.core import Inputs, Positive, Size

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


class BallCovering(Inputs):
    """The r-ball B of any norm on R^n, and balls of radius eps.

    Matrices of m tokens of norm at most r are the r-ball of the largest-token norm, n = d m.

    Attributes:
        dim: n.
        radius: r.
        eps: Radius of the covering balls, or the distance that pairs of points exceed.
    """

    dim: Size
    radius: Positive
    eps: Positive

    def covering(self) -> CoveringBounds:
        """Limits (r/eps)^n and (1 + 2r/eps)^n on N(B, eps).

        By Proposition 3.4 with K = B: volumes in any norm scale with the n-th power. For eps >= r
        one ball does. Tight up to the factor (2 + eps/r)^n.
        """
        what = f"balls of radius {self.eps} that cover one of {self.radius}"
        return self._limits(what, one_from=1)

    def packing(self) -> CoveringBounds:
        """Limits on P(B, eps): the same as for N(B, eps).

        N(B, eps) <= P(B, eps) (Lemma 3.3) gives the lower one, Proposition 3.4 the upper one. For
        eps >= 2r there is one point; between r and 2r only the lower limit is 1.
        """
        what = f"points more than {self.eps} apart in a ball of radius {self.radius}"
        return self._limits(what, one_from=2)

    def rogers(self) -> LogBound:
        """Upper limit (n ln n + n ln ln n + 5n)(1 + r/eps)^n on N(B, eps), n >= 3.

        R^n is covered by translates of eps B with that density (Rogers 1957); a random shift of
        that cover has at most Vol(B_r + eps B)/Vol(eps B) times the density centres within eps of
        B_r (Rogers and Zong 1997). Cited, not proved here. It saves almost log 2 per dimension. In
        Euclidean space the centres can be projected into the ball.
        """
        if self.dim < 3:
            raise UserError("dim", "be 3 or more", got=self.dim, remedy="use covering()")
        return _bound(
            "upper",
            lambda: rogers_log_factor(self.dim) + self.dim * log_ball(1 + self.radius / self.eps),
            f"balls of radius {self.eps} that cover one of {self.radius}",
            ROGERS,
        )

    def measures_covering(self, *, order: Fraction | int | str = 2) -> LogBound:
        """Upper limit on log N(P(B), W_q, 2 eps), for the probability measures on B.

        Proposition 3.5, (1 + 2r/eps)^d log(e + e (2r)^q/eps^q), with a constant 1/4 more: move all
        mass to an eps-net of B (cost eps), round the weights to multiples of 1/M (cost eps), count
        the weights. Rounding by largest remainders is off by at most N/(4M) in total variation, so
        that (2r/eps)^q may be divided by 4.

        Args:
            order: q, 1 or more.

        Returns:
            The limit, on the logarithm of the logarithm.

        Raises:
            UserError: The order is below 1.
        """
        power = exact(order)
        if power < 1:
            raise UserError(
                "order", "be 1 or more", got=shown(power), remedy="W_q is a distance for q >= 1"
            )

        def log() -> arb:
            ratio = log_ball(2 * self.radius / self.eps)
            moved = ball_of(power) * ratio - log_ball(4)
            return self.dim * ratio.exp().log1p() + (1 + moved.exp().log1p()).log()

        return _bound(
            "upper",
            log,
            f"log of the number of W_q-balls of radius {2 * self.eps} that cover the measures",
            Source(
                reference="nguyen2013", statement="Lemma 4(b), constant 1/4", form="proved here"
            ),
        )

    def paired_measures(self) -> LogBound:
        """Lower limit floor(x/2)/8 on log P(P(B), W_q, 3 eps), x = (r/(12 eps))^d, for every q.

        *Proof.* Take x points more than 12 eps apart and pair them; a binary code on the n =
        floor(x/2) pairs with distances at least n/4 has e^(n/8) words (Gilbert and Hoeffding);
        words give uniform measures, of which a quarter of the mass must move more than 12 eps:
        W_q >= W_1 > 3 eps. []
        """
        ratio = self.radius / (12 * self.eps)
        if ratio**self.dim < 2:
            raise UserError(
                "eps",
                "be at most r / (12 * 2^(1/d))",
                got=shown(self.eps),
                remedy="no two points are that far apart",
            )
        with working_precision(max(256, 2 * self.dim * (ratio.numerator.bit_length() + 1))):
            log = arb(int(ratio**self.dim / 2)) / 8
        return LogBound(
            direction="lower",
            log=log,
            quantity=f"measures on the ball with pairwise W_q above {3 * self.eps}",
            source=Source(
                reference="promptlimits", statement="paired points, binary code", form="proved here"
            ),
        )

    def _limits(self, what: str, *, one_from: int) -> CoveringBounds:
        ratio = self.radius / self.eps
        most = 1 + 2 * ratio if ratio * one_from > 1 else Fraction(1)
        return CoveringBounds(
            lower=_bound("lower", lambda: self.dim * log_ball(max(ratio, Fraction(1))), what),
            upper=_bound("upper", lambda: self.dim * log_ball(most), what),
        )


class VolumeCovering(Inputs):
    """Any K in R^n whose volume is known, as multiples of that of the unit ball B.

    Attributes:
        dim: n.
        eps: Radius of the covering balls.
        volume_ratio: Vol(K)/Vol(B).
        enlarged_ratio: Vol(K + (eps/2) B)/Vol(B).
    """

    dim: Size
    eps: Positive
    volume_ratio: Positive
    enlarged_ratio: Positive

    def covering(self) -> CoveringBounds:
        """Proposition 3.4: Vol(K)/Vol(eps B) <= N <= P <= Vol(K + (eps/2) B)/Vol((eps/2) B)."""
        what = f"balls of radius {self.eps} that cover the set"

        def lower() -> arb:
            return (log_ball(self.volume_ratio) - self.dim * log_ball(self.eps)).max(arb(0))

        def upper() -> arb:
            return log_ball(self.enlarged_ratio) - self.dim * log_ball(self.eps / 2)

        return CoveringBounds(
            lower=_bound("lower", lower, what), upper=_bound("upper", upper, what)
        )


class EllipsoidCovering(Inputs):
    """An ellipsoid {x : sum x_i^2/a_i^2 <= 1}, and Euclidean balls of radius eps.

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

    Attributes:
        semi_axes: a_1 to a_n.
        eps: Radius of the covering balls.
    """

    semi_axes: Annotated[tuple[Positive, ...], Field(min_length=1)]
    eps: Positive

    def covering(self) -> CoveringBounds:
        """Limits on N."""
        axes, eps = sorted(self.semi_axes, reverse=True), self.eps
        what = f"balls of radius {eps} that cover an ellipsoid of {len(axes)} axes"

        def lower() -> arb:
            return sum((log_ball(axis / eps) for axis in axes if axis > eps), arb(0))

        uppers = [
            _bound("upper", _ellipsoid_log(axes[:kept], eta), what, _ELLIPSOID)
            for kept, eta in _splits(axes, eps)
        ]
        return CoveringBounds(
            lower=_bound("lower", lower, what, _ELLIPSOID), upper=tightest(uppers)
        )


def rogers_log_factor(dim: int) -> arb:
    """log(n ln n + n ln ln n + 5n) at the current precision."""
    log = arb(dim).log()
    return (dim * (log + log.log() + 5)).log()


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


def _bound(
    direction: Direction,
    log: Callable[[], arb],
    quantity: str,
    source: Source = PROPOSITION_3_4,
) -> LogBound:
    with working_precision(_BITS):
        found = log()
    return LogBound(direction=direction, log=found, quantity=quantity, source=source)
