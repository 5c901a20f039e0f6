"""What a sufficient prompt length says of a necessary one: hu2025's footnote, and LoRA's count.

For the L-Lipschitz maps of [0,1]^(d x m) to within eps in an entrywise p-norm:

- **Sufficient** (`theory.hu2025`): the published length of Theorem 2.5.
- **Necessary** (`bounds.prompt_parameters.universality_lower_bound`), for transformers whose
  outputs are 1-Lipschitz in prompts with entries in [0, 1] (R = 1/2, largest entry), as those of
  `value_table` are. Without a prompt a network is one map g. The constants 0 and 1 are
  (d m)^(1/p) apart, so below half of that no g is near both; from there on the constant 1/2 is
  near every map.

For n answers of one layer, necessary prompts and LoRA's count: `bounds.prompt_parameters`.

**Cost.** Microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from promptlimits.base.bound import PRECISION_BITS, LogBound, working_precision
from promptlimits.base.errors import UserError
from promptlimits.base.exact import ball
from promptlimits.bounds.hu2025 import table_length
from promptlimits.bounds.prompt_parameters import universality_lower_bound
from promptlimits.lab.universal.universal_bound import FunctionClass


@dataclass(frozen=True, kw_only=True)
class PromptLengths:
    """Prompt tokens for one class of maps.

    Attributes:
        sufficient: Upper limit on the published length that suffices for hu2025's construction.
        necessary_log10: log10 of what is needed at least; None where no prompt is needed.
    """

    sufficient: LogBound
    necessary_log10: float | None


def prompt_lengths(target: FunctionClass) -> PromptLengths:
    """Prompt tokens that suffice as published, and those that are needed."""
    if target.exponent is None:
        raise UserError(
            "exponent", "be a number", got="none", remedy="the published length needs one; give 2"
        )
    found = table_length(
        dim=target.dim,
        tokens=target.tokens,
        lipschitz=target.lipschitz,
        alpha=target.exponent,
        eps=target.eps,
    )
    return PromptLengths(sufficient=found.prompt_tokens, necessary_log10=_necessary(target))


def _necessary(target: FunctionClass) -> float | None:
    """log10 of the tokens needed at least: one below half of the diameter, or what is proved."""
    with working_precision(PRECISION_BITS):
        if not bool(target.norm_of_ones() / 2 > ball(target.eps)):
            return None
    least: LogBound | None = None
    if 2 * target.eps < 1:
        least = universality_lower_bound(
            dim=target.dim,
            tokens=target.tokens,
            lipschitz=target.lipschitz,
            eps=target.eps,
            prompt_radius=Fraction(1, 2),
            prompt_lipschitz=1,
        )
    return max(0.0, least.lower_log10()) if least is not None else 0.0
