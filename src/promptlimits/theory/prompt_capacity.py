"""How much volume of targets prompts can reach: Theorem 4.7 of meyer2025, corrected.

**Statement.** K is the ball of prompts of radius rho, in a norm on R^(d x m_p); B_r the ball of
targets, in a norm on R^(d x m). For each of k inputs X^i let the map from a prompt P in K to
the last m output tokens be L-Lipschitz. (Or a map that is the same on a region of K: then the
prompts of that region count, for what they reach that map reaches; `trust_region`.) A list Y of
k targets is *reached* if some P in K brings every output within eps of its target. Then for
every delta > 0, with a = 2 L rho, n = d m_p, N = d m k,

    share of the volume of B_r^k that is reached <= (1 + a/delta)^n ((eps + delta)/r)^N,   (1)
    and                                          <= ((eps + L rho)/r)^N.                   (2)

*Proof.* Take as many prompts P_j of K as possible with pairwise distances above delta/L. Every
prompt is within delta/L of one of them, and open balls of radius delta/(2L) around them are
disjoint in the ball of radius rho + delta/(2L): there are at most (1 + 2 L rho/delta)^n. If P
reaches Y and P_j is the near one, all outputs of P_j are within eps + delta of Y. So what is
reached lies in that many products of k balls of radius eps + delta. For (2) take the one prompt
P = 0, from which K is within rho. []

(1) is below 1 for some delta exactly when k > kappa* m_p/m (`optimal_delta`). (2) is below 1
for every k as soon as eps + L rho < r.

**Slope.** d log (1) / dk = d m log((eps + delta*)/r) at the best delta (envelope theorem). It
falls to d m log(eps/r), which is exact if one list with all |Y^i| <= r - eps is reached.

**Where we differ from the paper.** 1. Its proof takes a net of width eps/L and targets 3 eps
apart for "one target per net ball"; two targets met from one net ball can be 4 eps apart. 2. A
share of a packing is no share of volume; (1) is. 3. Its proportion is false for 3 L r < eps
(`prompt_capacity_published`). 4. r > 3 eps is not needed. 5. L is needed in P alone, on K alone.
6. The norm matters: with tokens in balls, the Frobenius norm of a prompt grows like
sqrt(m_p) (`PromptSetting.norm`).

**Rogers' constant** (`covering="rogers"`, cited, not proved here; n >= 3): the least covering of
space by translates of a ball has density at most n log n + n log log n + 5 n, and K is covered
by that times vol(K - T)/vol(T) translates of T: (1 + a/delta)^n becomes that density times
(1 + a/(2 delta))^n. Centres outside K, where nothing is known of L, are projected onto K; that
brings them no farther from any point of K in the Euclidean norms meant here.

**Assumptions.** `ASSUMPTIONS`; they travel with each bound. **Tightness.** The exponent N and
the limit of the slope are exact; against (eps/r)^(N - n), what dimension allows, (1) loses the
factor (a/eps)^n and a power of (1 + delta/eps). **Cost.** A millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, TypeAlias

from flint import arb

from promptlimits.base.bound import Assumption, Certificate, LogBound, Source, tightest
from promptlimits.base.checks import require_positive_int
from promptlimits.base.errors import UserError
from promptlimits.base.typing import JsonObject, JsonValue
from promptlimits.theory.counting_claim import exact_text
from promptlimits.theory.grid_logs import grid_upper, total
from promptlimits.theory.optimal_delta import (
    Threshold,
    ball,
    best_delta,
    log_balls,
    log_net,
    optimum,
    threshold,
)
from promptlimits.theory.prompt_setting import PromptSetting

Covering: TypeAlias = Literal["volume", "rogers"]

SOURCE: Final = Source(
    reference="promptlimits",
    statement="Theorem 1 (promptlimits.theory.prompt_capacity), in place of meyer2025 Theorem 4.7",
    form="corrected",
)

ASSUMPTIONS: Final = (
    "The model and the inputs are fixed beforehand, not chosen to suit the targets.",
    (
        "For each input, the map from the prompt to the outputs that are read, or one that "
        "agrees with it on the prompts that count, is L-Lipschitz on the ball of prompts, in "
        "the stated norm."
    ),
    "The prompts that count lie in that ball; nothing else about the targets reaches the model.",
    "The share is one of volume: targets uniform in the product of balls of the given radius.",
)


@dataclass(frozen=True, kw_only=True)
class ShareReached:
    """An upper limit on the share of target lists that prompts reach.

    Attributes:
        pairs: k.
        bound: The limit on the share.
        delta: The width of the net; None if one centre (2) is the better.
        certificate: What a checker needs to verify it; None with Rogers' constant.
    """

    pairs: int
    bound: LogBound
    delta: Fraction | None
    certificate: Certificate | None


@dataclass(frozen=True, kw_only=True)
class CapacityThreshold:
    """From how many pairs on the theorem excludes some target lists.

    Attributes:
        kappa: Both sides of kappa*, and the delta that proves the upper one.
        pairs_upper: kappa* m_p/m is at most this.
        one_centre: Whether eps + L rho < r is proved: then every k >= 1 excludes some lists.
        first_pairs: The least k for which (1) or (2) is proved to be below 1.
    """

    kappa: Threshold
    pairs_upper: Fraction
    one_centre: bool
    first_pairs: int


def share_reached(
    setting: PromptSetting,
    pairs: int,
    *,
    delta: Fraction | None = None,
    covering: Covering = "volume",
) -> ShareReached:
    """Upper limit on the share of lists of `pairs` targets that some prompt reaches.

    Args:
        setting: Sizes, radii, precision and Lipschitz constant.
        pairs: k, 1 or more.
        delta: Width of the net; the best one if None, when (2) is tried as well.
        covering: "rogers" for Rogers' constant.

    Returns:
        The bound; it says nothing (more than 1) while `pairs` is small.

    Raises:
        UserError: `pairs` is below 1, delta is not above 0, or n < 3 with Rogers' constant.
    """
    require_positive_int("pairs", pairs)
    if covering == "rogers":
        return _with_rogers(setting, pairs)
    if delta is not None:
        return _reached(setting, pairs, delta)
    kappa = Fraction(setting.target_numbers(pairs), setting.prompt_numbers)
    net = _reached(setting, pairs, best_delta(setting, kappa))
    centre = _reached(setting, pairs, None)
    return centre if tightest([net.bound, centre.bound]) is centre.bound else net


def capacity_threshold(setting: PromptSetting) -> CapacityThreshold:
    """The exact threshold of the theorem, from both sides.

    Args:
        setting: Sizes, radii, precision and Lipschitz constant.

    Returns:
        kappa*, and the number of pairs from which some lists are excluded.
    """
    kappa = threshold(setting)
    factor = Fraction(setting.prompt_tokens, setting.tokens)
    one_centre = _one_centre_excludes(setting)
    return CapacityThreshold(
        kappa=kappa,
        pairs_upper=kappa.upper * factor,
        one_centre=one_centre,
        first_pairs=1 if one_centre else int(kappa.upper * factor) + 1,
    )


def slope(setting: PromptSetting, pairs: int) -> LogBound:
    """Upper limit on the factor by which the limit (1) falls with one pair more, from k to k+1.

    Of the share itself it says nothing: while every list is reached the share stays at 1.

    The derivative d m log((eps + delta*)/r) falls with k, so that the step is at most the
    derivative at k.
    """
    require_positive_int("pairs", pairs)
    kappa = Fraction(setting.target_numbers(pairs), setting.prompt_numbers)
    numbers = setting.dim * setting.tokens
    return LogBound(
        direction="upper",
        log=grid_upper(lambda: numbers * log_balls(setting, optimum(setting, kappa))),
        quantity=f"factor of the limit (1) on the share from {pairs} pairs to one more",
        source=SOURCE,
        assumptions=assumptions(setting),
    )


def tokens_for_exact_access(*, pairs: int, tokens: int) -> int:
    """The fewest prompt tokens with which more than a null set of target lists is met exactly.

    Proposition 1: if the outputs are locally Lipschitz in the prompt and m_p < m k, the target
    lists met exactly by prompts of up to m_p tokens, of any norm, are Lebesgue null: they are
    images of R^(d m') with m' < m k. That m k tokens suffice is not claimed, and it is not so
    in general.
    """
    return require_positive_int("pairs", pairs) * require_positive_int("tokens", tokens)


def assumptions(setting: PromptSetting) -> tuple[Assumption, ...]:
    """What the theorem rests on, as values."""
    plain = tuple(Assumption(text=text) for text in ASSUMPTIONS)
    deviation = setting.least_deviation
    return (*plain, trust_region(deviation)) if deviation else plain


def trust_region(deviation: int | Fraction) -> Assumption:
    """The assumption that goes with a region of prompts."""
    return Assumption(
        text="Only prompts count for which every vector that a norm of the model divides has "
        f"deviation (root mean square, for RMSNorm) at least {fraction_text(deviation)} on every "
        "input."
    )


def quantity(setting: PromptSetting, pairs: int) -> str:
    """What the bound limits, in words."""
    return (
        f"share of the lists of {pairs} targets of {setting.tokens} tokens of {setting.dim} "
        f"numbers that some prompt of {setting.prompt_tokens} tokens reaches"
    )


def lipschitz_words(value: int | Fraction | LogBound) -> str:
    """A Lipschitz constant with all its digits, in the words of a bound.

    However little a digit changes the bound, the words hold it: none can be altered alone.
    """
    if isinstance(value, LogBound):
        mantissa, exponent = (int(part) for part in value.log.man_exp())
        return f"L = exp({mantissa} * 2^{exponent})"
    return f"L = {fraction_text(value)}"


def log_centre(setting: PromptSetting) -> arb:
    """Ball around log((eps + L rho)/r) at the current precision."""
    difference = setting.log_reach() - ball(2 * setting.eps).log()
    lost = difference + (-difference).exp().log1p() if difference > 0 else difference.exp().log1p()
    return lost + ball(Fraction(setting.eps) / setting.radius).log()


def _reached(setting: PromptSetting, pairs: int, delta: Fraction | None) -> ShareReached:
    if delta is not None and delta <= 0:
        raise UserError("delta", "be above 0", got=str(delta), remedy="leave it out for the best")
    bound = total(_factors(setting, pairs, delta), quantity=_in_full(setting, pairs), source=SOURCE)
    certificate = Certificate(
        kind="prompt_capacity", bound=bound, inputs=_inputs(setting, pairs, delta)
    )
    return ShareReached(pairs=pairs, bound=bound, delta=delta, certificate=certificate)


def _factors(setting: PromptSetting, pairs: int, delta: Fraction | None) -> tuple[LogBound, ...]:
    numbers = setting.target_numbers(pairs)
    if delta is None:
        words = "volume of targets within eps + L rho of one output, over that of all"
        return (_factor(setting, grid_upper(lambda: numbers * log_centre(setting)), words),)
    size = setting.prompt_numbers
    return (
        _factor(
            setting,
            grid_upper(lambda: size * log_net(setting, ball(delta))),
            "prompts of a net of width delta/L",
        ),
        _factor(
            setting,
            grid_upper(lambda: numbers * log_balls(setting, ball(delta))),
            "volume of targets within eps + delta of one output, over that of all",
        ),
    )


def _in_full(setting: PromptSetting, pairs: int) -> str:
    return (
        f"{quantity(setting, pairs)}; r = {fraction_text(setting.radius)}, rho = "
        f"{fraction_text(setting.rho)}, eps = {fraction_text(setting.eps)}, "
        f"{lipschitz_words(setting.lipschitz)}"
    )


def _factor(setting: PromptSetting, log: arb, words: str) -> LogBound:
    return LogBound(
        direction="upper", log=log, quantity=words, source=SOURCE, assumptions=assumptions(setting)
    )


def _inputs(setting: PromptSetting, pairs: int, delta: Fraction | None) -> JsonObject:
    return {
        "dim": setting.dim,
        "prompt_tokens": setting.prompt_tokens,
        "tokens": setting.tokens,
        "pairs": pairs,
        "norm": setting.norm,
        "lipschitz": lipschitz_text(setting.lipschitz),
        "radius": fraction_text(setting.radius),
        "prompt_radius": fraction_text(setting.rho),
        "eps": fraction_text(setting.eps),
        "delta": None if delta is None else fraction_text(delta),
        "least_deviation": fraction_text(setting.least_deviation),
    }


def fraction_text(value: int | Fraction) -> str:
    """An exact number as a certificate records it: "a/b" in lowest terms, "a" if whole."""
    value = Fraction(value)
    over = exact_text(value.numerator)
    return over if value.denominator == 1 else f"{over}/{exact_text(value.denominator)}"


def lipschitz_text(value: int | Fraction | LogBound) -> JsonValue:
    """A Lipschitz constant as a certificate records it."""
    if isinstance(value, LogBound):
        return value.to_json()["log"]
    return fraction_text(value)


def _one_centre_excludes(setting: PromptSetting) -> bool:
    squared = setting.reach_squared
    rest = 2 * (Fraction(setting.radius) - setting.eps)
    if squared is not None:
        return squared < rest**2
    return bool(setting.log_reach() < ball(rest).log())


def _with_rogers(setting: PromptSetting, pairs: int) -> ShareReached:
    size = setting.prompt_numbers
    if size < 3:
        raise UserError(
            "numbers in the prompt",
            "be at least 3 for Rogers' constant",
            got=size,
            remedy="leave the constant out",
        )
    kappa = Fraction(setting.target_numbers(pairs), size)
    delta = best_delta(setting, kappa)

    def log_net_points() -> arb:
        log = arb(size).log()
        halved = log_net(setting, 2 * ball(delta))
        return (size * (log + log.log() + 5)).log() + size * halved

    numbers = setting.target_numbers(pairs)
    cited = Source(reference="rogers1957", statement="density of coverings", form="as published")
    net = LogBound(
        direction="upper",
        log=grid_upper(log_net_points),
        quantity="prompts of a net of width delta/L",
        source=cited,
        assumptions=assumptions(setting),
    )
    balls = _factor(
        setting,
        grid_upper(lambda: numbers * log_balls(setting, ball(delta))),
        "volume of targets within eps + delta of one output, over that of all",
    )
    bound = total((net, balls), quantity=quantity(setting, pairs), source=SOURCE)
    return ShareReached(pairs=pairs, bound=bound, delta=delta, certificate=None)
