"""Theorem 4.10 as published, and with its inverted 3 put right. Neither is proved.

Published: no prompt of any length serves all of k > K target distributions, "in proportion",
K = (6Lr/eps)^d (1 + log(1 + (4Lr/eps)^q)) / ((3/eps)^d - log C). What is wrong:

1. (3/eps)^d should be (1/(3 eps))^d (targets 3 eps apart): `threes_put_right`.
2. Codewords 3 eps apart can share a prompt cell of radius eps/L: 6 and 4 should be 12 and 8.
3. C is not given, and Proposition 3.6 holds for no fixed C (`covering`).
4. W_q(M(P), M(P')) does not control prompts of different lengths: P and [P, P] are at distance 0.
5. There is no measure for "proportion" other than shares of a finite family.

`whole_output` states what holds.
"""

from __future__ import annotations

from typing import Final

from flint import arb

from promptlimits.base.exact import ball, grid_up, log1p_exp
from promptlimits.bounds.context.whole_output import WholeOutputCapacity
from promptlimits.bounds.core import log

ASSUMPTION: Final = (
    "Proposition 3.6 holds with C = 1, the same for all eps and r, and prompts of "
    "different lengths are compared by W_q alone. Neither is so."
)


def published_log_threshold(case: WholeOutputCapacity, *, threes_put_right: bool = False) -> int:
    """log K of Theorem 4.10 with C = 1, as printed or with its 3 put right: a grid point."""
    per_target = 1 / (3 * case.eps) if threes_put_right else 3 / case.eps

    def log_threshold() -> arb:
        ratio = log(case.lipschitz) + log(2 * case.radius / case.eps)
        weights = 1 + log1p_exp(ball(case.order) * (ratio + log(2)))
        return case.dim * (ratio + log(3) - log(per_target)) + weights.log()

    return grid_up(log_threshold)
