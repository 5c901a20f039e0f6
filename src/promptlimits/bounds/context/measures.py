"""How many measures on a ball are far apart, and how few serve as a net for contexts, in W_q.

Theta = B^d(0, r), P(Theta) its probability measures, 1 <= q < oo.

**Lemma C_out: many measures of which few lie near any one.** t = rho theta^(-1/q),
s = t sqrt(2 (kappa + 1)/kappa) <= r, N = ceil((r/s)^d), n = floor(N/A), 1 - theta > kappa/A. There
are N points of Theta with pairwise distances above s; cut n A of them into n blocks of A. The
family: uniform measures mu_c on one point of each block, c in [A]^n. For every probability measure
nu at most A^n e^-H words c have W_q(mu_c, nu) <= rho, with
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

kappa > 1 takes points closer by up to sqrt 2, which gains about 2^(d/2) 2/(e d) (kappa = d/2).

**Lemma C_in: a net for the contexts of prompts of every length.** Let e0 + ew = delta/L. There
are C_in tuples of measures on Theta such that for each prompt, of any length m_p >= 0 with tokens
in Theta, the k measures M([P, X^i]) are within delta/L of one tuple in W_q:
log C_in <= (1 + D) log(e (1 + (2r/ew)^q/4)), D >= N(Theta, e0).
*Proof.* M([P, X^i]) = alpha mu + (1 - alpha) M(X^i) with alpha = m_p/(m_p + m) the same for
all i. Move mu to the D centres, at a cost of at most e0. What remains is one vector of
weights on D + 1 symbols (the centres, and "X^i"), the same for all i. Largest remainders
round it to multiples of 1/M: m of the D + 1 parts are rounded up, off by at most
m (D + 1 - m)/((D + 1) M) <= (D + 1)/(4M) in total variation. With tau = (ew/2r)^q and
M = ceil((D + 1)/(4 tau)) mass tau moves by at most 2r: cost ew. The vectors number
C(M + D, D) <= (e (M + D)/D)^D <= (e (1 + 1/(4 tau)))^(D + 1). []
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Final, Literal, TypeAlias

from flint import arb

from promptlimits.base.errors import UserError
from promptlimits.base.exact import ball, is_negative, largest, log, log1p_exp, shown
from promptlimits.bounds.covering import rogers_log_factor

Cover: TypeAlias = Literal["volume", "rogers"]

_COUNTED: Final = 64
"""Blocks are counted up to 2^64 points; beyond, only the logarithm of their number is limited."""


@dataclass(frozen=True, kw_only=True)
class MeasureFamily:
    """Lemma C_out: d dim, r radius, rho ball, q order, A alphabet, kappa list_size."""

    dim: int
    radius: Fraction
    ball: Fraction
    order: Fraction
    alphabet: int
    theta: Fraction
    list_size: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.theta < 1 - Fraction(self.list_size, self.alphabet):
            raise UserError(
                "theta",
                "lie between 0 and 1 - kappa/A",
                got=shown(self.theta),
                remedy="take less of it",
            )
        if not is_negative(lambda: -self.log_points()):
            raise UserError(
                "the ball",
                "be small enough for points that far apart",
                got="one as large as the radius",
                remedy="take a smaller eps or delta",
            )
        if self.blocks == 0:
            raise UserError(
                "alphabet",
                f"be at most {self._points()}",
                got=self.alphabet,
                remedy="so many points fit",
            )

    def log_points(self) -> arb:
        """log (r/s)^d."""
        spacing = log(2 + Fraction(2, self.list_size)) / 2 - log(self.theta) / ball(self.order)
        return self.dim * (log(self.radius / self.ball) - spacing)

    @cached_property
    def blocks(self) -> int | None:
        """n = floor(N/A), or None for more than 2^64 points."""
        if is_negative(lambda: _COUNTED * log(2) - self.log_points()):
            return None
        return self._points() // self.alphabet

    def log_nats(self) -> arb:
        """log H."""
        size, kept = self.alphabet, 1 - self.theta
        rate = ball(kept) * log(kept * size / self.list_size)
        rate += ball(self.theta) * log(self.theta * size / (size - self.list_size))
        if self.blocks is not None:
            return log(self.blocks) + rate.log()
        points = self.log_points()  # n > N/A - 1 + 1/A
        return points + (-(size - 1) * (-points).exp()).log1p() - log(size) + rate.log()

    def _points(self) -> int:
        """N."""
        return largest(lambda n: n < 2 or is_negative(lambda: log(n - 1) - self.log_points()))


def log_log_contexts(
    *, dim: int, log_ratio: arb, order: Fraction, share: Fraction, cover: Cover
) -> arb:
    """log log C_in, from log(2 r L/delta) and the share e0 L/delta."""
    near = log_ratio - log(share)
    if cover == "rogers":
        centres = rogers_log_factor(dim) + dim * log1p_exp(near - log(2))
    else:
        centres = dim * log1p_exp(near)
    moved = ball(order) * (log_ratio - log(1 - share))
    return centres + log1p_exp(-centres) + (1 + log1p_exp(moved - log(4))).log()
