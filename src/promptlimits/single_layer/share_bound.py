"""What share of all targets prompts of any length come near, for tokens of bounded length.

**Statement** (Theorem 4' of this package's errata to [@meyer2025]). k queries with one last
token, heads of value rank r_i, prompt tokens |p| <= rho, and also |a_j^i| <= omega_i :=
||V_i|| rho, as when the queries' tokens obey |x| <= rho. Let kappa_i = max_j Z_j^i / min_j Z_j^i
and Lam a Lipschitz constant of the MLP, residual included. Of all tuples (y_1, .., y_k) in a
product of k balls of radius r, the share within eps of the answers of some prompt of any length
(each answer within eps) is, for every delta > 0, at most

    prod_i (1 + 4 h Lam omega_i/delta)^(r_i) max(1, ceil(2 h Lam omega_i kappa_i/delta))
    x ((eps + delta)/r)^(d k).

**Proof.** The answers are a function of the A^i, in a ball of radius omega_i of the range of V_i,
and of v_i = Z_min^i/(Z_min^i + Z^i) in [0, 1] (1 for no prompt). A moved by delta/(2 h Lam)
moves u_j by no more per head. With rho_j = Z_j/Z_min, lambda_j = rho_j v/(1 + v (rho_j - 1)) has
slope rho_j/(1 + v (rho_j - 1))^2 <= kappa_i in v, and |a - A| <= 2 omega_i: so v moved by
delta/(4 h Lam omega_i kappa_i) does as much. A maximal packing is a net of
(1 + 2 omega/eta)^(r_i) points inside the ball, and intervals of twice that half-length number as
stated. Each point of the product net serves targets in a product of k balls of radius
eps + delta. []

**Where our notes differ.** They lack the max(1, .): with V_i = 0 the product would be 0, while
the one answer that is left serves a share (eps/r)^(dk).

**Capacity.** If kappa_i, omega_i hold for every query there is, the share is below 1 from

    k  >  sum_i [ r_i log(1 + 4 h Lam omega_i/delta) + log ceil(..) ] / (d log(r/(eps + delta)))

on: about R/d pairs, whatever the length of the prompt, and the share falls by the factor
((eps+delta)/r)^d with each further pair.

**Tightness.** The exponent is right: R numbers are what a prompt chooses (`reachable`).
**Cost.** Milliseconds. delta is chosen in floats; any is sound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from flint import arb

from promptlimits._checks import require_positive_int
from promptlimits.bound import (
    PRECISION_BITS,
    Assumption,
    Exact,
    LogBound,
    Source,
    log_ball,
    working_precision,
)
from promptlimits.errors import UserError
from promptlimits.lipschitz.matrix_balls import MatrixBall
from promptlimits.lipschitz.rounding import upper
from promptlimits.lipschitz.spectral import spectral_norm
from promptlimits.single_layer.proved_statistics import proved_statistics
from promptlimits.single_layer.reachable import value_ranks
from promptlimits.single_layer.setting import SharedQuery
from promptlimits.theory.prompt_setting import require_exact_positive

SOURCE: Final = Source(
    reference="promptlimits",
    statement="Theorem 4': share of targets near the answers of one layer, any length",
    form="proved here",
)
_GOLDEN: Final = (math.sqrt(5) - 1) / 2
_STEPS: Final = 60
_NARROWEST: Final = -60.0
"""log(delta/(r - eps)) is searched from here to 0."""


@dataclass(frozen=True, kw_only=True)
class HeadReach:
    """What is known of one head.

    Attributes:
        rank: r_i, rank of V_i, or a limit on it.
        reach: omega_i, an upper limit on |A^i| and on every |a_j^i|; 0 for V_i = 0.
        spread: kappa_i, an upper limit on max_j Z_j^i / min_j Z_j^i; at least 1.

    Raises:
        UserError: A value is out of range.
        TypeError: One is a float.
    """

    rank: int
    reach: Exact
    spread: Exact

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 0:
            raise UserError("the rank", "be 0 or more", got=self.rank, remedy="count V's rank")
        if self.reach != 0:
            require_exact_positive("the reach", self.reach)
        if require_exact_positive("the spread", self.spread) < 1:
            raise UserError(
                "the spread", "be at least 1", got=str(self.spread), remedy="take max over min"
            )


@dataclass(frozen=True, kw_only=True)
class ShareBound:
    """Theorem 4' for given numbers.

    Attributes:
        share: Upper limit on the share of targets; above 1 it says nothing.
        delta: The width of the net.
        capacity: From this number of pairs on the share is below 1, proved at the best width for
            it; valid where the heads' numbers hold for as many queries.
    """

    share: LogBound
    delta: Fraction
    capacity: int


def share_bound(
    heads: Sequence[HeadReach],
    *,
    dim: int,
    pairs: int,
    eps: Exact,
    target_radius: Exact,
    lipschitz: Exact = 1,
) -> ShareBound:
    """Evaluate Theorem 4' at the best delta.

    Args:
        heads: One entry for each head.
        dim: d.
        pairs: k.
        eps: The error allowed in each answer.
        target_radius: r; above eps.
        lipschitz: Lam, of the MLP with its residual.

    Returns:
        The share and the capacity.

    Raises:
        UserError: A value is out of range.
        TypeError: A quantity is a float.
    """
    require_positive_int("the number of heads", len(heads))
    require_positive_int("dim", dim)
    require_positive_int("pairs", pairs)
    values = {"eps": eps, "target_radius": target_radius, "lipschitz": lipschitz}
    for name, value in values.items():
        require_exact_positive(name, value)
    if eps >= target_radius:
        raise UserError(
            "eps",
            "be below the radius of the targets",
            got=str(eps),
            remedy="one answer then serves all",
        )
    room = Fraction(target_radius) - eps
    reaches = [(head.rank, float(4 * len(heads) * lipschitz * head.reach)) for head in heads]
    kappas = [_log(head.spread) for head in heads]

    def net(delta: float) -> float:
        return sum(
            rank * math.log1p(reach / delta)
            + max(0.0, math.log(max(reach, 1e-300) / (2 * delta)) + log_spread)
            for (rank, reach), log_spread in zip(reaches, kappas, strict=True)
        )

    def slope(delta: float) -> float:
        return dim * math.log((float(eps) + delta) / float(target_radius))

    best = _least(lambda delta: net(delta) + pairs * slope(delta), room)
    for_capacity = _least(lambda delta: slope(delta) / (1 + net(delta)), room)
    shown = {"eps": Fraction(eps), "radius": Fraction(target_radius)}
    with working_precision(PRECISION_BITS):
        log_net = _log_net(heads, best, lipschitz)
        log_share = log_net + pairs * dim * log_ball((eps + best) / shown["radius"])
        needed = _log_net(heads, for_capacity, lipschitz) / (
            dim * log_ball(shown["radius"] / (eps + for_capacity))
        )
        capacity = math.floor(upper(needed)) + 1
    return ShareBound(
        share=LogBound(
            direction="upper",
            log=log_share,
            quantity=f"share of lists of {pairs} targets near the answers of some prompt",
            source=SOURCE,
            assumptions=(
                Assumption(text="Prompt tokens are so bounded that |V_i p| <= omega_i."),
                Assumption(text="The queries end with one token, and |a_j^i| <= omega_i."),
            ),
        ),
        delta=best,
        capacity=capacity,
    )


def head_reaches(setting: SharedQuery, prompt_radius: Exact) -> tuple[HeadReach, ...]:
    """The numbers of Theorem 4' for a given layer and queries, each proved.

    Args:
        setting: The layer and its queries; plain, without normalisation or rotary positions.
        prompt_radius: rho, limit on the length of the prompt's tokens.

    Returns:
        One entry for each head.

    Raises:
        UserError: The radius is not above 0.
        ValueError: The setting has a front or rotary positions.
    """
    require_exact_positive("prompt_radius", prompt_radius)
    if setting.front is not None:
        raise ValueError("tokens are bounded before a normalisation, values after it")
    sums = [proved_statistics(setting, query) for query in setting.queries]
    reaches = []
    for place, (head, rank) in enumerate(
        zip(setting.layer.heads, value_ranks(setting.layer), strict=True)
    ):
        value = MatrixBall.exact(head.output) @ MatrixBall.exact(head.value)
        seen = (Fraction(each[place].mean.frobenius_upper()) for each in sums)
        logs = [each[place].log_weight for each in sums]
        with working_precision(PRECISION_BITS):
            spread = max(
                (upper((one - other).exp()) for one in logs for other in logs),
                default=Fraction(1),
            )
        # A head with V = 0 has reach 0 whatever rounding says.
        reach = max(spectral_norm(value) * prompt_radius, *seen) if rank else Fraction(0)
        reaches.append(HeadReach(rank=rank, reach=reach, spread=max(spread, Fraction(1))))
    return tuple(reaches)


def _log(value: Exact) -> float:
    """The logarithm in floats, of numbers of any size."""
    exact = Fraction(value)
    return math.log(exact.numerator) - math.log(exact.denominator)


def _least(value: Callable[[float], float], room: Fraction) -> Fraction:
    """The width where a function with one valley is least, as an exact number below `room`."""
    low, high = _NARROWEST, -1e-9
    grid = [low + (high - low) * i / _STEPS for i in range(_STEPS + 1)]
    heights = [value(float(room) * math.exp(x)) for x in grid]
    place = min(range(len(grid)), key=heights.__getitem__)
    low, high = grid[max(place - 1, 0)], grid[min(place + 1, _STEPS)]
    for _ in range(_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if value(float(room) * math.exp(left)) < value(float(room) * math.exp(right)):
            high = right
        else:
            low = left
    return room * Fraction(min(math.exp((low + high) / 2), 1 - 2.0**-20))


def _log_net(heads: Sequence[HeadReach], delta: Fraction, lipschitz: Exact) -> arb:
    log = arb(0)
    for head in heads:
        scaled = Fraction(len(heads) * lipschitz * head.reach) / delta
        log += head.rank * log_ball(1 + 4 * scaled)
        log += log_ball(max(1, math.ceil(2 * scaled * head.spread)))
    return log
