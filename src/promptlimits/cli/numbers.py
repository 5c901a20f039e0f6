"""Numbers as a user types them, read exactly: "0.1" is one tenth, not the float next to it."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.files import shown

if TYPE_CHECKING:
    from promptlimits.base.exact import Rule

_MOST: Final = 10**9


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
    return _exact(option, text, zero=False)


def non_negative(option: str, text: str) -> Fraction:
    """An exact number of 0 or more."""
    return _exact(option, text, zero=True)


def rounded(value: float | str, *, up: bool, digits: int = 4) -> str:
    """A number as a table shows it, rounded to the safe side."""
    from promptlimits.base.exact import LARGEST_FLOAT, decimal_rounding

    short = decimal_rounding(digits, up=up).create_decimal(Decimal(value))
    if short and not 1 / LARGEST_FLOAT < abs(short) < LARGEST_FLOAT:
        return f"{short:.{digits - 1}e}"
    return f"{float(short):.{digits}g}"  # a float gives a short decimal back as it was


def _exact(option: str, text: str, *, zero: bool) -> Fraction:
    from promptlimits.base.exact import Rule, exact

    try:
        number = exact(text)
        if number < 0 or (number == 0 and not zero):
            raise Rule("be a finite number of 0 or more" if zero else "be a finite number above 0")
    except Rule as error:
        raise _refused(option, text, error) from error
    return number


def _refused(option: str, text: str, error: Rule) -> UserError:
    return UserError(option, error.rule, got=shown(text), remedy=error.remedy)
