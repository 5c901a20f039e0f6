"""The counting cap for vector targets: what stored or hard prompts can reach, for any model.

**Statement.** Prompts take at most Q values: N^(d m_p) if each number is kept in a format of N
values, V^(m_p) if each token is one of a vocabulary of V. Fix the model and k inputs; no
Lipschitz constant, no continuity and no exact arithmetic is needed. The share of the volume of
the lists of k targets (products of balls of radius r, in the norm errors are measured in) that
some prompt brings within eps is at most

    Q (eps/r)^(d m k).

*Proof.* One prompt gives one list of outputs; what is within eps of it is a product of k balls
of radius eps. []

So lists are excluded from k > log Q / (d m log(r/eps)) on: kappa = log N/log(r/eps) in the
units of Theorem 1 (kappa m_p/m pairs). Theorem 1 helps only where its kappa* is below that.
The form "min of the net and 2^b per number" with targets 3 eps apart would give
log N/log(r/(3 eps)), which is weaker: no delta is lost here, as no net is needed.

**Assumptions.** `ASSUMPTIONS`. **Tightness.** Attained while Q disjoint balls of radius eps fit.
**Cost.** Microseconds; the threshold is decided exactly (`exact_products`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from promptlimits._checks import require_positive_int
from promptlimits._typing import JsonObject
from promptlimits.bound import Assumption, Certificate, LogBound, Source, log_ball
from promptlimits.errors import UserError
from promptlimits.theory.bisection import largest
from promptlimits.theory.counting_claim import exact_text, format_text
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

ASSUMPTIONS: Final = (
    "The model and the inputs are fixed beforehand, not chosen to suit the targets.",
    "Each prompt is one of the counted values, and its outputs depend on it and the input alone.",
    "Nothing else about the targets reaches the model.",
    "The share is one of volume: targets uniform in the product of balls of the given radius.",
)


@dataclass(frozen=True, kw_only=True)
class PromptValues:
    """How many values a prompt can take.

    Attributes:
        name: What a prompt is made of, in words that fix the count.
        values: Values of one number, or of one token.
        per_token: Whether a token takes one value (hard prompts) or each of its d numbers does.
    """

    name: str
    values: int
    per_token: bool

    def power(self, setting: PromptSetting) -> int:
        """How many choices among `values` a prompt is.

        Args:
            setting: The sizes.

        Returns:
            m_p for hard prompts, d m_p for stored ones.
        """
        return setting.prompt_tokens if self.per_token else setting.prompt_numbers


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
    """Prompts kept in a number format.

    Args:
        number: The format.

    Returns:
        The count of values of each number.
    """
    return PromptValues(name=format_text(number), values=number.values, per_token=False)


def hard(vocabulary: int) -> PromptValues:
    """Prompts made of tokens of a vocabulary.

    Args:
        vocabulary: V, 2 or more.

    Returns:
        The count of values of each token.

    Raises:
        UserError: The vocabulary has fewer than two tokens.
    """
    if require_positive_int("vocabulary", vocabulary) < 2:
        raise UserError(
            "vocabulary", "have at least 2 tokens", got=vocabulary, remedy="count its tokens"
        )
    name = f"vocabulary of {exact_text(vocabulary)} tokens"
    return PromptValues(name=name, values=vocabulary, per_token=True)


def counted_share(setting: PromptSetting, pairs: int, prompts: PromptValues) -> CountedShare:
    """Upper limit on the share of lists of `pairs` targets that counted prompts reach.

    Args:
        setting: Sizes, radius and precision; its Lipschitz constant is not used.
        pairs: k, 1 or more.
        prompts: What prompts there are.

    Returns:
        The bound; it says nothing (more than 1) while `pairs` is small.

    Raises:
        UserError: `pairs` is below 1.
    """
    require_positive_int("pairs", pairs)
    power, numbers = prompts.power(setting), setting.target_numbers(pairs)
    ratio = Fraction(setting.eps) / setting.radius
    count = LogBound(
        direction="upper",
        log=grid_upper(lambda: power * log_ball(prompts.values)),
        quantity=f"different prompts ({prompts.name})",
        source=SOURCE,
        assumptions=_assumptions(),
    )
    balls = LogBound(
        direction="upper",
        log=grid_upper(lambda: numbers * log_ball(ratio)),
        quantity="volume of targets within eps of one output, over that of all",
        source=SOURCE,
        assumptions=_assumptions(),
    )
    words = f"r = {fraction_text(setting.radius)}, eps = {fraction_text(setting.eps)}"
    bound = total((count, balls), quantity=f"{quantity(setting, pairs)}; {words}", source=SOURCE)
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
    """Whether Q (eps/r)^(d m k) < share, exactly.

    Args:
        setting: Sizes, radius and precision.
        pairs: k, 0 or more.
        prompts: What prompts there are.
        share: What the limit is compared with, above 0.

    Returns:
        The exact answer.
    """
    ratio, numbers = Fraction(setting.radius) / setting.eps, setting.target_numbers(pairs)
    return product_exceeds_one(
        [
            (ratio.numerator, numbers),
            (ratio.denominator, -numbers),
            (prompts.values, -prompts.power(setting)),
            (share.numerator, 1),
            (share.denominator, -1),
        ]
    )


def first_counted_pairs(setting: PromptSetting, prompts: PromptValues) -> int:
    """The least k for which counting excludes some lists, exactly.

    Args:
        setting: Sizes, radius and precision.
        prompts: What prompts there are.

    Returns:
        k; k - 1 pairs are not excluded by counting.
    """
    return largest(lambda pairs: not counting_excludes(setting, pairs, prompts)) + 1


def counting_kappa(setting: PromptSetting, prompts: PromptValues) -> Fraction:
    """Log Q/(d m_p log(r/eps)), rounded up: to set beside kappa* of Theorem 1.

    Args:
        setting: Sizes, radius and precision.
        prompts: What prompts there are.

    Returns:
        The limit; from kappa m_p/m pairs on, lists are excluded.
    """
    ratio = Fraction(setting.radius) / setting.eps
    power = Fraction(prompts.power(setting), setting.prompt_numbers)
    end = grid_upper(
        lambda: log_ball(prompts.values) * power.numerator / power.denominator / log_ball(ratio)
    )
    mantissa, exponent = (int(part) for part in end.man_exp())
    return mantissa * Fraction(2) ** exponent


def _assumptions() -> tuple[Assumption, ...]:
    return tuple(Assumption(text=text) for text in ASSUMPTIONS)


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
    }
