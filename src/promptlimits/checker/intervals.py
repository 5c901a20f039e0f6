"""Rigorous intervals of decimal numbers, from the standard library alone.

What wrote a certificate computed with flint's binary balls. What checks it computes here, on
other arithmetic, in another base and at another precision.

    with precision(60):                 # digits, 60 unless told; of this thread and block alone
        x = log(Fraction(10**100, 7))   # exact ints and Fractions in, an interval out
        y = log1p(exp(-x)) * 3 - real(Fraction(1, 3))
        y.high < 0                      # proved to be negative

**Why it is safe.** `decimal` rounds + - * / as told: the low end is computed towards
-infinity, the high end towards +infinity. `ln`, `exp` and `sqrt` are documented to be rounded
correctly, half to even, whatever the context says: the truth is within half a unit in the last
place of the result, so the neighbours on either side enclose it. Operands are never rounded
first. Overflow, underflow, NaN, infinity and division by zero raise (`ArithmeticError` or
`ValueError`), as does a function outside of its domain.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from typing import TypeAlias

Exact: TypeAlias = int | Fraction
_TRAPS = [decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow, decimal.Underflow]


class _Rounding:
    """Contexts that round numbers of so many digits down, up and half to even."""

    def __init__(self, digits: int) -> None:
        def context(rounding: str) -> Context:
            ends = decimal.MIN_EMIN, decimal.MAX_EMAX
            return Context(digits, rounding, *ends, 1, clamp=0, flags=[], traps=_TRAPS)

        self.digits = digits
        self.down, self.up = context(ROUND_FLOOR), context(ROUND_CEILING)
        self.near = context(ROUND_HALF_EVEN)


_CURRENT = ContextVar("_CURRENT", default=_Rounding(60))  # noqa: B039 - nothing of it is set


@contextmanager
def precision(digits: int) -> Iterator[None]:
    """Compute with so many digits in a block."""
    token = _CURRENT.set(_Rounding(digits))
    try:
        yield
    finally:
        _CURRENT.reset(token)


@dataclass(frozen=True, slots=True)
class Interval:
    """All real numbers from `low` to `high`."""

    low: Decimal
    high: Decimal

    def __post_init__(self) -> None:
        if not (self.low.is_finite() and self.high.is_finite() and self.low <= self.high):
            raise ValueError(f"no interval goes from {self.low} to {self.high}")

    def __neg__(self) -> Interval:
        return Interval(self.high.copy_negate(), self.low.copy_negate())

    def __add__(self, other: Interval | Exact) -> Interval:
        other, rounding = real(other), _CURRENT.get()
        return Interval(
            rounding.down.add(self.low, other.low), rounding.up.add(self.high, other.high)
        )

    def __sub__(self, other: Interval | Exact) -> Interval:
        return self + -real(other)

    def __mul__(self, other: Interval | Exact) -> Interval:
        return _corners(Context.multiply, self, real(other))

    def __truediv__(self, other: Interval | Exact) -> Interval:
        other = real(other)
        if other.low <= 0 <= other.high:
            raise ZeroDivisionError("the divisor may be zero")
        return _corners(Context.divide, self, other)

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: Exact) -> Interval:
        return -self + other

    def __rtruediv__(self, other: Exact) -> Interval:
        return real(other) / self

    def __pow__(self, power: int) -> Interval:
        """A product of so many factors: loose only where the interval holds 0."""
        if power < 0:
            return 1 / self**-power
        result, square = real(1), self
        while power:
            if power & 1:
                result *= square
            power >>= 1
            if power:
                square *= square
        return result


def real(value: Interval | Exact) -> Interval:
    """An interval that contains an exact number."""
    if isinstance(value, Interval):
        return value
    if isinstance(value, bool) or not isinstance(value, int | Fraction):
        raise TypeError(f"an int or a Fraction is exact; got {value!r}")
    whole = _integer(value.numerator)
    return whole if value.denominator == 1 else whole / _integer(value.denominator)


def dyadic(mantissa: int, exponent: int) -> Interval:
    """An interval that contains mantissa * 2**exponent."""
    return mantissa * real(2) ** exponent


def log(value: Interval | Exact) -> Interval:
    """The natural logarithm, of an exact number of any size, near 1 too."""
    if isinstance(value, Interval):
        return _rising(value, lambda end: _widened(Context.ln, end, exact_at=1))
    if value <= 0:
        raise ValueError("only a number above 0 has a logarithm")
    if 1 < 2 * value < 4:
        return log1p(real(value - 1))  # keeps the relative precision
    over, under = value.numerator, value.denominator
    return _log_integer(over) - _log_integer(under) if under > 1 else _log_integer(over)


def exp(x: Interval) -> Interval:
    """The exponential."""
    return _rising(x, lambda end: _widened(Context.exp, end, exact_at=0))


def sqrt(x: Interval) -> Interval:
    """The square root."""
    return _rising(x, lambda end: _widened(Context.sqrt, end, exact_at=0))


def log1p(x: Interval) -> Interval:
    """log(1 + x), to full relative precision: x - x^2 <= log(1 + x) <= x for tiny x."""
    return _near_zero(x, lambda t: Interval((t - t * t).low, t.high), lambda t: log(1 + t))


def expm1(x: Interval) -> Interval:
    """exp(x) - 1, to full relative precision: x <= exp(x) - 1 <= x + x^2 for tiny x."""
    return _near_zero(x, lambda t: Interval(t.low, (t + t * t).high), lambda t: exp(t) - 1)


def maximum(x: Interval | Exact, y: Interval | Exact) -> Interval:
    """The greater of two numbers."""
    return -minimum(-real(x), -real(y))


def minimum(x: Interval | Exact, y: Interval | Exact) -> Interval:
    """The lesser of two numbers."""
    x, y = real(x), real(y)
    return Interval(min(x.low, y.low), min(x.high, y.high))


def _corners(
    operation: Callable[[Context, Decimal, Decimal], Decimal], x: Interval, y: Interval
) -> Interval:
    """A product or quotient, whose extremes lie at ends."""
    ends, rounding = [(a, b) for a in (x.low, x.high) for b in (y.low, y.high)], _CURRENT.get()
    return Interval(
        min(operation(rounding.down, a, b) for a, b in ends),
        max(operation(rounding.up, a, b) for a, b in ends),
    )


def _rising(x: Interval, at: Callable[[Decimal], tuple[Decimal, Decimal]]) -> Interval:
    """The image under a rising function, which `at` encloses at a point."""
    return Interval(at(x.low)[0], at(x.high)[1])


def _near_zero(
    x: Interval, tiny: Callable[[Interval], Interval], full: Callable[[Interval], Interval]
) -> Interval:
    """A rising function that is 0 at 0, by its series where 1 + x has twice the digits."""
    digits = _CURRENT.get().digits

    def at(end: Decimal) -> tuple[Decimal, Decimal]:
        point = Interval(end, end)
        if end and end.adjusted() < -digits:
            found = tiny(point)
        else:
            with precision(2 * digits + 10):
                found = full(point)
        return found.low, found.high

    return _rounded(_rising(x, at))


def _rounded(x: Interval) -> Interval:
    rounding = _CURRENT.get()
    return Interval(rounding.down.plus(x.low), rounding.up.plus(x.high))


def _widened(
    function: Callable[[Context, Decimal], Decimal], end: Decimal, *, exact_at: int
) -> tuple[Decimal, Decimal]:
    """The neighbours of a correctly rounded value; one point is known to be exact."""
    near = _CURRENT.get().near
    value = function(near, end)
    return (value, value) if end == exact_at else (near.next_minus(value), near.next_plus(value))


def _integer(number: int) -> Interval:
    """By its leading bits if it is long: converting all of them takes time that grows squared."""
    digits = _CURRENT.get().digits
    if number.bit_length() <= 8 * digits:
        return _rounded(Interval(Decimal(number), Decimal(number)))
    with precision(digits + 10 + len(str(number.bit_length()))):
        leading, shift = _leading(number)
        whole = leading * real(2) ** shift
    return _rounded(whole)


def _log_integer(number: int) -> Interval:
    """log(c 2**s) to about so many decimals, not digits: a difference of two is taken."""
    with precision(_CURRENT.get().digits + 10 + len(str(number.bit_length()))):
        leading, shift = _leading(number)
        return log(leading) + log(real(2)) * shift


def _leading(number: int) -> tuple[Interval, int]:
    """An interval c and a shift s with number in c 2**s."""
    shift = max(0, number.bit_length() - 4 * _CURRENT.get().digits)
    return Interval(Decimal(number >> shift), Decimal(-(-number >> shift))), shift
