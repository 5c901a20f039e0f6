"""Prompt length of a table construction: Theorem 2.5 of hu2025, as published.

**Statement, as published.** For data from a C-Lipschitz map on [0, 1]^(d x L) and eps > 0, some
one-layer, one-head transformer and a prompt of length

    L_p >= L lam,   lam = (2 C (d L)^(1/alpha)/eps)^(d L),

answer every input within eps in the entrywise alpha-norm.

**What it is.** A length that *suffices* for one construction (the prompt is the table of the
map on a grid); it is not necessary, although the work calls it a lower bound: "it suffices that
L_p is at least this". A length that is necessary for every transformer of a Lipschitz constant
is in `prompt_parameters.universality_lower_bound`.

**Example** (a footnote of meyer2025): d = 768, C = 1, alpha = 2, eps = 30, L = 2 give
lam = 10^640.67 and L_p = 10^640.97. With L = 1, 10^204.7.

**Source.** hu2025, Theorem 2.5; the formula is known here from secondary sources that agree
with the footnote's number. **Cost.** Microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from promptlimits.base.bound import (
    Exact,
    LogBound,
    Source,
    grid_upper,
    log_ball,
    require_exact_positive,
)
from promptlimits.base.checks import require_positive_int

SOURCE: Final = Source(reference="hu2025", statement="Theorem 2.5", form="as published")
LABEL: Final = "sufficient, not necessary"


@dataclass(frozen=True, kw_only=True)
class TableLength:
    """The published prompt length.

    Attributes:
        grid: lam, the number of cells, an upper limit.
        prompt_tokens: L lam, an upper limit on the length that suffices.
        label: What it says.
    """

    grid: LogBound
    prompt_tokens: LogBound
    label: str = LABEL


def table_length(
    *, dim: int, tokens: int, lipschitz: Exact, alpha: Exact, eps: Exact
) -> TableLength:
    """Prompt tokens that suffice for the table construction."""
    numbers = require_positive_int("dim", dim) * require_positive_int("tokens", tokens)
    for name, value in (("lipschitz", lipschitz), ("alpha", alpha), ("eps", eps)):
        require_exact_positive(name, value)
    root = Fraction(alpha)
    side = Fraction(2) * lipschitz / eps
    cells = LogBound(
        direction="upper",
        log=grid_upper(
            lambda: (
                numbers * (log_ball(side) + log_ball(numbers) * root.denominator / root.numerator)
            )
        ),
        quantity="cells of the table",
        source=SOURCE,
    )
    length = LogBound(
        direction="upper",
        log=grid_upper(lambda: cells.log + log_ball(tokens)),
        quantity="prompt tokens that suffice for the table",
        source=SOURCE,
        factors=(cells,),
    )
    return TableLength(grid=cells, prompt_tokens=length)
