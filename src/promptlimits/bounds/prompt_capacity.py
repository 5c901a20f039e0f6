"""How much volume of targets prompts can reach: Theorem 4.7 of meyer2025, corrected.

**Statement.** K is the ball of prompts of radius rho, in a norm on R^(d x m_p); B_r the ball of
targets, in a norm on R^(d x m). For each of k inputs X^i let the map from a prompt P in K to
the last m output tokens be L-Lipschitz. (Or a map that is the same on a region of K: then the
prompts of that region count, for what they reach that map reaches; `least_deviation`.) A list Y
of k targets is *reached* if some P in K brings every output within eps of its target. Then for
every delta > 0, with a = 2 L rho, n = d m_p, N = d m k,

    share of the volume of B_r^k that is reached <= (1 + a/delta)^n ((eps + delta)/r)^N,   (1)
    and                                          <= ((eps + L rho)/r)^N.                   (2)

*Proof.* Take as many prompts P_j of K as possible with pairwise distances above delta/L. Every
prompt is within delta/L of one of them, and open balls of radius delta/(2L) around them are
disjoint in the ball of radius rho + delta/(2L): there are at most (1 + 2 L rho/delta)^n. If P
reaches Y and P_j is the near one, all outputs of P_j are within eps + delta of Y. So what is
reached lies in that many products of k balls of radius eps + delta. For (2) take the one prompt
P = 0, from which K is within rho. []

**The best delta.** For kappa = N/n > 0 let F(kappa) be the least over delta of

    f(delta) = log(1 + a/delta) + kappa log((eps + delta)/r).

f' has the sign of q(delta) = kappa delta^2 + (kappa - 1) a delta - a eps, which is negative at 0
and has one positive root, since the product of its roots is negative; so it is the only minimum:

    delta* = 2 eps/[(kappa - 1) + sqrt((kappa - 1)^2 + 4 kappa eps/a)].

F is therefore computable as a ball: that F < 0 and that F > 0 are both proved, over all delta.

**The threshold.** F is a minimum of functions linear in kappa, hence concave, tends to 0 as kappa
does, and rises at first, since F' = log((eps + delta*)/r) (envelope theorem) and delta* grows
beyond all bounds. So F > 0 up to one kappa* and F < 0 beyond it: (1) is below 1 for some delta
exactly when k > kappa* m_p/m. (2) is below 1 for every k as soon as eps + L rho < r.

**Slope.** d log (1)/dk = d m log((eps + delta*)/r) at the best delta (envelope theorem). It falls
with k, to d m log(eps/r), which is exact if one list with all |Y^i| <= r - eps is reached. Of the
share itself it says nothing: while every list is reached the share stays at 1.

**Where we differ from the paper.** 1. Its proof takes a net of width eps/L and targets 3 eps
apart for "one target per net ball"; two targets met from one net ball can be 4 eps apart. 2. A
share of a packing is no share of volume; (1) is. 3. Its proportion is false for 3 L r < eps
(`prompt_capacity_published`). 4. r > 3 eps is not needed. 5. L is needed in P alone, on K alone.
6. The norm matters:

- "token": radii, errors and L for the largest Euclidean norm of a token;
- "frobenius": tokens in balls, but L from the Frobenius norm of the prompt to the largest token
  of the output: that norm is at most rho sqrt(m_p), so L sqrt(m_p) serves in the token norm;
- "matrix": radii and errors are Frobenius norms of whole matrices.

**Rogers' constant** (`log_rogers_share`; rogers1957, cited, not proved here; n >= 3): the least
covering of space by translates of a ball has density at most n log n + n log log n + 5 n, and K
is covered by that times vol(K - T)/vol(T) translates of T: (1 + a/delta)^n becomes that density
times (1 + a/(2 delta))^n. Centres outside K, where nothing is known of L, are projected onto K;
that brings them no farther from any point of K in the Euclidean norms meant here.

**Exact access** (Proposition 1). If the outputs are locally Lipschitz in the prompt and
m_p < m k, the target lists met exactly by prompts of up to m_p tokens, of any norm, are Lebesgue
null: they are images of R^(d m') with m' < m k. That m k tokens suffice is not claimed, and it is
not so in general.

**Tightness.** The exponent N and the limit of the slope are exact; against (eps/r)^(N - n), what
dimension allows, (1) loses the factor (a/eps)^n and a power of (1 + delta/eps).

**As published** (Theorem 4.7 of meyer2025, to stand beside its correction). For a transformer of
Lipschitz constant L, embedding radius r > 3 eps and dimension d, and k > m_p log(3 L
r/eps)/log(r/(3 eps)), the proportion of the lists of k targets that is eps-accessible is at most
[(3 L r/eps)^(m_p) / (r/(3 eps))^(m k)]^d.

**Where it is false.** For 3 L r < eps the first factor is below 1. A transformer whose MLP is 0
through W_1 = [I; -I], W_2 = [-I, I] and whose attention is off gives one list of outputs for
all prompts: every L > 0 is admissible, so that the published proportion can be made as small as
one likes, while the true one is (eps/r)^(d m k).

**Where it holds.** In one norm for prompts and outputs (longest token, or whole matrices), and
for 3 L r >= eps, the proportion is true, though not by the printed proof: (1)
with delta = eps if L r >= eps ((1 + 2 L r/eps) <= 3 L r/eps and 2 eps <=
3 eps), with one centre if L r < eps (eps + L r < 2 eps).

**Tokens in balls, L for the Frobenius norm.** With m_p > 1 it is false in general, for 3 L r >=
eps as well: the ball of prompts has the Frobenius radius r sqrt(m_p), of which the published
proportion knows nothing. Uniform attention, d = m = k = 1, query token 0, m_p = 49, V = 50/210:
the output is V times the mean of 50 tokens, L = V 7/50 = 1/30. At r = 1, eps = 1/10 it fills
[-7/30, 7/30], so that a third of the targets is reached; published is 3/10.

**The threshold as printed** lacks the factor 1/m that its own proof gives ("for m k > ..."): it
is true and weaker by m. `threshold_pairs` has the factor, `printed_pairs` has not.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from flint import arb
from pydantic import Field, ValidationInfo, field_validator

from promptlimits.base.errors import UserError
from promptlimits.base.exact import (
    Rule,
    ball,
    dyadic,
    grid_up,
    grid_value,
    is_negative,
    largest,
    last_float,
    log1p_exp,
    number_text,
    shown,
)
from promptlimits.bounds.core import (
    AnySize,
    Exp,
    NonNegative,
    Norm,
    Positive,
    Size,
    Theorem,
    decades,
    log,
)

DELTA_BITS: Final = 32
"""Mantissa of a chosen delta: near a minimum, half of the digits lose nothing."""

KAPPA_BITS: Final = 64

VOLUME: Final = (
    "The share is one of volume: targets uniform in the product of balls of the given radius."
)
FIXED: Final = "The model and the inputs are fixed beforehand, not chosen to suit the targets."


def trust_region(deviation: Fraction) -> str:
    """The assumption that goes with a region of prompts."""
    return (
        "Only prompts count for which every vector that a norm of the model divides has deviation "
        f"(root mean square, for RMSNorm) at least {number_text(deviation)} on every input."
    )


def below_radius(eps: Fraction, given: ValidationInfo) -> Fraction:
    """Refuse an error as large as the targets; of the field eps, so that it is named."""
    radius = given.data.get("radius")
    if radius is not None and eps >= radius:
        raise Rule(
            f"be below the radius of the targets, {shown(radius)}",
            "take a smaller one: answering 0 meets every target within the radius",
        )
    return eps


class PromptCapacity(Theorem):
    """Letters: d dim, m_p prompt_tokens, m tokens, k pairs, r radius, rho prompt_radius."""

    kind = "prompt_capacity"
    source = "promptlimits: Theorem 1, in place of meyer2025 Theorem 4.7"
    assumptions = (
        FIXED,
        (
            "For each input, the map from the prompt to the outputs that are read, or one that "
            "agrees with it on the prompts that count, is L-Lipschitz on the ball of prompts, in "
            "the stated norm."
        ),
        (
            "The prompts that count lie in that ball; nothing else about the targets reaches the "
            "model."
        ),
        VOLUME,
    )
    dim: Size = Field(description="Numbers per token.")
    lipschitz: AnySize = Field(description="Of outputs in the prompt; 10, 1e1000, 10/3.")
    radius: Positive = Field(description="Of the ball of targets.")
    eps: Positive = Field(description="The error allowed, below the radius.")
    prompt_tokens: Size = Field(description="Tokens of the prompt.")
    tokens: Size = Field(default=1, description="Tokens of each answer.")
    pairs: Size = Field(default=1, description="Pairs to be held.")
    prompt_radius: Positive = Field(
        default_factory=lambda given: given["radius"],
        description="Of the ball of prompts; that of the targets if not given.",
    )
    norm: Norm = Field(
        default="token",
        description="token: radii and L for the longest token; frobenius: tokens in balls, L for "
        "the Frobenius norm; matrix: radii for whole matrices as well.",
    )
    least_deviation: NonNegative = Field(
        default=Fraction(0), description="Of the vectors that a norm divides; 0: all prompts count."
    )
    _below = field_validator("eps")(below_radius)

    def rests_on(self) -> tuple[str, ...]:
        """The assumptions, and the region of prompts if there is one."""
        return (
            *self.assumptions,
            *((trust_region(self.least_deviation),) * (self.least_deviation > 0)),
        )

    @property
    def prompt_numbers(self) -> int:
        """n."""
        return self.dim * self.prompt_tokens

    @property
    def target_numbers(self) -> int:
        """N."""
        return self.dim * self.tokens * self.pairs

    def kappa(self, pairs: int) -> Fraction:
        """N/n."""
        return Fraction(self.tokens * pairs, self.prompt_tokens)

    def log_reach(self) -> arb:
        """log a, with L sqrt(m_p) for L in the norm "frobenius"."""
        spread = log(self.prompt_tokens) / 2 if self.norm == "frobenius" else 0
        return log(2 * self.prompt_radius) + log(self.lipschitz) + spread

    def log_net(self, delta: arb) -> arb:
        """log(1 + a/delta)."""
        return log1p_exp(self.log_reach() - delta.log())

    def log_volume(self, delta: arb) -> arb:
        """log((eps + delta)/r)."""
        return (ball(self.eps) + delta).log() - log(self.radius)

    def log_centre(self) -> arb:
        """log((eps + L rho)/r)."""
        return log1p_exp(self.log_reach() - log(2 * self.eps)) + log(self.eps / self.radius)

    def best_delta(self, kappa: Fraction | arb) -> arb:
        """delta*."""
        kappa, eps, inverse = ball(kappa), ball(self.eps), (-self.log_reach()).exp()
        slack = kappa - 1
        root = (slack * slack + 4 * kappa * eps * inverse).sqrt()
        return 2 * eps / (slack + root) if slack > 0 else (root - slack) / (2 * kappa * inverse)

    def least(self, kappa: Fraction | arb) -> arb:
        """F(kappa)."""
        delta = self.best_delta(kappa)
        return self.log_net(delta) + ball(kappa) * self.log_volume(delta)

    def log_share_of_net(self, delta: arb) -> arb:
        """log (1)."""
        volume = self.target_numbers * self.log_volume(delta)
        return self.prompt_numbers * self.log_net(delta) + volume

    def log_share_of_centre(self) -> arb:
        """log (2)."""
        return self.target_numbers * self.log_centre()

    def log_rogers_share(self) -> arb:
        """log (1) with Rogers' density, at the best delta."""
        size, delta = self.prompt_numbers, dyadic(self.delta(self.kappa(self.pairs)))
        if size < 3:
            raise UserError(
                "prompt_tokens",
                "be at least 3 numbers for Rogers' constant",
                got=size,
                remedy="take more tokens, or (1) with the volume of balls",
            )
        density = (size * (log(size) + log(size).log() + 5)).log()
        volume = self.target_numbers * self.log_volume(delta)
        return density + size * self.log_net(2 * delta) + volume

    def log_shares(self) -> tuple[int, int]:
        """Grid points of log (1) at the recorded delta, and of log (2)."""
        delta = dyadic(self.delta(self.kappa(self.pairs)))
        return grid_up(lambda: self.log_share_of_net(delta)), grid_up(self.log_share_of_centre)

    def log_slope(self) -> arb:
        """Derivative of log (1): at least as far below 0 is the step from k to k + 1."""
        return self.dim * self.tokens * self.log_volume(self.best_delta(self.kappa(self.pairs)))

    def delta(self, kappa: Fraction) -> list[int]:
        """The last number of 32 bits with q <= 0."""

        def falling(delta: arb) -> arb:
            inverse = (-self.log_reach()).exp()
            return ball(self.eps) - ball(kappa - 1) * delta - ball(kappa) * delta**2 * inverse

        return last_float(
            DELTA_BITS,
            lambda delta: not is_negative(lambda: falling(delta)),
            lambda: self.best_delta(kappa),
        )

    def threshold(self) -> list[int]:
        """The last number of 64 bits at most kappa*, near the end of Dinkelbach's iteration."""

        def near() -> arb:
            delta = ball(min(self.eps, (self.radius - self.eps) / 2))
            before = arb("inf")
            found = self.log_net(delta) / -self.log_volume(delta)
            while found < before * (1 - arb((1, -60))):  # not so where digits do not suffice
                delta = self.best_delta(found.mid()).mid()
                before, found = found, self.log_net(delta) / -self.log_volume(delta)
            return found

        return last_float(
            KAPPA_BITS, lambda kappa: not is_negative(lambda: self.least(kappa)), near
        )

    def one_centre(self) -> bool:
        """Whether (2) is below 1, for every k then."""
        return is_negative(self.log_centre)

    def excluded(self, pairs: int) -> bool:
        """Whether (1) or (2) is below 1."""
        return pairs > 0 and (
            self.one_centre() or is_negative(lambda: self.least(self.kappa(pairs)))
        )

    def most_pairs(self) -> int:
        """The most pairs that are not excluded."""
        return largest(lambda k: not self.excluded(k))

    def value(self) -> dict[str, Any]:
        """The share, at its delta; kappa*; the most pairs of which all lists may be reached."""
        return {
            "log_share": min(self.log_shares()),
            "delta": self.delta(self.kappa(self.pairs)),
            "threshold": self.threshold(),
            "most_pairs": self.most_pairs(),
        }

    def claim(self, value: dict[str, Any]) -> str:
        """The share in decades."""
        least = shown(self.least_deviation)
        size = self.lipschitz
        constant = f"exp({shown(size.exp)})" if isinstance(size, Exp) else shown(size)
        region = f" that keep every deviation in front of a norm at {least} or more on every input"
        return (
            f"of all lists of {self.pairs:,} targets of {self.tokens:,} tokens of {self.dim:,} "
            f"numbers in balls of radius {shown(self.radius)}, at most a share of "
            f"{decades(value['log_share'])} is reached within {shown(self.eps)} by prompts of "
            f"{self.prompt_tokens:,} tokens in a ball of radius {shown(self.prompt_radius)} "
            f"({self.norm} norm){region if self.least_deviation else ''}; of more than "
            f"{value['most_pairs']:,} targets, some lists are not; under the assumptions that it "
            f"states, with L = {constant}"
        )


