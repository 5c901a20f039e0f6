"""Numbers as a user types them, read exactly: "0.1" is one tenth, not the float next to it."""

from __future__ import annotations

import math
import re
from decimal import MAX_EMAX, MIN_EMIN, ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.files import shown

if TYPE_CHECKING:
    from promptlimits.base.bound import Exact, LogBound

_LONGEST: Final = 200
_EXPONENT: Final = 2000
"""Powers of ten multiplied out; a Lipschitz constant beyond them is kept as a logarithm."""

_LARGEST_EXPONENT: Final = 1_000_000
_MOST: Final = 10**9
_LARGEST_FLOAT: Final = 1e300
"""Beyond it, and below its inverse, a number is recorded as text."""

_DECIMAL: Final = re.compile(r"([+-]?)(\d*)\.?(\d*)(?:[eE]([+-]?\d{1,9}))?", re.ASCII)
_ZERO: Final = re.compile(r"\+?0+(\.0*)?", re.ASCII)
_RATIO: Final = re.compile(r"(\d+)/(\d+)", re.ASCII)


def count(option: str, text: str) -> int:
    """A whole number from 1 to a billion."""
    plain = text.strip()
    if plain.isascii() and plain.isdigit() and len(plain) < 12 and 1 <= int(plain) <= _MOST:
        return int(plain)
    raise UserError(
        option, f"be a whole number from 1 to {_MOST:,}", got=shown(text), remedy="write 20"
    )


def positive(option: str, text: str) -> Fraction:
    """An exact number above 0."""
    mantissa, exponent = _parts(option, text)
    if abs(exponent) > _EXPONENT:
        raise _refused(option, f"be between 1e-{_EXPONENT} and 1e{_EXPONENT}", text)
    return mantissa * Fraction(10) ** exponent


def non_negative(option: str, text: str) -> Fraction:
    """An exact number of 0 or more."""
    return Fraction(0) if _ZERO.fullmatch(text.strip()) else positive(option, text)


def positive_of_any_size(option: str, text: str) -> Exact | LogBound:
    """An exact number above 0, or an upper limit on its logarithm where it is astronomical."""
    from promptlimits.base.bound import LogBound, Source, log_ball
    from promptlimits.theory.grid_logs import grid_upper

    mantissa, exponent = _parts(option, text)
    if abs(exponent) <= _EXPONENT:
        return mantissa * Fraction(10) ** exponent
    if abs(exponent) > _LARGEST_EXPONENT:
        raise _refused(option, "be between 1e-1000000 and 1e1000000", text)
    return LogBound(
        direction="upper",
        log=grid_upper(lambda: log_ball(mantissa) + exponent * log_ball(10)),
        quantity="Lipschitz constant as given",
        source=Source(reference="promptlimits", statement="given by the user", form="proved here"),
    )


def recorded(value: Fraction, *, up: bool) -> float | str:
    """A number for JSON, rounded to the safe side."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if value > 0 and not 1 / _LARGEST_FLOAT < number < _LARGEST_FLOAT:
        return f"{_rounding(17, up=up).plus(_decimal(value, up=up)):.16e}"
    if up:
        return number if Fraction(number) >= value else math.nextafter(number, math.inf)
    return number if Fraction(number) <= value else math.nextafter(number, -math.inf)


def rounded(value: float | str, *, up: bool, digits: int = 4) -> str:
    """A number as a table shows it, rounded to the safe side."""
    short = _rounding(digits, up=up).create_decimal(Decimal(value))
    if short and not 1 / _LARGEST_FLOAT < abs(short) < _LARGEST_FLOAT:
        return f"{short:.{digits - 1}e}"
    return f"{float(short):.{digits}g}"  # a float gives a short decimal back as it was


def _decimal(value: Fraction, *, up: bool) -> Decimal:
    """A limit, some 30 digits off; a million digits take Python too long to convert."""
    shift = value.numerator.bit_length() - value.denominator.bit_length() - 100
    over, under = value.numerator << max(0, -shift), value.denominator << max(0, shift)
    wide = _rounding(60, up=up)
    power = wide.power(Decimal(2), Decimal(shift))  # right but for its last digit
    near = wide.multiply(Decimal(over // under + up), power)
    return wide.multiply(near, Decimal(1) + Decimal((0 if up else 1, (1,), -50)))


def _rounding(digits: int, *, up: bool) -> Context:
    rounding = ROUND_CEILING if up else ROUND_FLOOR
    return Context(prec=digits, rounding=rounding, Emax=MAX_EMAX, Emin=MIN_EMIN)


def _parts(option: str, text: str) -> tuple[Fraction, int]:
    """Mantissa and power of ten of a number above 0."""
    plain = text.strip()
    if len(plain) > _LONGEST:
        raise _refused(option, f"be written in at most {_LONGEST} characters", text)
    if match := _RATIO.fullmatch(plain):
        over, under = int(match[1]), int(match[2])
        if over and under:
            return Fraction(over, under), 0
    elif (match := _DECIMAL.fullmatch(plain)) and (match[2] or match[3]):
        digits = int(match[2] + match[3])
        if digits and match[1] != "-":
            return Fraction(digits), int(match[4] or 0) - len(match[3])
    raise _refused(option, "be a finite number above 0", text)


def _refused(option: str, rule: str, text: str) -> UserError:
    return UserError(option, rule, got=shown(text), remedy="write it as 10, 0.1, 1e-4 or 10/3")
