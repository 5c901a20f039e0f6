"""How many measures on a ball are far apart, or serve as a net, in the distance W_q.

Theta = B^d(0, r), P(Theta) its probability measures, 1 <= q < oo. Numbers here are so large that
their logarithms are bounded as quantities of their own: "log N" is limited, by its logarithm.

Propositions 3.5 and 3.6 of the paper, and what stands in for 3.6, of which the constant is not
known: `measure_family` (Lemma C_out) and, simpler and weaker, `paired_family`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, TypeAlias

from flint import arb

from promptlimits.base.bound import Assumption, Exact, LogBound, Source, log_ball, working_precision
from promptlimits.base.checks import require_positive_int
from promptlimits.base.errors import UserError
from promptlimits.theory.covering import require_rogers_dim, rogers_log_factor
from promptlimits.theory.grid_logs import grid_upper
from promptlimits.theory.prompt_setting import require_exact_positive

Cover: TypeAlias = Literal["volume", "rogers"]

C_OUT: Final = Source(
    reference="promptlimits",
    statement="Lemma C_out, words of one point per block (promptlimits.theory.wasserstein)",
    form="proved here",
)
C_IN: Final = Source(
    reference="promptlimits",
    statement="Lemma C_in, net for contexts of every length (promptlimits.theory.wasserstein)",
    form="proved here",
)
_SMALL_BITS: Final = 64
"""Up to 2^64 points the blocks are counted exactly."""


@dataclass(frozen=True, kw_only=True)
class MeasureFamily:
    """Many measures of which few are near any one measure (Lemma C_out).

    Attributes:
        log_nats: Lower limit on H, where at most e^-H of the family lies within `ball` of any
            measure; the family has at least e^H members.
        ball: The W_q radius rho.
        alphabet: A, points per block.
        theta: Share of the blocks that may go astray.
        list_size: kappa, how many points of the packing may be near one place.
        blocks: n, if it is below 2^64 / A, else None (then only its logarithm is limited).
    """

    log_nats: LogBound
    ball: Fraction
    alphabet: int
    theta: Fraction
    list_size: int
    blocks: int | None


def nguyen_cover(*, dim: int, radius: Exact, eps: Exact, order: Exact, improved: bool) -> LogBound:
    """Proposition 3.5: log N(P(Theta), W_q, 2 eps) <= N(Theta, eps) log(e + e (2r)^q/eps^q).

    Move all mass to an eps-net of Theta (cost eps), round the weights to multiples of 1/M (cost
    eps), count the weights. Rounding by largest remainders is off by at most N/(4M) in total
    variation, so that (2r/eps)^q may be divided by 4 (`improved`). N <= (1 + 2r/eps)^d.
    """
    require_measures(dim, radius, order)
    require_exact_positive("eps", eps)

    def log() -> arb:
        ratio = log_ball(2 * Fraction(radius) / Fraction(eps))
        weights = 1 + (order_of(order) * ratio - log_ball(4 if improved else 1)).exp().log1p()
        return dim * ratio.exp().log1p() + weights.log()

    return LogBound(
        direction="upper",
        log=grid_upper(log),
        quantity=f"log of the number of W_q-balls of radius {2 * eps} that cover the measures",
        source=Source(
            reference="nguyen2013",
            statement="Lemma 4(b)" + (", constant 1/4" if improved else ""),
            form="proved here" if improved else "as published",
        ),
    )


def kloeckner_cover_as_published(*, dim: int, eps: Exact, constant: Exact = 1) -> LogBound:
    """Proposition 3.6 AS PUBLISHED: N(G, W_q, eps) >= (1/C) exp(1/eps^d). Not a theorem.

    With C allowed to depend on eps it says nothing (void). With C independent of eps it is false
    for small r: it does not scale with r, while log N <= c_d (2r/eps)^d, so that it fails as
    eps -> 0 for every C once c_d (2r)^d < 1. Its proof has only exponents below d. Use
    `measure_family` instead.
    """
    require_positive_int("dim", dim)
    require_exact_positive("eps", eps)
    require_exact_positive("C", constant)
    with working_precision(256):
        log = (-dim * log_ball(eps)).exp() - log_ball(constant)
    return LogBound(
        direction="lower",
        log=log,
        quantity=f"W_q-balls of radius {eps} that cover the measures, as published",
        source=Source(reference="meyer2025", statement="Proposition 3.6", form="as published"),
        assumptions=(
            Assumption(
                text=f"The constant C of Proposition 3.6 is {constant} for every eps and r; "
                "the paper does not give it, and no constant works for small r.",
                holds=False,
            ),
        ),
    )


def paired_family(*, dim: int, radius: Exact, eps: Exact) -> LogBound:
    """Explicit packing without free parameters: log P(P(Theta), W_q, 3 eps) >= floor(x/2)/8.

    x = (r/(12 eps))^d. *Proof.* Take x points more than 12 eps apart and pair them; a binary
    code on the n = floor(x/2) pairs with distances at least n/4 has e^(n/8) words (Gilbert and
    Hoeffding); words give uniform measures, of which a quarter of the mass must move more than
    12 eps: W_q >= W_1 > 3 eps. [] Weaker than `measure_family`.
    """
    require_positive_int("dim", dim)
    require_exact_positive("radius", radius)
    require_exact_positive("eps", eps)
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


def measure_family(
    *,
    dim: int,
    radius: Exact,
    ball: Exact,
    order: Exact,
    alphabet: int,
    theta: Fraction,
    list_size: int = 1,
) -> MeasureFamily:
    """Lemma C_out, with lists: measures of which at most e^-H lie within rho of any one.

    **Statement.** t = rho theta^(-1/q), s = t sqrt(2 (kappa + 1)/kappa) <= r,
    N = ceil((r/s)^d), n = floor(N/A), 1 - theta > kappa/A. There are N points of Theta with
    pairwise distances above s; cut n A of them into n blocks of A. The family: uniform measures
    mu_c on one point of each block, c in [A]^n. For every probability measure nu at most
    A^n e^-H words c have W_q(mu_c, nu) <= rho, with
    H = n [(1 - theta) log((1 - theta) A/kappa) + theta log(theta A/(A - kappa))].
    *Proof.* Points: a largest s-separated set is an s-net, hence (r/s)^d of them. Let
    W_q(mu_c, nu) <= rho. An optimal coupling moves at most theta of the mass by t or more. So
    sum over blocks of p_(c_i) >= (1 - theta) n, where p_x = min(1, n nu(open t-ball at x)).
    A place y has at most kappa of the points within less than t: of kappa + 1 vectors z_j of
    norm < t two are at most t sqrt(2 (kappa + 1)/kappa) = s apart, because
    sum_(i<j) |z_i - z_j|^2 = (kappa + 1) sum |z_j|^2 - |sum z_j|^2. So sum_x p_x <= kappa n.
    For lam > 0 the share of such c is at most
    e^(-lam (1 - theta) n) prod_i (1/A) sum_(x in block i) e^(lam p_x), by convexity
    e^(lam p) <= 1 + p (e^lam - 1), and by the two means at most
    [e^(-lam (1 - theta)) (1 + (e^lam - 1) kappa/A)]^n; its least value over lam is e^-H. []

    **Codes.** For kappa = 1, s = 2 rho theta^(-1/q) and H is that of Gilbert's bound: there is a
    subset of e^H words with Hamming distances of at least theta n, so that W_q exceeds 2 rho
    between any two: a share theta of the mass must move more than s.

    **Where we differ** from corrected.md: kappa > 1 is new. It takes points closer by up to
    sqrt 2, which gains about 2^(d/2) 2/(e d) (kappa = d/2).
    """
    require_measures(dim, radius, order)
    require_exact_positive("ball", ball)
    require_positive_int("list_size", list_size)
    theta = Fraction(theta)
    if not 0 < theta < 1 - Fraction(list_size, require_positive_int("alphabet", alphabet)):
        raise UserError(
            "theta", "lie between 0 and 1 - kappa/A", got=theta, remedy="take a smaller one"
        )

    def log_points() -> arb:
        spacing = log_ball(2 + Fraction(2, list_size)) / 2 - log_ball(theta) / order_of(order)
        return dim * (log_ball(Fraction(radius) / Fraction(ball)) - spacing)

    blocks = _blocks(log_points, alphabet)
    kept = 1 - theta

    def log_nats() -> arb:
        rate = _times(kept, log_ball(kept * alphabet / list_size)) + _times(
            theta, log_ball(theta * alphabet / (alphabet - list_size))
        )
        if blocks is not None:
            return log_ball(blocks) + rate.log()
        log = log_points()
        return log + (-(alphabet - 1) * (-log).exp()).log1p() - log_ball(alphabet) + rate.log()

    return MeasureFamily(
        log_nats=LogBound(
            direction="lower",
            log=_grid_lower(log_nats),
            quantity="nats by which a ball misses the family (H)",
            source=C_OUT,
            # n is a whole number, which (r/s)^d is not: recorded, it ties the certificate to r, s.
            factors=(
                LogBound(
                    direction="lower",
                    log=_grid_lower(log_points),
                    quantity="points of the ball that far apart, (r/s)^d",
                    source=C_OUT,
                ),
            ),
        ),
        ball=Fraction(ball),
        alphabet=alphabet,
        theta=theta,
        list_size=list_size,
        blocks=blocks,
    )


def context_cover(
    *,
    dim: int,
    radius: Exact,
    reach: Exact,
    log_lipschitz: Callable[[], arb],
    order: Exact,
    share: Fraction,
    cover: Cover = "volume",
) -> LogBound:
    """Lemma C_in: a net for the contexts of prompts of every length.

    **Statement.** Let e0 + ew = delta/L. There are C_in tuples of measures on Theta such that
    for each prompt, of any length m_p >= 0 with tokens in Theta, the k measures M([P, X^i]) are
    within delta/L of one tuple in W_q: log C_in <= (1 + D) log(e (1 + (2r/ew)^q/4)),
    D >= N(Theta, e0).
    *Proof.* M([P, X^i]) = alpha mu + (1 - alpha) M(X^i) with alpha = m_p/(m_p + m) the same for
    all i. Move mu to the D centres, at a cost of at most e0. What remains is one vector of
    weights on D + 1 symbols (the centres, and "X^i"), the same for all i. Largest remainders
    round it to multiples of 1/M: m of the D + 1 parts are rounded up, off by at most
    m (D + 1 - m)/((D + 1) M) <= (D + 1)/(4M) in total variation. With tau = (ew/2r)^q and
    M = ceil((D + 1)/(4 tau)) mass tau moves by at most 2r: cost ew. The vectors number
    C(M + D, D) <= (e (M + D)/D)^D <= (e (1 + 1/(4 tau)))^(D + 1). []
    """
    require_measures(dim, radius, order)
    require_exact_positive("reach", reach)
    if not 0 < share < 1:
        raise UserError("share", "lie between 0 and 1", got=share, remedy="take 1/2")
    if cover == "rogers":
        require_rogers_dim(dim)
    diameter = 2 * Fraction(radius) / Fraction(reach)

    def log() -> arb:
        ratio = log_lipschitz() + log_ball(diameter / share)
        if cover == "rogers":
            centres = rogers_log_factor(dim) + dim * (ratio - log_ball(2)).exp().log1p()
        else:
            centres = dim * ratio.exp().log1p()
        moved = order_of(order) * (log_lipschitz() + log_ball(diameter / (1 - share)))
        weights = 1 + (moved - log_ball(4)).exp().log1p()
        return centres + (-centres).exp().log1p() + weights.log()

    return LogBound(
        direction="upper",
        log=grid_upper(log),
        quantity="nats that tell contexts of all lengths apart (log C_in)",
        source=C_IN,
    )


def require_measures(dim: int, radius: Exact, order: Exact) -> None:
    """Refuse a dimension, a radius or an order that is out of range."""
    require_positive_int("dim", dim)
    require_exact_positive("radius", radius)
    if require_exact_positive("order", order) < 1:
        raise UserError("order", "be 1 or more", got=order, remedy="W_q is a distance for q >= 1")


def order_of(order: Exact) -> arb:
    """q as a ball, at the current precision."""
    return _times(Fraction(order), arb(1))


def _grid_lower(evaluate: Callable[[], arb]) -> arb:
    """The greatest grid point at or below a real number; exact, at any precision around it."""
    point = grid_upper(lambda: -evaluate())
    mantissa, exponent = (int(part) for part in point.man_exp())
    return arb((-mantissa, exponent))


def _times(factor: Fraction, ball: arb) -> arb:
    return ball * factor.numerator / factor.denominator


def _blocks(log_points: Callable[[], arb], alphabet: int) -> int | None:
    """floor(ceil(x)/A) if x is below 2^64, else None."""
    with working_precision(256):
        log = log_points()
        if not log > 0:
            raise UserError(
                "the ball",
                "be small enough for points that far apart",
                got="one as large as the radius",
                remedy="take a smaller eps or delta",
            )
        if log > _SMALL_BITS * arb(2).log():
            return None
        mantissa, exponent = (int(part) for part in log.exp().lower().man_exp())
        least = math.ceil(mantissa * Fraction(2) ** exponent)
    if least < alphabet:
        raise UserError(
            "alphabet", f"be at most {least}", got=alphabet, remedy="so many points fit"
        )
    return least // alphabet
