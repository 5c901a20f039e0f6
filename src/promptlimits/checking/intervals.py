"""Rigorous intervals of decimal numbers, from the standard library alone.

What wrote a certificate computed with flint's binary balls. What checks it computes here, on
other arithmetic, in another base and at another precision.

**Summary.**

    Interval.of(Fraction(1, 3))            # contains it; exact ints and Fractions only
    Interval.from_dyadic(mantissa, exponent)
    log_of(Fraction(10**1_000_000, 7))     # log of an exact number of any size, near 1 too
    x + y, x - y, x * y, x / y, -x         # y: an Interval, an int or a Fraction
    x ** 3, x ** Fraction(2, 3)            # exact powers
    x.log(), x.exp(), x.sqrt(), x.log1p(), x.expm1(), x.maximum(y), x.minimum(y)
    x.certainly_less(y), x.certainly_at_most(y)   # True = proved; False = not proved
    x.contains(Fraction), x.low, x.high, x.digits

Each operation works at the greater `digits` of its operands (`DIGITS` unless told otherwise);
exact operands take those of the interval. There is no other way to set a precision, no global
context is read or changed, and threads share nothing.

**Why it is safe.** `decimal` rounds + - * / as told: the low end is computed towards
-infinity, the high end towards +infinity. `ln`, `exp` and `sqrt` are documented to be rounded
correctly, half to even, whatever the context says: the truth is within half a unit in the last
place of the result, so the neighbours on either side (`next_minus`, `next_plus`, in the same
precision) enclose it. Operands are never rounded first. Overflow, underflow, NaN and division
by zero raise (`ArithmeticError`): a number that is out of range is never used.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from typing import Final, TypeAlias

Exact: TypeAlias = int | Fraction

DIGITS: Final = 60
"""Decimal digits unless told otherwise: some 199 bits, where certificates are made with 128."""

_GUARD_DIGITS: Final = 10
_TRAPS: Final = (
    decimal.InvalidOperation,
    decimal.DivisionByZero,
    decimal.Overflow,
    decimal.Underflow,
)


@dataclass(frozen=True)
class Interval:
    """All real numbers from `low` to `high`.

    Attributes:
        low: The low end.
        high: The high end.
        digits: Decimal digits that results are computed to.

    Raises:
        ValueError: An end is not finite, the ends are in the wrong order, or there are fewer
            than 2 digits.
    """

    low: Decimal
    high: Decimal
    digits: int = DIGITS

    def __post_init__(self) -> None:
        if not (self.low.is_finite() and self.high.is_finite() and self.low <= self.high):
            raise ValueError(f"no interval goes from {self.low} to {self.high}")
        if self.digits < 2:
            raise ValueError(f"an interval has at least 2 digits, got {self.digits}")

    @classmethod
    def of(cls, value: Exact, digits: int = DIGITS) -> Interval:
        """An interval that contains an exact number; a single point if it has so few digits."""
        _require_exact(value)
        if value.denominator == 1:
            return _of_integer(value.numerator, digits)
        return _of_integer(value.numerator, digits) / _of_integer(value.denominator, digits)

    @classmethod
    def from_dyadic(cls, mantissa: int, exponent: int, digits: int = DIGITS) -> Interval:
        """An interval that contains mantissa * 2**exponent, as logarithms are recorded."""
        return cls.of(mantissa * Fraction(2) ** exponent, digits)

    def __add__(self, other: Interval | Exact) -> Interval:
        other = self._same(other)
        down, up, digits = _both(self, other)
        return Interval(down.add(self.low, other.low), up.add(self.high, other.high), digits)

    def __neg__(self) -> Interval:
        return Interval(self.high.copy_negate(), self.low.copy_negate(), self.digits)

    def __sub__(self, other: Interval | Exact) -> Interval:
        other = self._same(other)
        down, up, digits = _both(self, other)
        return Interval(
            down.subtract(self.low, other.high), up.subtract(self.high, other.low), digits
        )

    def __mul__(self, other: Interval | Exact) -> Interval:
        other = self._same(other)
        down, up, digits = _both(self, other)
        ends = [(x, y) for x in (self.low, self.high) for y in (other.low, other.high)]
        return Interval(
            min(down.multiply(x, y) for x, y in ends),
            max(up.multiply(x, y) for x, y in ends),
            digits,
        )

    def __truediv__(self, other: Interval | Exact) -> Interval:
        other = self._same(other)
        if other.low <= 0 <= other.high:
            raise ZeroDivisionError("the divisor may be zero")
        down, up, digits = _both(self, other)
        ends = [(x, y) for x in (self.low, self.high) for y in (other.low, other.high)]
        return Interval(
            min(down.divide(x, y) for x, y in ends),
            max(up.divide(x, y) for x, y in ends),
            digits,
        )

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: Exact) -> Interval:
        return self._same(other) - self

    def __rtruediv__(self, other: Exact) -> Interval:
        return self._same(other) / self

    def __pow__(self, exponent: Exact) -> Interval:
        """The interval raised to an exact power: a fractional one needs a base of at least 0."""
        _require_exact(exponent)
        if exponent != int(exponent):
            return self._fractional_power(Fraction(exponent))
        power = int(exponent)
        if power < 0:
            return 1 / self**-power
        size = self._magnitude()._whole_power(power)
        if self.low >= 0 or (self.high <= 0 and power % 2 == 0):
            return size
        if self.high <= 0:
            return -size
        if power % 2 == 0:
            return size if power else Interval.of(1, self.digits)
        below = Interval(Decimal(0), self.low.copy_negate(), self.digits)._whole_power(power)
        above = Interval(Decimal(0), self.high, self.digits)._whole_power(power)
        return Interval(below.high.copy_negate(), above.high, self.digits)

    def log(self) -> Interval:
        """The natural logarithm; it rises, so that the ends go to the ends."""
        if self.low <= 0:
            raise ValueError(f"there is no logarithm of what may be {self.low:.6g}")
        return self._rising(lambda end: _enclosed(Context.ln, end, self.digits, Decimal(1)))

    def exp(self) -> Interval:
        """The exponential; it rises."""
        return self._rising(lambda end: _enclosed(Context.exp, end, self.digits, Decimal(0)))

    def sqrt(self) -> Interval:
        """The square root; it rises."""
        if self.low < 0:
            raise ValueError(f"there is no square root of what may be {self.low:.6g}")
        return self._rising(lambda end: _square_root(end, self.digits))

    def log1p(self) -> Interval:
        """log(1 + x), to full relative precision for small x; it rises."""
        if self.low <= -1:
            raise ValueError(f"there is no logarithm of 1 and what may be {self.low:.6g}")
        return self._rising(lambda end: _log1p(end, self.digits))

    def expm1(self) -> Interval:
        """exp(x) - 1, to full relative precision for small x; it rises."""
        return self._rising(lambda end: _expm1(end, self.digits))

    def maximum(self, other: Interval | Exact) -> Interval:
        """The greater of two numbers, one of each interval."""
        other = self._same(other)
        return Interval(
            max(self.low, other.low), max(self.high, other.high), max(self.digits, other.digits)
        )

    def minimum(self, other: Interval | Exact) -> Interval:
        """The lesser of two numbers, one of each interval."""
        return -(-self).maximum(-self._same(other))

    def certainly_less(self, other: Interval | Exact) -> bool:
        """Whether every number here is less than every number there (False: not proved)."""
        return self.high < self._same(other).low

    def certainly_at_most(self, other: Interval | Exact) -> bool:
        """Whether no number here is greater than one there (False: not proved)."""
        return self.high <= self._same(other).low

    def contains(self, value: Exact) -> bool:
        """Whether an exact number is in the interval; decided exactly."""
        _require_exact(value)
        return Fraction(self.low) <= value <= Fraction(self.high)

    def to_digits(self, digits: int) -> Interval:
        """An interval of that many digits which contains this one."""
        down, up = _context(digits, ROUND_FLOOR), _context(digits, ROUND_CEILING)
        return Interval(down.plus(self.low), up.plus(self.high), digits)

    def _same(self, other: Interval | Exact) -> Interval:
        return other if isinstance(other, Interval) else Interval.of(other, self.digits)

    def _rising(self, at: Callable[[Decimal], tuple[Decimal, Decimal]]) -> Interval:
        """The image under a rising function, which `at` encloses at a point."""
        return Interval(at(self.low)[0], at(self.high)[1], self.digits)

    def _magnitude(self) -> Interval:
        """|x|."""
        low, high = self.low.copy_abs(), self.high.copy_abs()
        least = Decimal(0) if self.low <= 0 <= self.high else min(low, high)
        return Interval(least, max(low, high), self.digits)

    def _whole_power(self, power: int) -> Interval:
        """x**power for x >= 0, power >= 0, by squaring: products of numbers >= 0 rise in each."""
        result, square = Interval.of(1, self.digits), self
        while power:
            if power & 1:
                result *= square
            power >>= 1
            if power:
                square *= square
        return result

    def _fractional_power(self, power: Fraction) -> Interval:
        """x**power = exp(power log x) for x > 0; 0**power = 0 for power > 0."""
        if self.low == 0 < power:
            if self.high == 0:
                return self
            top = Interval(self.high, self.high, self.digits)._fractional_power(power)
            return Interval(Decimal(0), top.high, self.digits)
        return (self.log() * power).exp()


def log_of(value: Exact, digits: int = DIGITS) -> Interval:
    """The natural logarithm of an exact number of any size, near 1 too.

    Near 1 (from 1/2 to 2) it is log1p of the exact difference from 1, so that the relative
    precision is kept. Elsewhere it is log a - log b for a/b, each from its leading bits: with
    a = c 2**s, log a = log c + s log 2.
    """
    _require_exact(value)
    if value <= 0:
        raise ValueError("only a number above 0 has a logarithm")
    if 1 < 2 * value < 4:
        return Interval.of(value - 1, digits).log1p()
    more = digits + _GUARD_DIGITS
    log = _log_of_integer(value.numerator, more) - _log_of_integer(value.denominator, more)
    return log.to_digits(digits)


def _log_of_integer(number: int, digits: int) -> Interval:
    """log(number) to about that many decimals, not digits: a difference of two is taken."""
    digits += len(str(number.bit_length()))
    leading, shift = _leading(number, digits)
    return leading.log() + Interval.of(2, digits).log() * shift


def _of_integer(number: int, digits: int) -> Interval:
    if number.bit_length() <= 8 * digits:
        point = Decimal(number)  # exact, whatever its length
        return Interval(point, point, digits).to_digits(digits)
    more = digits + _GUARD_DIGITS + len(str(number.bit_length()))
    leading, shift = _leading(number, more)
    return (leading * Interval.of(2, more) ** shift).to_digits(digits)


def _leading(number: int, digits: int) -> tuple[Interval, int]:
    """An interval c and a shift s with number in c 2**s; conversion of all bits is too slow."""
    shift = max(0, number.bit_length() - 4 * digits)
    low, high = number >> shift, -((-number) >> shift)
    return Interval(Decimal(low), Decimal(high), digits), shift


def _context(digits: int, rounding: str) -> Context:
    """A context of its own for each use: flags and precision are shared with nobody."""
    return Context(
        prec=digits,
        rounding=rounding,
        Emin=decimal.MIN_EMIN,
        Emax=decimal.MAX_EMAX,
        capitals=1,
        clamp=0,
        flags=[],
        traps=list(_TRAPS),
    )


def _both(one: Interval, other: Interval) -> tuple[Context, Context, int]:
    """Contexts that round down and up, with the greater precision of the two."""
    digits = max(one.digits, other.digits)
    return _context(digits, ROUND_FLOOR), _context(digits, ROUND_CEILING), digits


def _enclosed(
    function: Callable[[Context, Decimal], Decimal], end: Decimal, digits: int, exact_at: Decimal
) -> tuple[Decimal, Decimal]:
    """A correctly rounded function at a point, widened by one unit on either side.

    The one point at which ln or exp of a decimal is a decimal (1 or 0) needs no widening.
    """
    context = _context(digits, ROUND_HALF_EVEN)
    nearest = function(context, end)
    if end == exact_at:
        return nearest, nearest
    return context.next_minus(nearest), context.next_plus(nearest)


def _square_root(end: Decimal, digits: int) -> tuple[Decimal, Decimal]:
    """The square root, proved by squaring: a square of `digits` digits is exact in twice them."""
    context = _context(digits, ROUND_HALF_EVEN)
    exact = _context(2 * digits + 1, ROUND_HALF_EVEN)
    nearest = context.sqrt(end)
    if exact.multiply(nearest, nearest) == end:
        return nearest, nearest
    low, high = context.next_minus(nearest), context.next_plus(nearest)
    if not exact.multiply(low, low) < end < exact.multiply(high, high):
        raise ArithmeticError(f"the square root of {end} is not rounded as documented")
    return low, high


def _log1p(end: Decimal, digits: int) -> tuple[Decimal, Decimal]:
    """log(1 + t). Tiny t: t - t^2 <= log(1 + t) <= t for |t| <= 1/2, by the series."""
    down, up = _context(digits, ROUND_FLOOR), _context(digits, ROUND_CEILING)
    if end == 0:
        return end, end
    if end.adjusted() < -digits:
        return down.subtract(end, up.multiply(end, end)), up.plus(end)
    one, wide = Decimal(1), 2 * digits + _GUARD_DIGITS
    low = _context(wide, ROUND_FLOOR).add(one, end)
    high = _context(wide, ROUND_CEILING).add(one, end)
    return (
        _enclosed(Context.ln, low, digits, one)[0],
        _enclosed(Context.ln, high, digits, one)[1],
    )


def _expm1(end: Decimal, digits: int) -> tuple[Decimal, Decimal]:
    """exp(t) - 1. Tiny t: t <= exp(t) - 1 <= t + t^2 for t <= 1, by the series."""
    down, up = _context(digits, ROUND_FLOOR), _context(digits, ROUND_CEILING)
    if end == 0:
        return end, end
    if end.adjusted() < -digits:
        return down.plus(end), up.add(end, up.multiply(end, end))
    low, high = _enclosed(Context.exp, end, 2 * digits + _GUARD_DIGITS, Decimal(0))
    return down.subtract(low, Decimal(1)), up.subtract(high, Decimal(1))


def _require_exact(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | Fraction):
        raise TypeError(f"an int or a Fraction is exact; got {value!r}")
