"""The counting cap for vector targets: what stored or hard prompts can reach, for any model.

**Statement.** Prompts take at most R values: N^(d m_p) if each number is kept in a format of N
values, V^(m_p) if each token is one of a vocabulary of V. Fix the model, k inputs and H
environments (hardware, kernels, batches, library versions); no Lipschitz constant, no continuity
and no exact arithmetic is needed. The share of the volume of the lists of k targets (products of
balls of radius r, in the norm errors are measured in) that some prompt brings within eps in some
environment is at most

    Q (eps/r)^(d m k),    Q = H R.

*Proof.* One prompt in one environment gives one list of outputs; what is within eps of it is a
product of k balls of radius eps. Add up over R prompts and H environments. []

So lists are excluded from k > log Q / (d m log(r/eps)) on: kappa = log N/log(r/eps) in the
units of Theorem 1 (kappa m_p/m pairs). Theorem 1 helps only where its kappa* is below that.
The form "min of the net and 2^b per number" with targets 3 eps apart would give
log N/log(r/(3 eps)), which is weaker: no delta is lost here, as no net is needed.

**Assumptions.** `assumptions`. **Tightness.** Attained while Q disjoint balls of radius eps fit.
**Cost.** Microseconds; the threshold is decided exactly (`exact_products`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from flint import arb

from promptlimits.base.bound import Assumption, Certificate, LogBound, Source, log_ball
from promptlimits.base.checks import require_positive_int
from promptlimits.base.errors import UserError
from promptlimits.base.typing import JsonObject
from promptlimits.theory.bisection import largest
from promptlimits.theory.counting_claim import (
    ENVIRONMENTS_LOG2,
    environments_text,
    exact_text,
    format_text,
)
from promptlimits.theory.exact_products import product_exceeds_one
from promptlimits.theory.grid_logs import grid_upper, total
from promptlimits.theory.number_formats import NumberFormat
from promptlimits.theory.prompt_capacity import fraction_text, quantity
from promptlimits.theory.prompt_setting import PromptSetting

SOURCE: Final = Source(
    reference="promptlimits",
    statement="counting cap for vector targets (promptlimits.theory.vector_counting)",
    form="proved here",
)

_FIXED: Final = "The model and the inputs are fixed beforehand, not chosen to suit the targets."
_NOTHING_ELSE: Final = "Nothing else about the targets reaches the model."
_VOLUME: Final = (
    "The share is one of volume: targets uniform in the product of balls of the given radius."
)


@dataclass(frozen=True, kw_only=True)
class PromptValues:
    """How many values a prompt can take.

    Attributes:
        name: What a prompt is made of, in words that fix the count.
        values: Values of one number, or of one token.
        per_token: Whether a token takes one value (hard prompts) or each of its d numbers does.
        environments_log2: log2 H, environments that outputs may depend on besides.
    """

    name: str
    values: int
    per_token: bool
    environments_log2: int = ENVIRONMENTS_LOG2

    def power(self, setting: PromptSetting) -> int:
        """How many choices among `values` a prompt is."""
        return setting.prompt_tokens if self.per_token else setting.prompt_numbers

    def assumptions(self) -> tuple[Assumption, ...]:
        """What the cap rests on."""
        counted = (
            "Each prompt is one of the counted values, and the outputs are a function of it and "
            f"of one of at most {environments_text(self.environments_log2)} (hardware, kernels, "
            "batches, library versions) fixed beforehand."
        )
        texts = (_FIXED, counted, _NOTHING_ELSE, _VOLUME)
        return tuple(Assumption(text=text) for text in texts)


@dataclass(frozen=True, kw_only=True)
class CountedShare:
    """An upper limit on the share of target lists that counted prompts reach.

    Attributes:
        pairs: k.
        bound: The limit on the share.
        first_pairs: The least k whose limit is below 1, exactly.
        certificate: What a checker needs to verify it.
    """

    pairs: int
    bound: LogBound
    first_pairs: int
    certificate: Certificate


def stored(number: NumberFormat) -> PromptValues:
    """Prompts kept in a number format."""
    return PromptValues(name=format_text(number), values=number.values, per_token=False)


def hard(vocabulary: int) -> PromptValues:
    """Prompts made of tokens of a vocabulary."""
    if require_positive_int("vocabulary", vocabulary) < 2:
        raise UserError(
            "vocabulary", "have at least 2 tokens", got=vocabulary, remedy="count its tokens"
        )
    name = f"vocabulary of {exact_text(vocabulary)} tokens"
    return PromptValues(name=name, values=vocabulary, per_token=True)


def counted_share(setting: PromptSetting, pairs: int, prompts: PromptValues) -> CountedShare:
    """Upper limit on the share of lists of `pairs` targets that counted prompts reach."""
    require_positive_int("pairs", pairs)
    power, numbers = prompts.power(setting), setting.target_numbers(pairs)
    ratio = Fraction(setting.eps) / setting.radius
    log2 = prompts.environments_log2
    factors = tuple(
        LogBound(
            direction="upper",
            log=grid_upper(log),
            quantity=name,
            source=SOURCE,
            assumptions=prompts.assumptions(),
        )
        for name, log in (
            (f"different prompts ({prompts.name})", lambda: power * log_ball(prompts.values)),
            (environments_text(log2), lambda: log2 * log_ball(2)),
            (
                "volume of targets within eps of one output, over that of all",
                lambda: numbers * log_ball(ratio),
            ),
        )
    )
    words = f"r = {fraction_text(setting.radius)}, eps = {fraction_text(setting.eps)}"
    bound = total(factors, quantity=f"{quantity(setting, pairs)}; {words}", source=SOURCE)
    return CountedShare(
        pairs=pairs,
        bound=bound,
        first_pairs=first_counted_pairs(setting, prompts),
        certificate=Certificate(
            kind="vector_counting", bound=bound, inputs=_inputs(setting, pairs, prompts)
        ),
    )


def counting_excludes(
    setting: PromptSetting, pairs: int, prompts: PromptValues, share: Fraction = Fraction(1)
) -> bool:
    """Whether Q (eps/r)^(d m k) < share, exactly."""
    ratio, numbers = Fraction(setting.radius) / setting.eps, setting.target_numbers(pairs)
    return product_exceeds_one(
        [
            (ratio.numerator, numbers),
            (ratio.denominator, -numbers),
            (prompts.values, -prompts.power(setting)),
            (2, -prompts.environments_log2),
            (share.numerator, 1),
            (share.denominator, -1),
        ]
    )


def first_counted_pairs(setting: PromptSetting, prompts: PromptValues) -> int:
    """The least k for which counting excludes some lists, exactly."""
    return largest(lambda pairs: not counting_excludes(setting, pairs, prompts)) + 1


def counting_kappa(setting: PromptSetting, prompts: PromptValues) -> Fraction:
    """log Q/(d m_p log(r/eps)), rounded up: to set beside kappa* of Theorem 1."""
    ratio = Fraction(setting.radius) / setting.eps
    power, numbers = prompts.power(setting), setting.prompt_numbers

    def kappa() -> arb:
        log = power * log_ball(prompts.values) + prompts.environments_log2 * log_ball(2)
        return log / numbers / log_ball(ratio)

    end = grid_upper(kappa)
    mantissa, exponent = (int(part) for part in end.man_exp())
    return mantissa * Fraction(2) ** exponent


def _inputs(setting: PromptSetting, pairs: int, prompts: PromptValues) -> JsonObject:
    return {
        "dim": setting.dim,
        "prompt_tokens": setting.prompt_tokens,
        "tokens": setting.tokens,
        "pairs": pairs,
        "radius": fraction_text(setting.radius),
        "eps": fraction_text(setting.eps),
        "prompts": prompts.name,
        "values": exact_text(prompts.values),
        "per_token": prompts.per_token,
        "environments_log2": prompts.environments_log2,
    }
