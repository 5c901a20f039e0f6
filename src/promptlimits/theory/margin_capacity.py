"""How many answers a bounded prompt can hold with a logit margin.

**Statement.** K is the ball of prompts of radius rho (n = d m_p numbers). Fix k keys. A prompt
P *holds* the answers (y_1, .., y_k) with margin g > 0 if for every key the logit of y_i is at
least g above that of every other answer; an answer of several tokens must have that margin at
each of its tokens, read with the ones before it, and no answer continues another one (as when
each ends with an end token). Let every difference of two logits, at each such place, be
Lm-Lipschitz in P on K. Then the number of answer lists that prompts of K hold is at most

    (1 + Lm rho/g)^n,   and 1 if Lm rho < g.                                               (1)

*Proof.* Let P and P' hold different lists. At some key the answers differ; take the first token
at which they do. Up to it both have read the same, so the same logits are meant. With y and y'
the two tokens there, D = logit(y) - logit(y') has D(P) >= g and D(P') <= -g, so
2 g <= |D(P) - D(P')| <= Lm |P - P'|. So prompts of different lists are s = 2g/Lm apart. Open
balls of radius s/2 around them are disjoint in the ball of radius rho + s/2: there are at most
(1 + 2 rho/s)^n. The diameter of K is 2 rho, so there is one if 2 rho < s. []

**The ceiling.** Draw k answers independently and uniformly from M. The chance that some prompt
of K holds them with margin g is at most (1) M^(-k). The ceiling is the largest k for which that
is above a given share, as in `token_capacity`; the two counts, of stored values and of margins,
limit the same thing, and the smaller holds.

**Assumptions.** `ASSUMPTIONS`. **Tightness.** The packing of a ball by balls is attained up to
2^n at most. **Cost.** Milliseconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from flint import arb

from promptlimits._checks import require_positive_int
from promptlimits.bound import Assumption, Certificate, Exact, LogBound, Source, log_ball
from promptlimits.errors import UserError
from promptlimits.theory.bisection import largest
from promptlimits.theory.counting_claim import exact_text
from promptlimits.theory.exact_products import product_exceeds_one
from promptlimits.theory.grid_logs import grid_upper
from promptlimits.theory.optimal_delta import is_negative
from promptlimits.theory.prompt_capacity import fraction_text, lipschitz_text, lipschitz_words
from promptlimits.theory.prompt_setting import Norm, PromptSetting, require_exact_positive
from promptlimits.theory.token_capacity import DEFAULT_SHARE

SOURCE: Final = Source(
    reference="promptlimits",
    statement="margin theorem (promptlimits.theory.margin_capacity)",
    form="proved here",
)

ASSUMPTIONS: Final = (
    "The answers are independent and each is uniform over the given set of answers.",
    "The model, the keys and the decoding rule are fixed beforehand, not chosen to suit them.",
    "The prompt lies in the ball, and nothing else about the answers reaches the model.",
    (
        "On that ball every difference of two logits, at each token of an answer read with the "
        "ones before it, is Lipschitz in the prompt with the stated constant and norm."
    ),
    "Every token of a right answer has the stated margin; no answer continues another one.",
)


@dataclass(frozen=True, kw_only=True)
class MarginCeiling:
    """The most pairs that the margin theorem does not exclude.

    Attributes:
        pairs: The largest k with (1) M^(-k) > share; None for a single answer to give.
        bits: Upper limit on the number of answer lists held; `bits.upper_bits()` is what a
            prompt holds.
        certificate: What a checker needs to verify it.
    """

    pairs: int | None
    bits: LogBound
    certificate: Certificate


def margin_ceiling(
    *,
    dim: int,
    prompt_tokens: int,
    prompt_radius: Exact,
    lipschitz: Exact | LogBound,
    margin: Exact,
    answer_set_size: int,
    norm: Norm = "token",
    share: Fraction = DEFAULT_SHARE,
) -> MarginCeiling:
    """The most random answers that prompts of a ball can hold with a logit margin.

    Args:
        dim: d, numbers per prompt token.
        prompt_tokens: m_p, 1 or more.
        prompt_radius: rho.
        lipschitz: Lm, of every difference of two logits.
        margin: g.
        answer_set_size: M, answers each one is drawn from.
        norm: What rho and Lm are measured in (`PromptSetting.norm`).
        share: Share of random answer lists let through, strictly between 0 and 1.

    Returns:
        The ceiling.

    Raises:
        UserError: A value is out of range.
        TypeError: A quantity is a float.
    """
    require_exact_positive("margin", margin)
    require_positive_int("answer_set_size", answer_set_size)
    if not isinstance(share, Fraction):
        raise TypeError(f"the share must be an exact Fraction, got {share!r}")
    if not 0 < share < 1:
        raise UserError("share", "be above 0 and below 1", got=str(share), remedy="leave it out")
    # The margin theorem has no targets: their radius and error stand there unused.
    ball = PromptSetting(
        dim=dim,
        prompt_tokens=prompt_tokens,
        tokens=1,
        lipschitz=lipschitz,
        radius=2,
        eps=1,
        prompt_radius=prompt_radius,
        norm=norm,
    )
    bits = LogBound(
        direction="upper",
        log=grid_upper(lambda: _log_lists(ball, margin)),
        quantity=(
            f"answer lists held by prompts of {prompt_tokens} tokens of {dim} numbers with the "
            f"margin, beside a share {fraction_text(share)} of the lists of answers, each one of "
            f"{exact_text(answer_set_size)}; rho = {fraction_text(prompt_radius)}, g = "
            f"{fraction_text(margin)}, {lipschitz_words(lipschitz)}"
        ),
        source=SOURCE,
        assumptions=tuple(Assumption(text=text) for text in ASSUMPTIONS),
    )
    pairs = None
    if answer_set_size > 1:
        pairs = largest(lambda k: _not_excluded(ball, margin, k, answer_set_size, share))
    return MarginCeiling(
        pairs=pairs,
        bits=bits,
        certificate=Certificate(
            kind="margin",
            bound=bits,
            inputs={
                "dim": dim,
                "prompt_tokens": prompt_tokens,
                "prompt_radius": fraction_text(prompt_radius),
                "norm": norm,
                "lipschitz": lipschitz_text(lipschitz),
                "margin": fraction_text(margin),
                "answer_set_size": exact_text(answer_set_size),
                "share": fraction_text(share),
                "pairs": pairs,
            },
        ),
    )


def _single(ball: PromptSetting, margin: Exact) -> bool:
    """Whether Lm rho < g is proved: then there is one list."""
    squared = ball.reach_squared
    if squared is not None:
        return squared < (2 * Fraction(margin)) ** 2
    return is_negative(lambda: ball.log_reach() - log_ball(2 * Fraction(margin)))


def _log_lists(ball: PromptSetting, margin: Exact) -> arb:
    """Ball around the logarithm of (1)."""
    if _single(ball, margin):
        return arb(0)
    ratio = ball.log_reach() - log_ball(2 * Fraction(margin))
    if ratio > 0:
        return ball.prompt_numbers * (ratio + (-ratio).exp().log1p())
    return ball.prompt_numbers * ratio.exp().log1p()


def _not_excluded(
    ball: PromptSetting, margin: Exact, pairs: int, answers: int, share: Fraction
) -> bool:
    """Whether (1) M^(-k) > share; exactly, if Lm is exact and the base of (1) rational."""
    base = _rational_base(ball, margin)
    if base is None:
        return not is_negative(
            lambda: _log_lists(ball, margin) - pairs * log_ball(answers) - log_ball(share)
        )
    return product_exceeds_one(
        [
            (base.numerator, ball.prompt_numbers),
            (base.denominator, -ball.prompt_numbers),
            (answers, -pairs),
            (share.denominator, 1),
            (share.numerator, -1),
        ]
    )


def _rational_base(ball: PromptSetting, margin: Exact) -> Fraction | None:
    """1 + Lm rho/g, or 1 for a single list; None if it is irrational or Lm a logarithm."""
    if _single(ball, margin):
        return Fraction(1)
    root = math.isqrt(ball.spread)
    if isinstance(ball.lipschitz, LogBound) or root**2 != ball.spread:
        return None
    return 1 + ball.lipschitz * root * ball.rho / margin