_FALSE: Final = "false for 3 L r < eps: constant maps refute it"
_OTHER_NORM: Final = (
    "not proved for tokens in balls with L for the Frobenius norm, and false in general: the "
    "prompts' Frobenius norm grows like sqrt(m_p)"
)


@dataclass(frozen=True, kw_only=True)
class PublishedCapacity:
    """What the published theorem says of a case; nothing where it does not apply."""

    kappa: Fraction | None = None  # log(3 L r/eps)/log(r/(3 eps)), rounded up
    threshold_pairs: Fraction | None = None  # kappa m_p/m, as its proof has it
    printed_pairs: Fraction | None = None  # kappa m_p, as its statement has it
    # Grid point of the logarithm of the published proportion; a true upper limit only where there
    # is no `reason`.
    log_share: int | None = None
    # Whether 3 L r < eps, where the published proportion is false. Not set where it is merely
    # unproved (`reason`).
    false_here: bool = False
    # Why there are no numbers, or why those given are not to be trusted.
    reason: str | None = "Theorem 4.7 needs r > 3 eps (its Remark 4.9)"


def published_capacity(case: PromptCapacity) -> PublishedCapacity:
    """The published threshold and proportion.

    Args:
        case: The case. The paper has one radius, for prompts and targets: r is the targets'
            here and the prompts' in 3 L r, without the sqrt(m_p) of the Frobenius norm.

    Returns:
        The numbers, or why there are none.
    """
    ratio = case.radius / (3 * case.eps)
    if ratio <= 1:
        return PublishedCapacity()
    first = 3 * case.prompt_radius / case.eps
    kappa = grid_value(grid_up(lambda: (log(case.lipschitz) + log(first)) / log(ratio)))
    other_norm = case.norm == "frobenius" and case.prompt_tokens > 1
    return PublishedCapacity(
        kappa=kappa,
        threshold_pairs=kappa * Fraction(case.prompt_tokens, case.tokens),
        printed_pairs=kappa * case.prompt_tokens,
        log_share=grid_up(
            lambda: (
                case.prompt_numbers * (log(case.lipschitz) + log(first))
                - case.target_numbers * log(ratio)
            )
        ),
        false_here=kappa < 0,
        reason=_FALSE if kappa < 0 else _OTHER_NORM if other_norm else None,
    )
