"""The inverse problems: what is needed, at the least, for k pairs.

A number of pairs is *excluded* if Theorem 1 (`prompt_capacity`) or counting (`counting`)
proves that fewer than `share` of the target lists are reached. At share = 1: some are not.

**Monotone.** For fixed delta, (1) rises with m_p and eps, and falls with k and m where it is
below 1; so do minima over delta, (2) and the count. So what is excluded is an initial or a final
segment in each of m_p, eps, m and k, and bisection finds its end. On either side of the end the
answer is proved: by the minimum over all delta, a ball that does not contain log share.

Where a ball contains it up to 8,192 bits (as when the limit equals the share), nothing is
excluded. That is the safe side.

None of it says that what is not excluded can be done.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from promptlimits.base.exact import is_negative, largest, log
from promptlimits.bounds.counting import VectorCounting
from promptlimits.bounds.prompt_capacity import PromptCapacity

LONGEST_PROMPT: Final = 10**18
"""Beyond this length no end is sought; every length up to it is then excluded."""

_EPS_BITS: Final = 40
_LEAST_EPS: Final = 4096
"""Errors below r 2^-4096 are not looked at."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One case, by Theorem 1 and by counts of prompts.

    Attributes:
        net: Theorem 1 for the case.
        caps: Counts of the prompts, of the same sizes.
        share: Share of lists, above 0 and at most 1, of which fewer must be reached for a number
            of pairs to be excluded.
    """

    net: PromptCapacity
    caps: tuple[VectorCounting, ...] = ()
    share: Fraction = Fraction(1)

    def at(self, **changed: Any) -> Plan:
        """The case with other sizes or another error, which are in range."""
        net = self.net.model_copy(update=changed)
        caps = tuple(cap.model_copy(update=changed) for cap in self.caps)
        return Plan(net=net, caps=caps, share=self.share)

    def excluded_by(self) -> str | None:
        """Which theorem proves that fewer than the share of the lists are reached, if any."""
        net = self.net
        if is_negative(lambda: net.log_share_of_centre() - log(self.share)):
            return "one centre"
        kappa = net.kappa(net.pairs)
        if is_negative(lambda: net.prompt_numbers * net.least(kappa) - log(self.share)):
            return "lipschitz"
        return next((cap.prompts for cap in self.caps if cap.excluded(net.pairs, self.share)), None)

    def most_pairs(self) -> int:
        """The most pairs that are not excluded."""
        return largest(lambda k: k == 0 or self.at(pairs=k).excluded_by() is None)

    def longest_answers(self) -> int:
        """The most tokens per answer with which the pairs are not excluded."""
        return largest(lambda m: m == 0 or self.at(tokens=m).excluded_by() is None)

    def shortest_prompt(self) -> int | None:
        """The fewest prompt tokens with which the pairs are not excluded; None if none will do."""
        one = self.at(prompt_tokens=1).net
        if one.norm != "frobenius" and is_negative(
            lambda: one.log_share_of_centre() - log(self.share)
        ):
            return None

        def excluded(tokens: int) -> bool:
            if tokens == 0:
                return True
            fits = tokens <= LONGEST_PROMPT
            return fits and self.at(prompt_tokens=tokens).excluded_by() is not None

        return largest(excluded) + 1

    def error_floor(self) -> tuple[Fraction | None, Fraction]:
        """The largest error that is excluded, to 40 bits of it, and one above it that is not.

        None for the first if r/2^4096 is not excluded.
        """
        radius = self.net.radius

        def excluded(eps: Fraction) -> bool:
            # An error of the radius is met by answering 0.
            return eps < radius and self.at(eps=eps).excluded_by() is not None

        def not_excluded_at(power: int) -> bool:
            return power <= _LEAST_EPS and not excluded(radius / 2**power)

        power = largest(not_excluded_at) + 1
        if power > _LEAST_EPS:
            return None, radius / 2**_LEAST_EPS
        step = radius / 2 ** (power + _EPS_BITS)
        # r/2^power is excluded, 2^40 of these steps; twice as much is not.
        steps = 2**_EPS_BITS + largest(lambda more: excluded((2**_EPS_BITS + more) * step))
        return steps * step, (steps + 1) * step


def tokens_for_exact_access(*, pairs: int, tokens: int) -> int:
    """m k: with fewer prompt tokens only a null set of target lists is met exactly.

    Proposition 1, see `prompt_capacity`; that so many tokens suffice is not claimed.
    """
    return pairs * tokens
