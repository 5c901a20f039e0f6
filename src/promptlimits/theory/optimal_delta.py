"""The best net for the prompt capacity theorem: its width delta, and the threshold it gives.

For kappa > 0 (kappa = m k/m_p in the theorem) let

    f(delta) = log(1 + a/delta) + kappa log((eps + delta)/r),   F(kappa) = min over delta of f.

**The minimum.** f'(delta) has the sign of

    q(delta) = kappa delta^2 + (kappa - 1) a delta - a eps,

which is negative at 0 and has one positive root, since the product of its roots is negative.
So the root is the only minimum:

    delta* = 2 eps / [(kappa - 1) + sqrt((kappa - 1)^2 + 4 kappa eps/a)].

F is therefore computable as a ball, on both sides: that F < 0 and that F > 0 are both proved,
over all delta, by one evaluation.

**The threshold.** F is a minimum of functions linear in kappa, hence concave, and tends to 0 as
kappa does; F'(kappa) = log((eps + delta*)/r) (envelope theorem), positive for small kappa as
delta* grows beyond all bounds. So F > 0 up to one kappa* and F < 0 beyond it, and

    kappa* = min over 0 < delta < r - eps of log(1 + a/delta) / log(r/(eps + delta)).

Every delta gives an upper limit on kappa*; F > 0 proves a lower one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from flint import arb

from promptlimits.base.bound import Exact, log_ball, working_precision
from promptlimits.theory.prompt_setting import PromptSetting

DELTA_BITS: Final = 32
"""Mantissa of a chosen delta: near a minimum, half of the digits lose nothing."""

MOST_BITS: Final = 4096
"""Where deciding a sign is given up: a difference below 2^-4000 counts as no difference."""

_STEPS: Final = 200


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Both sides of kappa*.

    Attributes:
        upper: kappa* is at most this.
        lower: And at least this.
        delta: The width of the net that proves the upper side.
    """

    upper: Fraction
    lower: Fraction
    delta: Fraction


def is_negative(evaluate: Callable[[], arb]) -> bool:
    """Whether a number is proved to be below 0, whatever the precision it takes."""
    bits = 64
    while bits <= MOST_BITS:
        with working_precision(bits):
            value = evaluate()
            if value < 0:
                return True
            if value >= 0:
                return False
        bits *= 2
    return False


def log_net(setting: PromptSetting, delta: arb) -> arb:
    """Ball around log(1 + a/delta), for a of any size, at the current precision."""
    ratio = setting.log_reach() - delta.log()
    if ratio > 0:
        return ratio + (-ratio).exp().log1p()
    return ratio.exp().log1p()


def log_balls(setting: PromptSetting, delta: arb) -> arb:
    """Ball around log((eps + delta)/r) at the current precision."""
    return (ball(setting.eps) + delta).log() - log_ball(setting.radius)


def ball(value: Exact) -> arb:
    """Ball around an exact number at the current precision."""
    value = Fraction(value)
    return arb(value.numerator) / value.denominator


def optimum(setting: PromptSetting, kappa: Fraction) -> arb:
    """Ball around delta* at the current precision."""
    inverse_reach = (-setting.log_reach()).exp()
    slack = ball(kappa) - 1
    root = (slack * slack + 4 * ball(kappa) * ball(setting.eps) * inverse_reach).sqrt()
    if kappa >= 1:
        return 2 * ball(setting.eps) / (slack + root)
    return (root - slack) / (2 * ball(kappa) * inverse_reach)


def least(setting: PromptSetting, kappa: Fraction) -> arb:
    """Ball around F(kappa), the minimum over all delta, at the current precision."""
    delta = optimum(setting, kappa)
    return log_net(setting, delta) + ball(kappa) * log_balls(setting, delta)


def best_delta(setting: PromptSetting, kappa: Fraction) -> Fraction:
    """The greatest number of `DELTA_BITS` bits that is at most delta*.

    It is settled by q(delta) <= 0, exactly if L is exact: whoever verifies a certificate finds
    the same one, so that no digit of it is free.
    """
    with working_precision(256):
        mantissa, exponent = (int(part) for part in optimum(setting, kappa).mid().man_exp())
    shift = mantissa.bit_length() - DELTA_BITS
    mantissa = mantissa >> shift if shift > 0 else mantissa << -shift
    exponent += shift
    while not _at_most_optimum(setting, kappa, mantissa * Fraction(2) ** exponent):
        mantissa -= 1
    while _at_most_optimum(setting, kappa, (mantissa + 1) * Fraction(2) ** exponent):
        mantissa += 1
    return mantissa * Fraction(2) ** exponent


def threshold(setting: PromptSetting) -> Threshold:
    """Both sides of kappa*, some 15 digits apart or better."""
    eps, radius = Fraction(setting.eps), Fraction(setting.radius)
    delta, upper = Fraction(0), Fraction(0)
    trial = min(eps, (radius - eps) / 2)
    # Dinkelbach's iteration: kappa falls, and settles after some five steps.
    for _ in range(_STEPS):
        kappa = _upper_kappa(setting, trial)
        if upper and kappa >= upper:
            break
        delta, upper = trial, kappa
        trial = best_delta(setting, kappa)
    gap = Fraction(1, 2**56)
    while not _is_below(setting, upper * (1 - gap)):
        gap *= 2
    return Threshold(upper=upper, lower=upper * (1 - gap), delta=delta)


def _is_below(setting: PromptSetting, kappa: Fraction) -> bool:
    """Whether kappa < kappa* is proved; 0 always is."""
    return kappa <= 0 or is_negative(lambda: -least(setting, kappa))


def _upper_kappa(setting: PromptSetting, delta: Fraction) -> Fraction:
    """An upper limit on kappa*, of 96 bits, from one delta below r - eps."""
    bits = 128
    while True:
        with working_precision(bits):
            ratio = log_net(setting, ball(delta)) / -log_balls(setting, ball(delta))
            if ratio.is_finite() and ratio.rel_accuracy_bits() > 100:
                mantissa, exponent = (int(part) for part in ratio.upper().man_exp())
                break
        bits *= 2
    shift = max(0, mantissa.bit_length() - 96)
    return -(-mantissa >> shift) * Fraction(2) ** (exponent + shift)


def _at_most_optimum(setting: PromptSetting, kappa: Fraction, delta: Fraction) -> bool:
    """Whether q(delta) <= 0, that is a (eps - (kappa - 1) delta) >= kappa delta^2."""
    squared = setting.reach_squared
    if squared is not None:
        rest = Fraction(setting.eps) - (kappa - 1) * delta
        return rest > 0 and squared * rest**2 >= kappa**2 * delta**4

    # kappa may have a million digits here: exact products with it would take minutes.
    def rest_ball() -> arb:
        return ball(setting.eps) - (ball(kappa) - 1) * ball(delta)

    return is_negative(lambda: -rest_ball()) and is_negative(
        lambda: log_ball(kappa) + 2 * log_ball(delta) - setting.log_reach() - rest_ball().log()
    )
