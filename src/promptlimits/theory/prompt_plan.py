"""The inverse problems: what is needed, at the least, for k pairs.

A number of pairs is *excluded* if Theorem 1 (`prompt_capacity`) or counting (`vector_counting`)
proves that fewer than `share` of the target lists are reached. At share = 1: some are not.

**Monotone.** For fixed delta, (1) rises with m_p and eps, and falls with k and m where it is
below 1; so do minima over delta, (2) and the count. So what is excluded is an initial or a final
segment in each of m_p, eps, m and k, and bisection finds its end. On either side of the end the
answer is proved: by the minimum over all delta, a ball that does not contain log share.

Where a ball contains it up to 4,096 bits (as when the limit equals the share), nothing is
excluded. That is the safe side.

None of it says that what is not excluded can be done.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from promptlimits.base.bound import log_ball
from promptlimits.base.checks import require_positive_int
from promptlimits.base.errors import UserError
from promptlimits.theory.bisection import largest
from promptlimits.theory.optimal_delta import is_negative, least
from promptlimits.theory.prompt_capacity import log_centre
from promptlimits.theory.prompt_setting import PromptSetting
from promptlimits.theory.vector_counting import PromptValues, counting_excludes

ALL: Final = Fraction(1)
"""Share below which a number of pairs counts as excluded, unless told otherwise."""

LONGEST_PROMPT: Final = 10**18
"""Beyond this length no end is sought; every length up to it is then excluded."""

_EPS_BITS: Final = 40
_LEAST_EPS: Final = 4096
"""Errors below r 2^-4096 are not looked at."""


@dataclass(frozen=True, kw_only=True)
class ErrorFloor:
    """The errors that are excluded.

    Attributes:
        excluded: Every error up to this one is proved to be out of reach; None if r/2^4096 is
            not.
        not_excluded: This one is not; it is above the other by a part in 2^40 at most.
    """

    excluded: Fraction | None
    not_excluded: Fraction


def excluded_by(
    setting: PromptSetting,
    pairs: int,
    *,
    share: Fraction = ALL,
    prompts: tuple[PromptValues, ...] = (),
) -> str | None:
    """Which theorem proves that fewer than `share` of the lists of `pairs` targets are reached."""
    _require_share(share)
    if pairs == 0:
        return None
    size, numbers = setting.prompt_numbers, setting.target_numbers(pairs)
    if is_negative(lambda: numbers * log_centre(setting) - log_ball(share)):
        return "one centre"
    kappa = Fraction(numbers, size)
    if is_negative(lambda: size * least(setting, kappa) - log_ball(share)):
        return "lipschitz"
    for values in prompts:
        if counting_excludes(setting, pairs, values, share):
            return values.name
    return None


def most_pairs(
    setting: PromptSetting, *, share: Fraction = ALL, prompts: tuple[PromptValues, ...] = ()
) -> int:
    """The most pairs that are not excluded."""
    return largest(lambda k: excluded_by(setting, k, share=share, prompts=prompts) is None)


def shortest_prompt(
    setting: PromptSetting,
    pairs: int,
    *,
    share: Fraction = ALL,
    prompts: tuple[PromptValues, ...] = (),
) -> int | None:
    """The fewest prompt tokens with which `pairs` pairs are not excluded."""
    require_positive_int("pairs", pairs)
    one = replace(setting, prompt_tokens=1)
    numbers = one.target_numbers(pairs)
    if one.norm != "frobenius" and is_negative(lambda: numbers * log_centre(one) - log_ball(share)):
        return None

    def excluded(tokens: int) -> bool:
        if tokens > LONGEST_PROMPT:
            return False
        longer = replace(setting, prompt_tokens=tokens)
        return excluded_by(longer, pairs, share=share, prompts=prompts) is not None

    return largest(excluded) + 1


def error_floor(
    setting: PromptSetting,
    pairs: int,
    *,
    share: Fraction = ALL,
    prompts: tuple[PromptValues, ...] = (),
) -> ErrorFloor:
    """The largest error that is excluded for `pairs` pairs, to 40 bits of it."""
    require_positive_int("pairs", pairs)
    radius = Fraction(setting.radius)

    def excluded(eps: Fraction) -> bool:
        if eps >= radius:  # answering 0 meets every target
            return False
        coarse = replace(setting, eps=eps)
        return excluded_by(coarse, pairs, share=share, prompts=prompts) is not None

    def not_excluded_at(power: int) -> bool:
        return power <= _LEAST_EPS and not excluded(radius / 2**power)

    power = largest(not_excluded_at) + 1
    if power > _LEAST_EPS:
        return ErrorFloor(excluded=None, not_excluded=radius / 2**_LEAST_EPS)
    step = radius / 2 ** (power + _EPS_BITS)
    # r/2^power is excluded, 2^40 of these steps; twice as much is not.
    steps = 2**_EPS_BITS + largest(lambda more: excluded((2**_EPS_BITS + more) * step))
    return ErrorFloor(excluded=steps * step, not_excluded=(steps + 1) * step)


def longest_answers(
    setting: PromptSetting,
    pairs: int,
    *,
    share: Fraction = ALL,
    prompts: tuple[PromptValues, ...] = (),
) -> int:
    """The most tokens per answer with which `pairs` pairs are not excluded."""
    require_positive_int("pairs", pairs)

    def not_excluded(tokens: int) -> bool:
        longer = replace(setting, tokens=tokens)
        return excluded_by(longer, pairs, share=share, prompts=prompts) is None

    return largest(not_excluded)


def _require_share(share: Fraction) -> None:
    if not isinstance(share, Fraction):
        raise TypeError(f"the share must be an exact Fraction, got {share!r}")
    if not 0 < share <= 1:
        raise UserError("share", "be above 0 and at most 1", got=str(share), remedy="give 1")
