"""Theorem 4.10 as published, and with its inverted 3 put right. Neither is proved.

Published: no prompt of any length serves all of k > K target distributions, "in proportion",
K = (6Lr/eps)^d (1 + log(1 + (4Lr/eps)^q)) / ((3/eps)^d - log C). What is wrong:

1. (3/eps)^d should be (1/(3 eps))^d (targets 3 eps apart): `threes_put_right`.
2. Codewords 3 eps apart can share a prompt cell of radius eps/L: 6 and 4 should be 12 and 8.
3. C is not given, and Proposition 3.6 holds for no fixed C (`kloeckner_cover_as_published`).
4. W_q(M(P), M(P')) does not control prompts of different lengths: P and [P, P] are at distance 0.
5. There is no measure for "proportion" other than shares of a finite family.

`whole_output_capacity` states what holds.
"""

from __future__ import annotations

from fractions import Fraction

from flint import arb

from promptlimits.base.bound import Assumption, Exact, LogBound, Source, log_ball, working_precision
from promptlimits.base.checks import require_positive_int
from promptlimits.base.errors import UserError
from promptlimits.theory.prompt_setting import require_exact_positive
from promptlimits.theory.wasserstein import order_of, require_measures


def published_threshold(
    *,
    dim: int,
    lipschitz: Exact | LogBound,
    radius: Exact,
    eps: Exact,
    order: Exact,
    constant: Exact = 1,
    threes_put_right: bool = False,
) -> LogBound:
    """The threshold K of Theorem 4.10, as printed or with its 3 put right."""
    require_measures(dim, radius, order)
    require_exact_positive("eps", eps)
    require_exact_positive("C", constant)
    per_target = 1 / (3 * Fraction(eps)) if threes_put_right else 3 / Fraction(eps)
    with working_precision(512):
        slope = (require_positive_int("dim", dim) * log_ball(per_target)).exp() - log_ball(constant)
        if not slope > 0:
            raise UserError(
                "C",
                "have a logarithm below that of the targets' number",
                got=constant,
                remedy="with such a C the published theorem has no threshold",
            )
        ratio = log_lipschitz(lipschitz) + log_ball(2 * Fraction(radius) / Fraction(eps))
        weights = 1 + (order_of(order) * (ratio + log_ball(2))).exp().log1p()
        log = dim * (ratio + log_ball(3)) + weights.log() - slope.log()
    return LogBound(
        direction="upper",
        log=log,
        quantity="pairs beyond which Theorem 4.10 speaks"
        + (", with its 3 put right" if threes_put_right else ", as published"),
        source=Source(
            reference="meyer2025",
            statement="Theorem 4.10" + (", 1/(3 eps) for 3/eps" if threes_put_right else ""),
            form="as published",
        ),
        assumptions=(
            Assumption(
                text=f"Proposition 3.6 holds with C = {constant}, the same for all eps and r, and "
                "prompts of different lengths are compared by W_q alone. Neither is so.",
                holds=False,
            ),
        ),
    )


def log_lipschitz(lipschitz: Exact | LogBound) -> arb:
    """Ball around log L at the current precision."""
    return lipschitz.log if isinstance(lipschitz, LogBound) else log_ball(lipschitz)
