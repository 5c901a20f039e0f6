"""Theorem 4.7 of meyer2025 as published, to stand beside its correction.

**Statement, as published.** For a transformer of Lipschitz constant L, embedding radius r > 3 eps
and dimension d, and k > m_p log(3 L r/eps)/log(r/(3 eps)), the proportion of the lists of k
targets that is eps-accessible is at most [(3 L r/eps)^(m_p) / (r/(3 eps))^(m k)]^d.

**Where it is false.** For 3 L r < eps the first factor is below 1. A transformer whose MLP is 0
through W_1 = [I; -I], W_2 = [-I, I] and whose attention is off gives one list of outputs for
all prompts: every L > 0 is admissible, so that the published proportion can be made as small as
one likes, while the true one is (eps/r)^(d m k).

**Where it holds.** In one norm for prompts and outputs (longest token, or whole matrices), and
for 3 L r >= eps, the proportion is true, though not by the printed proof: Theorem 1 of
`prompt_capacity` with delta = eps if L r >= eps ((1 + 2 L r/eps) <= 3 L r/eps and 2 eps <=
3 eps), with one centre if L r < eps (eps + L r < 2 eps).

**Tokens in balls, L for the Frobenius norm.** With m_p > 1 it is false in general, for 3 L r >=
eps as well: the ball of prompts has the Frobenius radius r sqrt(m_p), of which the published
proportion knows nothing. Uniform attention, d = m = k = 1, query token 0, m_p = 49, V = 50/210:
the output is V times the mean of 50 tokens, L = V 7/50 = 1/30. At r = 1, eps = 1/10 it fills
[-7/30, 7/30], so that a third of the targets is reached; published is 3/10.

**The threshold as printed** lacks the factor 1/m that its own proof gives ("for m k > ..."): it
is true and weaker by m. `threshold_pairs` has the factor, `printed_pairs` has not.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from promptlimits.base.exact import grid_up, grid_value
from promptlimits.bounds.core import log
from promptlimits.bounds.prompt_capacity import PromptCapacity

_FALSE: Final = "false for 3 L r < eps: constant maps refute it"
_OTHER_NORM: Final = (
    "not proved for tokens in balls with L for the Frobenius norm, and false in general: the "
    "prompts' Frobenius norm grows like sqrt(m_p)"
)


@dataclass(frozen=True, kw_only=True)
class PublishedCapacity:
    """What the published theorem says of a case; nothing where it does not apply.

    Attributes:
        kappa: log(3 L r/eps)/log(r/(3 eps)), rounded up.
        threshold_pairs: kappa m_p/m, as its proof has it.
        printed_pairs: kappa m_p, as its statement has it.
        log_share: Grid point of the logarithm of the published proportion; a true upper limit
            only where there is no `reason`.
        false_here: Whether 3 L r < eps, where the published proportion is false. Not set where
            it is merely unproved (`reason`).
        reason: Why there are no numbers, or why those given are not to be trusted.
    """

    kappa: Fraction | None = None
    threshold_pairs: Fraction | None = None
    printed_pairs: Fraction | None = None
    log_share: int | None = None
    false_here: bool = False
    reason: str | None = "Theorem 4.7 needs r > 3 eps (its Remark 4.9)"


def published_capacity(case: PromptCapacity) -> PublishedCapacity:
    """The published threshold and proportion.

    Args:
        case: The case. The paper has one radius, for prompts and targets: r is the targets'
            here and the prompts' in 3 L r, without the sqrt(m_p) of the Frobenius norm.

    Returns:
        The numbers, or why there are none.
    """
    ratio = case.radius / (3 * case.eps)
    if ratio <= 1:
        return PublishedCapacity()
    first = 3 * case.prompt_radius / case.eps
    kappa = grid_value(grid_up(lambda: (log(case.lipschitz) + log(first)) / log(ratio)))
    other_norm = case.norm == "frobenius" and case.prompt_tokens > 1
    return PublishedCapacity(
        kappa=kappa,
        threshold_pairs=kappa * Fraction(case.prompt_tokens, case.tokens),
        printed_pairs=kappa * case.prompt_tokens,
        log_share=grid_up(
            lambda: (
                case.prompt_numbers * (log(case.lipschitz) + log(first))
                - case.target_numbers * log(ratio)
            )
        ),
        false_here=kappa < 0,
        reason=_FALSE if kappa < 0 else _OTHER_NORM if other_norm else None,
    )
