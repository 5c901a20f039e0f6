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

**Cost.** Microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from flint import arb

from promptlimits.base.bound import LogBound, Source, log_ball
from promptlimits.base.checks import require_positive_int
from promptlimits.theory.grid_logs import grid_upper
from promptlimits.theory.prompt_setting import PromptSetting

SOURCE: Final = Source(reference="meyer2025", statement="Theorem 4.7", form="as published")

_FALSE: Final = "false for 3 L r < eps: constant maps refute it"
_OTHER_NORM: Final = (
    "not proved for tokens in balls with L for the Frobenius norm, and false in general: the "
    "prompts' Frobenius norm grows like sqrt(m_p)"
)


@dataclass(frozen=True, kw_only=True)
class PublishedCapacity:
    """What the published theorem says of a case.

    Attributes:
        kappa: log(3 L r/eps)/log(r/(3 eps)), rounded up; None where the statement does not apply.
        threshold_pairs: kappa m_p/m, as its proof has it.
        printed_pairs: kappa m_p, as its statement has it.
        false_here: Whether 3 L r < eps, where the published proportion is false. Not set where
            it is merely unproved (`reason`).
        reason: Why there are no numbers, or why those given are not to be trusted.
    """

    kappa: Fraction | None
    threshold_pairs: Fraction | None
    printed_pairs: Fraction | None
    false_here: bool
    reason: str | None


def published_capacity(setting: PromptSetting) -> PublishedCapacity:
    """The published threshold.

    Args:
        setting: The case. The paper has one radius, for prompts and targets: r is the targets'
            here and the prompts' in 3 L r, without the sqrt(m_p) of the Frobenius norm.

    Returns:
        The numbers, or why there are none.
    """
    if setting.radius <= 3 * setting.eps:
        return PublishedCapacity(
            kappa=None,
            threshold_pairs=None,
            printed_pairs=None,
            false_here=False,
            reason="Theorem 4.7 needs r > 3 eps (its Remark 4.9)",
        )
    kappa = _ratio(
        lambda: _log_first(setting), lambda: log_ball(Fraction(setting.radius) / (3 * setting.eps))
    )
    false_here = kappa < 0
    return PublishedCapacity(
        kappa=kappa,
        threshold_pairs=kappa * Fraction(setting.prompt_tokens, setting.tokens),
        printed_pairs=kappa * setting.prompt_tokens,
        false_here=false_here,
        reason=_FALSE if false_here else _not_proved(setting),
    )


def published_proportion(setting: PromptSetting, pairs: int) -> LogBound | None:
    """The published proportion; a true upper limit only where there is no `reason`."""
    require_positive_int("pairs", pairs)
    if setting.radius <= 3 * setting.eps:
        return None
    numbers = setting.target_numbers(pairs)
    return LogBound(
        direction="upper",
        log=grid_upper(
            lambda: (
                setting.prompt_numbers * _log_first(setting)
                - numbers * log_ball(Fraction(setting.radius) / (3 * setting.eps))
            )
        ),
        quantity=f"share of the lists of {pairs} targets that are accessible, as published",
        source=SOURCE,
    )


def _not_proved(setting: PromptSetting) -> str | None:
    """Why the published numbers are not proved, if they are not; for 3 L r >= eps."""
    return _OTHER_NORM if setting.norm == "frobenius" and setting.prompt_tokens > 1 else None


def _log_first(setting: PromptSetting) -> arb:
    constant = setting.lipschitz
    log = constant.log if isinstance(constant, LogBound) else log_ball(constant)
    return log + log_ball(3 * setting.rho / setting.eps)


def _ratio(numerator: Callable[[], arb], denominator: Callable[[], arb]) -> Fraction:
    """The ratio of two numbers, rounded up to the grid."""
    mantissa, exponent = grid_upper(lambda: numerator() / denominator()).man_exp()
    return int(mantissa) * Fraction(2) ** int(exponent)
