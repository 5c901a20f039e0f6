"""What prompts of any length can make of whole output measures: Theorems 2a and 2b.

**Setting.** Theta = B^d(0, r). The mean-field map T of the transformer is L-Lipschitz for W_q on
P(Theta). Queries X^1..X^k have m tokens in Theta. A tuple of targets is accessible if one
prompt, of any length, with tokens in Theta, has W_q(Y^i, T(M([P, X^i]))) <= eps for all i. The
outputs compared are whole: they contain the prompt's own (definition 4.5 of the paper).

**Theorem 2a.** Let F be the family of Lemma C_out with rho = eps + delta, and C_in the number of
Lemma C_in. The share of the tuples in F^k that are accessible is at most C_in e^(-kH). It is
below 1 for k > K = log C_in / H.
*Proof.* If Y is accessible by P and the net's tuple of P is (nu_i), then
W_q(Y^i, T(nu_i)) <= eps + L delta/L for each i. So Y^i lies in a ball of radius eps + delta: at
most |F| e^-H choices for each i, and C_in tuples. []

**Theorem 2b.** Let S be a code of e^H words of that family (kappa = 1), pairwise more than
2 (eps + delta) apart, Q = (L D/(2 delta))^q, D >= max W_q(M(X^i), M(X^j)) (at most 2r), and
M = max(0, m (Q - 1)). The share of S^k that is accessible is at most
e^(-(k-1)H) (1 + (M + 1)(1 + 2Lr/delta)^(dM) e^-H).
*Proof.* Y not constant: some Y^i, Y^j are more than 2 (eps + delta) apart, so
2 delta < W_q(T nu_i, T nu_j) <= L (m/(m_p + m))^(1/q) D, that is m_p < M. For each of at most
M + 1 such lengths the prompts have a net of (1 + 2Lr/delta)^(d m_p) points at largest-token
distance delta/L, which W_q does not exceed; one point serves one word for each i. Constant
tuples are |S| of |S|^k. If M = 0 no other tuple is accessible. []

2b is far stronger where d is moderate: its threshold is hardly above 1, because whole outputs
that all contain the prompt are nearly the same. To keep the last tokens only, see `last_tokens`.

**Where we differ from the paper**: below. The shares are of a finite family: no measure
on P(Theta) is given. 2a is invariant under (r, eps) -> (c r, c eps).

**Tightness.** The exponent d of log K ~ d log(4L) comes from both lemmas; the
constant is not known to be right. **Cost.** A search in floats of some 10^4 evaluations
(`search`), then one in balls. Any choice of the free parameters is sound.

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

**As published**: Theorem 4.10, and with its inverted 3 put right. Neither is proved. It says: no
prompt of any length serves all of k > K target distributions, "in proportion", K = (6Lr/eps)^d (1 +
log(1 + (4Lr/eps)^q)) / ((3/eps)^d - log C). What is wrong:

1. (3/eps)^d should be (1/(3 eps))^d (targets 3 eps apart): `threes_put_right`.
2. Codewords 3 eps apart can share a prompt cell of radius eps/L: 6 and 4 should be 12 and 8.
3. C is not given, and Proposition 3.6 holds for no fixed C (`covering`).
4. W_q(M(P), M(P')) does not control prompts of different lengths: P and [P, P] are at distance 0.
5. There is no measure for "proportion" other than shares of a finite family.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Annotated, Any, Final, Literal, TypeAlias

from flint import arb
from pydantic import AfterValidator, Field, field_validator

from promptlimits.base.errors import UserError
from promptlimits.base.exact import (
    Rule,
    ball,
    grid_up,
    grid_value,
    is_negative,
    largest,
    log1p_exp,
    number_text,
    outward_float,
    shown,
    working_precision,
)
from promptlimits.bounds.context.search import Case, Choice, Code, best_choice
from promptlimits.bounds.core import AnySize, Exp, Positive, Size, Theorem, decades, log
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


ASSUMPTION: Final = (
    "Proposition 3.6 holds with C = 1, the same for all eps and r, and prompts of "
    "different lengths are compared by W_q alone. Neither is so."
)


def published_log_threshold(case: WholeOutputCapacity, *, threes_put_right: bool = False) -> int:
    """log K of Theorem 4.10 with C = 1, as printed or with its 3 put right: a grid point."""
    per_target = 1 / (3 * case.eps) if threes_put_right else 3 / case.eps

    def log_threshold() -> arb:
        ratio = log(case.lipschitz) + log(2 * case.radius / case.eps)
        weights = 1 + log1p_exp(ball(case.order) * (ratio + log(2)))
        return case.dim * (ratio + log(3) - log(per_target)) + weights.log()

    return grid_up(log_threshold)


def _dim(dim: int) -> int:
    if dim > 10**6:
        raise Rule("be at most 1,000,000", "give numbers per token")
    return dim


def _order(order: Fraction) -> Fraction:
    if not 1 <= order <= 1000:
        raise Rule("be from 1 to 1,000", "write 1 or 2")
    return order


class _WholeOutput(Theorem):
    """Letters: d dim, L lipschitz, r radius, q order."""

    assumptions = (
        (
            "The mean-field map of the whole transformer has the given Lipschitz constant for W_q "
            "on the measures on the ball of the given radius."
        ),
        "All tokens of prompts and queries lie in that ball, and all queries have as many tokens.",
        (
            "Targets are drawn uniformly from the family of the theorem, and whole outputs, the "
            "prompt's own included, are compared in W_q."
        ),
    )
    dim: Annotated[Size, AfterValidator(_dim)] = Field(description="Numbers per token.")
    lipschitz: AnySize = Field(description="Of the mean-field map, for W_q; 10, 1e1000, 10/3.")
    radius: Positive = Field(description="Of the ball of all tokens, and of targets.")
    eps: Positive = Field(description="The error allowed, below half the radius.")
    order: Annotated[Positive, AfterValidator(_order)] = Field(
        default=Fraction(2), description="q of the distance W_q, from 1 to 1,000."
    )

    @field_validator("eps")
    @classmethod
    def _below_half(cls, eps: Fraction, given: Any) -> Fraction:
        radius = given.data.get("radius")
        if radius is not None and 2 * eps >= radius:
            raise Rule(
                f"be below half the radius, {shown(radius)}",
                "take a smaller one: too few targets would differ",
            )
        return eps

    @property
    @abstractmethod
    def _code(self) -> Code: ...

    @property
    def delta(self) -> Fraction:
        """delta."""
        return self._code.delta * self.radius

    @cached_property
    def family(self) -> MeasureFamily:
        """The targets."""
        code = self._code
        return MeasureFamily(
            dim=self.dim,
            radius=self.radius,
            ball=self.eps + self.delta,
            order=self.order,
            alphabet=code.alphabet,
            theta=code.theta,
            list_size=code.list_size if isinstance(code, Choice) else 1,
        )

    def log_ratio(self, size: Fraction) -> arb:
        """log(L size/delta)."""
        return log(self.lipschitz) + log(size / self.delta)

    def _of_targets(self) -> dict[str, Any]:
        return {
            "blocks": self.family.blocks,
            "log_points": -grid_up(lambda: -self.family.log_points()),
            "log_nats": -grid_up(lambda: -self.family.log_nats()),
        }

    def _claim(self, value: dict[str, Any], near: str, rate: str) -> str:
        constant = (
            f"L = exp({number_text(self.lipschitz.exp)})"
            if isinstance(self.lipschitz, Exp)
            else f"L = {number_text(self.lipschitz)}"
        )
        return (
            f"in dimension {self.dim}, radius {number_text(self.radius)}, with {constant}{near}, "
            f"error {number_text(self.eps)} in W_{number_text(self.order)}, prompts of all lengths "
            f"together serve a share of at most {rate} < 1 of the lists of more than K = "
            f"{decades(value['log_threshold'])} "
            "whole output measures; under the assumptions that it states"
        )


def _searched(given: dict[str, Any], cover: Cover, largest_list: int) -> Choice:
    with working_precision(128):
        logs = {f"log_{name}": float(log(given[name])) for name in ("lipschitz", "radius", "eps")}
    return best_choice(
        Case(
            dim=given["dim"],
            order=float(given["order"]),
            rogers=cover == "rogers",
            largest_list=largest_list,
            **logs,
        )
    )


class WholeOutputCapacity(_WholeOutput):
    """Theorem 2a, at the best free parameters that a search in floats finds.

    Rogers' cover is tighter by up to 2^d and rests on a citation.
    """

    kind = "whole_output_capacity"
    source = "promptlimits: Theorem 2a, in place of meyer2025 Theorem 4.10"
    cover: Cover = "volume"
    choice: Choice = Field(
        default_factory=lambda given: _searched(given, given["cover"], max(1, given["dim"] // 2))
    )

    @field_validator("cover")
    @classmethod
    def _of_dim(cls, cover: Cover, given: Any) -> Cover:
        if cover == "rogers" and given.data.get("dim", 3) < 3:
            raise Rule("be that of volumes below dimension 3", "use volume")
        return cover

    @property
    def _code(self) -> Code:
        return self.choice

    def log_contexts(self) -> arb:
        """log log C_in."""
        return log_log_contexts(
            dim=self.dim,
            log_ratio=self.log_ratio(2 * self.radius),
            order=self.order,
            share=self.choice.cover_share,
            cover=self.cover,
        )

    def value(self) -> dict[str, Any]:
        """The family of targets, log log C_in, and log K = log C_in / H."""
        found, contexts = self._of_targets(), grid_up(self.log_contexts)
        threshold = contexts - found["log_nats"]
        return {**found, "log_contexts": contexts, "log_threshold": threshold}

    def claim(self, value: dict[str, Any]) -> str:
        """What is proved, in one sentence."""
        return "Theorem 2a: " + self._claim(value, "", "C_in e^(-kH)")

    def log_share(self, pairs: int) -> float:
        """Upper limit, in nats, on the share of the tuples of targets that some prompt serves.

        Args:
            pairs: k.

        Returns:
            The limit; above 0 it says nothing.
        """
        return outward_float(
            lambda: self.log_contexts().exp() - pairs * self.family.log_nats().exp(), up=True
        )


def _best_code(given: dict[str, Any]) -> Code:
    """The best of some codes near the one that serves Theorem 2a."""
    start = _searched(given, "volume", 1)
    found: list[tuple[int, Code]] = []
    for power in range(-8, 9):
        code = Code(
            delta=start.delta * Fraction(2) ** power, alphabet=start.alphabet, theta=start.theta
        )
        try:
            threshold = ShortPromptCapacity(**given, choice=code).value()["log_threshold"]
        except UserError:  # too few points for two blocks
            continue
        found.append((threshold, code))
    return min(found, key=lambda each: each[0])[1]


class ShortPromptCapacity(_WholeOutput):
    """Theorem 2b: the same objective, exponentially better.

    Letters: m tokens, D spread (2r unless given).
    """

    kind = "short_prompt_capacity"
    source = "promptlimits: Theorem 2b, in place of meyer2025 Theorem 4.10"
    tokens: Size = Field(default=1, description="Of each query, and of each target.")
    spread: Positive = Field(
        default_factory=lambda given: 2 * given["radius"],
        description="W_q between any two queries, at most; twice the radius if not given.",
    )
    choice: Code = Field(default_factory=_best_code)

    @property
    def _code(self) -> Code:
        return self.choice

    def rests_on(self) -> tuple[str, ...]:
        """What it assumes, of the queries too."""
        near = (
            f"Each query has {self.tokens} tokens, and W_{number_text(self.order)} between any two "
            f"of them is at most {number_text(self.spread)}."
        )
        return (*self.assumptions, near)

    def log_threshold(self, log_nats: arb) -> arb:
        """log K, K = 1 + log(1 + (M + 1)(1 + 2Lr/delta)^(dM) e^-H)/H; log K = 0 if M = 0."""
        longer = (ball(self.order) * self.log_ratio(self.spread / 2)).expm1()
        if longer <= 0:  # for sure; where it is open, a length of 0 is counted
            return arb(0)
        longest, nats = self.tokens * longer, log_nats.exp()
        net = log1p_exp(self.log_ratio(2 * self.radius))
        return (log1p_exp(longest.log1p() + self.dim * longest * net - nats) / nats).log1p()

    def value(self) -> dict[str, Any]:
        """The family of targets, and log K with the recorded H."""
        found = self._of_targets()
        nats = grid_value(found["log_nats"])
        return {**found, "log_threshold": grid_up(lambda: self.log_threshold(ball(nats)))}

    def claim(self, value: dict[str, Any]) -> str:
        """What is proved, in one sentence."""
        near = f", queries of {self.tokens} tokens within {number_text(self.spread)} of each other"
        return "Theorem 2b: " + self._claim(value, near, "e^(-(k - K)H)")

    def log_share(self, pairs: int) -> float:
        """Upper limit, in nats, on the share of the tuples of targets that some prompt serves.

        Args:
            pairs: k.

        Returns:
            The limit; above 0 it says nothing.
        """

        def log_share() -> arb:
            log_nats = self.family.log_nats()
            # K - 1 = log(1 + C' e^-H)/H, so the share is e^(-(k - K) H).
            return (self.log_threshold(log_nats).exp() - pairs) * log_nats.exp()

        return outward_float(log_share, up=True)
