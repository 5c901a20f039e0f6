"""Recorded logarithms that have one right value: points of the grid of multiples of 2^-96.

`promptlimits.theory.grid_logs` says why; here they are found again with decimal intervals.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import ceil
from typing import Any, Final

from promptlimits.checking.intervals import DIGITS, Interval, log_of
from promptlimits.checking.record import (
    RecordedBound,
    dyadic,
    exact_fraction,
    refuted,
    require_assumptions,
    require_same,
    require_source,
)

GRID_BITS: Final = 96
_MOST_DIGITS: Final = 16 * DIGITS


def require_grid_log(recorded: Fraction, truth: Callable[[int], Interval], what: str) -> None:
    """Refuse a recorded upper limit that is not the least grid point at or above the truth."""
    if recorded != grid_point(truth):
        raise refuted(f"the recorded logarithm of {what} is not the one that its inputs give")


def grid_point(truth: Callable[[int], Interval]) -> Fraction:
    """The least grid point at or above a real number; above it, if no precision tells."""
    digits = DIGITS
    while True:
        interval = truth(digits)
        low, high = (ceil(Fraction(end) * 2**GRID_BITS) for end in (interval.low, interval.high))
        if low == high or digits == _MOST_DIGITS:
            return Fraction(high, 2**GRID_BITS)
        digits *= 2


def is_negative(truth: Callable[[int], Interval], what: str) -> bool:
    """Whether a number is below 0; 0 itself is not."""
    digits = DIGITS
    while digits <= _MOST_DIGITS:
        interval = truth(digits)
        if interval.high < 0:
            return True
        if interval.low >= 0:
            return False
        digits *= 2
    raise refuted(f"{what} cannot be decided")


def require_words(
    bound: RecordedBound,
    *,
    quantity: str,
    source: tuple[str, str, str],
    assumptions: tuple[str, ...],
) -> None:
    """Refuse an upper limit whose words are not those of its theorem and its inputs."""
    reference, statement, form = source
    require_same(bound.direction, "upper", "the direction of the limit")
    require_same(bound.quantity, quantity, "what is limited")
    require_source(bound, reference=reference, statement=statement, form=form)
    require_assumptions(bound, assumptions, holds=(None,) * len(assumptions))


def lipschitz_log(value: Any) -> tuple[Fraction | None, Callable[[int], Interval]]:
    """A recorded Lipschitz constant: exact text, or the logarithm of an upper limit."""
    if isinstance(value, str):
        constant = exact_fraction(value, above=0)
        return constant, lambda digits: log_of(constant, digits)
    log = dyadic(value)
    if abs(log) > 10**9:
        raise ValueError("the Lipschitz constant is out of range")
    return None, lambda digits: Interval.of(log, digits)


def lipschitz_words(value: Any) -> str:
    """A recorded Lipschitz constant as the words of a bound hold it, with all its digits."""
    if isinstance(value, str):
        return f"L = {value}"
    return f"L = exp({value['mantissa']} * 2^{value['exponent']})"


def log_sum(one: Interval, other: Interval) -> Interval:
    """log(e^one + e^other) of two real numbers, without leaving the range of exponents."""
    if one.low < other.low:
        one, other = other, one
    return one + (other - one).exp().log1p()


def decades(log: Fraction) -> str:
    """An upper limit on a natural logarithm as a power of ten with three decimals, rounded up."""
    # log 10 lies between these; the one that gives the greater quotient is taken.
    ten = Fraction(2302585092994045684 + (log < 0), 10**18)
    thousandths = ceil(log / ten * 1000)
    whole, rest = divmod(abs(thousandths), 1000)
    return f"10^{'-' if thousandths < 0 else ''}{whole:,}.{rest:03}"
