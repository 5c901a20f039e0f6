"""What a sufficient prompt length says of a necessary one: hu2025's footnote, and LoRA's count.

For the L-Lipschitz maps of [0,1]^(d x m) to within eps in an entrywise p-norm:

- **Sufficient**, as published (Theorem 2.5 of hu2025): for some one-layer, one-head transformer a
  prompt of L_p >= m lam tokens, lam = (2 L (d m)^(1/p)/eps)^(d m), answers every input. It is the
  table of the map on a grid: a length that suffices for one construction, although the work calls
  it a lower bound ("it suffices that L_p is at least this"). The formula is known here from
  secondary sources that agree with a footnote of meyer2025: d = 768, L = 1, p = 2, eps = 30 give
  lam = 10^640.67 and L_p = 10^640.97 for m = 2.
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

from flint import arb

from promptlimits.base.bound import PRECISION_BITS, LogBound, Source, grid_upper, log_ball
from promptlimits.base.errors import UserError
from promptlimits.base.exact import ball, working_precision
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
    numbers, root = target.dim * target.tokens, Fraction(target.exponent)

    def log_length() -> arb:
        side = log_ball(Fraction(2) * target.lipschitz / target.eps)
        cells = numbers * (side + log_ball(numbers) * root.denominator / root.numerator)
        return cells + log_ball(target.tokens)

    sufficient = LogBound(
        direction="upper",
        log=grid_upper(log_length),
        quantity="prompt tokens that suffice for the table",
        source=Source(reference="hu2025", statement="Theorem 2.5", form="as published"),
    )
    return PromptLengths(sufficient=sufficient, necessary_log10=_necessary(target))


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
