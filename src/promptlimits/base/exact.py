"""Exact numbers, read from text, and what is decided of real ones by balls around them.

No float is an exact number: what a decimal literal lost on its way into a float would silently
become part of a proof. Real numbers are given as functions that enclose them in a ball of flint
(`arb`) at the current precision; precision rises until the ball tells what is asked.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import MAX_EMAX, MIN_EMIN, ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from typing import Final, TypeAlias

from flint import arb, ctx

Real: TypeAlias = Callable[[], arb]
Powers: TypeAlias = Sequence[tuple[int, int]]
"""Bases and exponents of a product."""

GRID_BITS: Final = 96
LARGEST_POWER: Final = 2000
"""Of ten, that is multiplied out: "1e-999999999" must not be, to be refused."""

_MOST_TYPED: Final = 200
_MOST_DIGITS: Final = 1300
LARGEST_FLOAT: Final = 1e300
"""Beyond it, and below its inverse, a number is recorded as text."""
_DECIMAL: Final = re.compile(r"([+-]?)(\d*)\.?(\d*)(?:[eE]([+-]?\d{1,9}))?", re.ASCII)
_RATIO: Final = re.compile(r"(-?\d+|-?0x[0-9a-f]+)/(\d+|0x[0-9a-f]+)", re.ASCII)
WHOLE: Final = re.compile(r"-?\d+|-?0x[0-9a-f]+", re.ASCII)
_FLINT_LOCK = threading.RLock()


class Rule(ValueError):
    """An input breaks a rule: what it must be, completing "NAME must ...", and what to do."""

    def __init__(self, rule: str, remedy: str = "write it as 0.1, 1e-4 or 1/3") -> None:
        self.rule, self.remedy = rule, remedy
        super().__init__(f"{rule}; {remedy}")


@contextmanager
def working_precision(bits: int) -> Iterator[None]:
    """Run a block with arb's precision set to `bits`, then put it back.

    arb keeps one precision for all threads, so blocks of different threads take turns.
    """
    with _FLINT_LOCK, ctx.workprec(bits):
        yield


def decimal_parts(text: str) -> tuple[int, int]:
    """Digits and power of ten of a number, which is not multiplied out."""
    plain = text.strip()
    if len(plain) > _MOST_TYPED:
        raise Rule(f"be written in at most {_MOST_TYPED} characters")
    match = _DECIMAL.fullmatch(plain)
    if not match or not match[2] + match[3]:
        raise Rule("be a finite number")
    return int(match[1] + match[2] + match[3]), int(match[4] or 0) - len(match[3])


def exact(value: object) -> Fraction:
    """An int, a Fraction or a text as the number that it stands for."""
    if isinstance(value, int | Fraction) and not isinstance(value, bool):
        return Fraction(value)
    if not isinstance(value, str):
        raise Rule("be an exact number: a float would put its rounding into the proof")
    plain = value.strip()
    if match := _RATIO.fullmatch(plain):
        under = integer(match[2])
        if not under:
            raise Rule("be a number with no 0 under the line")
        return Fraction(integer(match[1]), under)
    if WHOLE.fullmatch(plain):
        return Fraction(integer(plain))
    digits, power = decimal_parts(value)
    if digits and abs(power) > LARGEST_POWER:
        raise Rule(f"be between 1e-{LARGEST_POWER} and 1e{LARGEST_POWER}")
    return digits * Fraction(10) ** (power if digits else 0)


def integer(text: str) -> int:
    """A whole number, as `WHOLE` matches it."""
    if "0x" in text:
        return int(text, 16)
    if len(text) > _MOST_DIGITS:
        raise Rule(f"have at most {_MOST_DIGITS} digits")
    return int(text)


def number_text(value: int | Fraction, *, commas: bool = False) -> str:
    """A number in its one form: Python writes no decimals of over 4,300 digits."""
    form = "{:,}" if commas else "{}"
    over, under = (
        form.format(part) if part.bit_length() <= 4096 else hex(part)
        for part in value.as_integer_ratio()
    )
    return over if under == "1" else f"{over}/{under}"


def shown(value: int | Fraction) -> str:
    """A number as a sentence shows it."""
    over, under = value.as_integer_ratio()
    if max(abs(over), under).bit_length() > 128:
        return f"about 2^{over.bit_length() - under.bit_length()}"
    return f"{over:,}" if under == 1 else f"{over}/{under}"


def ball(value: Fraction | int | arb) -> arb:
    """Ball around a number."""
    return value if isinstance(value, arb) else arb(value.numerator) / value.denominator


def dyadic(number: Sequence[int]) -> arb:
    """m 2^e, exactly."""
    mantissa, exponent = number
    return arb((mantissa, exponent))


def dyadic_value(number: Sequence[int]) -> Fraction:
    """m 2^e."""
    mantissa, exponent = number
    return mantissa * Fraction(2) ** exponent


def log(value: Fraction | int) -> arb:
    """Ball around the natural logarithm of an exact number above 0."""
    over = arb(value.numerator).log()
    return over if value.denominator == 1 else over - arb(value.denominator).log()


def log1p_exp(x: arb) -> arb:
    """Ball around log(1 + e^x), for x of any size."""
    return x + (-x).exp().log1p() if x > 0 else x.exp().log1p()


def log_product(powers: Powers) -> arb:
    """Ball around the log of a product of powers."""
    return sum((power * log(base) for base, power in powers), arb(0))


def grid_up(real: Real) -> int:
    """Least n with n 2^-96 at or above a real number; above it, if 4,096 bits do not tell."""
    bits = 256
    while True:
        with working_precision(bits):
            scaled = real() * arb((1, GRID_BITS))
            end = scaled.ceil() if bits < 4096 else scaled.upper().ceil()
            if end.is_exact():
                mantissa, exponent = end.man_exp()
                return int(mantissa) << int(exponent)
        bits *= 2


def grid_value(point: int) -> Fraction:
    """The number that a grid point stands for."""
    return Fraction(point, 2**GRID_BITS)


def sign(real: Real, is_zero: Callable[[], bool] | None = None) -> int:
    """Sign of a real number; without a proof that it `is_zero`, 0 if no precision tells."""
    bits = 128
    while is_zero or bits <= 8192:
        with working_precision(bits):
            found = real()
            if found > 0 or found < 0:
                return 1 if found > 0 else -1
            if found == 0:
                return 0
        if is_zero and bits == 512 and is_zero():
            return 0
        bits *= 4
    return 0


def is_negative(real: Real) -> bool:
    """Whether a real number is below 0; a tie that no precision tells is not."""
    return sign(real) < 0


def is_one(powers: Powers) -> bool:
    """Whether a product of powers is 1; none is multiplied out, no base is factored.

    With g = gcd(a, b) > 1, a^e b^f = (a/g)^e (b/g)^f g^(e + f), until all bases are coprime; the
    product of the bases shrinks by g each time. Then, by unique factorisation, the product is 1
    only if every power is 0.
    """
    left, coprime = list(powers), dict[int, int]()
    while left:
        base, power = left.pop()
        if base == 1 or power == 0:
            continue
        other = next((known for known in coprime if math.gcd(known, base) > 1), None)
        if other is None:
            coprime[base] = power
            continue
        common, old = math.gcd(other, base), coprime.pop(other)
        left += [(base // common, power), (other // common, old), (common, power + old)]
    return not coprime


def exceeds_one(powers: Powers) -> bool:
    """Whether a product of powers is above 1, exactly."""
    return sign(lambda: log_product(powers), lambda: is_one(powers)) > 0


def largest(holds: Callable[[int], bool]) -> int:
    """The largest k of an initial segment {0..k} on which `holds`; it holds at 0."""
    low, high = 0, 1
    while holds(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def last_float(bits: int, holds: Callable[[arb], bool], near: Real) -> list[int]:
    """[m, e], m of so many bits: `holds` at m 2^e, not at (m + 1) 2^e; `near` is close to it."""
    half, accuracy = 1 << (bits - 1), 256

    def number(place: int) -> tuple[int, int]:
        return half + place % half, place // half

    while True:
        with working_precision(accuracy):
            found = near()
            if found.rel_accuracy_bits() > bits:
                break
        accuracy *= 2
    mantissa, exponent = (int(part) for part in found.mid().man_exp())
    shift = mantissa.bit_length() - bits
    mantissa = mantissa >> shift if shift > 0 else mantissa << -shift
    place = (exponent + shift) * half + mantissa - half
    while not holds(arb(number(place))):
        place -= 1
    while holds(arb(number(place + 1))):
        place += 1
    return list(number(place))


def outward_float(real: Real, *, up: bool) -> float:
    """The nearest float that is not on the wrong side of a ball of 128 bits.

    float(arb) rounds to nearest, which may be on the wrong side; comparisons of exact numbers
    are exact.
    """
    with working_precision(128):
        found = real()
    with working_precision(max(128, int(found.mid().bits()) + 64)):
        end = found.upper() if up else found.lower()
    number = float(end)
    if up:
        return number if arb(number) >= end else math.nextafter(number, math.inf)
    return number if arb(number) <= end else math.nextafter(number, -math.inf)


def log10_up(point: int) -> float:
    """A grid point of a natural logarithm, as one to base 10; rounded up."""
    return outward_float(lambda: arb((point, -GRID_BITS)) / arb(10).log(), up=True)


def recorded(value: Fraction, *, up: bool) -> float | str:
    """A number for JSON, rounded to the safe side; as text where a float has no such exponent."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if value > 0 and not 1 / LARGEST_FLOAT < number < LARGEST_FLOAT:
        return f"{decimal_rounding(17, up=up).plus(_decimal(value, up=up)):.16e}"
    if up:
        return number if Fraction(number) >= value else math.nextafter(number, math.inf)
    return number if Fraction(number) <= value else math.nextafter(number, -math.inf)


def decimal_rounding(digits: int, *, up: bool) -> Context:
    """A context that rounds decimals of so many digits to one side."""
    rounding = ROUND_CEILING if up else ROUND_FLOOR
    return Context(prec=digits, rounding=rounding, Emax=MAX_EMAX, Emin=MIN_EMIN)


def _decimal(value: Fraction, *, up: bool) -> Decimal:
    """A limit, some 30 digits off; a million digits take Python too long to convert."""
    shift = value.numerator.bit_length() - value.denominator.bit_length() - 100
    over, under = value.numerator << max(0, -shift), value.denominator << max(0, shift)
    wide = decimal_rounding(60, up=up)
    power = wide.power(Decimal(2), Decimal(shift))  # right but for its last digit
    near = wide.multiply(Decimal(over // under + up), power)
    return wide.multiply(near, Decimal(1) + Decimal((0 if up else 1, (1,), -50)))
