"""Numbers as a user types them, read exactly: "0.1" is one tenth, not the float next to it."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from promptlimits.errors import UserError
from promptlimits.tasks.files import shown

if TYPE_CHECKING:
    from promptlimits.bound import Exact, LogBound

_LONGEST: Final = 200
_EXPONENT: Final = 2000
"""Powers of ten multiplied out; a Lipschitz constant beyond them is kept as a logarithm."""

_LARGEST_EXPONENT: Final = 1_000_000
_MOST: Final = 10**9
_DECIMAL: Final = re.compile(r"([+-]?)(\d*)\.?(\d*)(?:[eE]([+-]?\d{1,9}))?", re.ASCII)
_RATIO: Final = re.compile(r"(\d+)/(\d+)", re.ASCII)


def count(option: str, text: str) -> int:
    """A whole number from 1 to a billion.

    Args:
        option: The option, as the user types it.
        text: What the user typed.

    Returns:
        The number.

    Raises:
        UserError: It is something else.
    """
    plain = text.strip()
    if plain.isascii() and plain.isdigit() and len(plain) < 12 and 1 <= int(plain) <= _MOST:
        return int(plain)
    raise UserError(
        option, f"be a whole number from 1 to {_MOST:,}", got=shown(text), remedy="write 20"
    )


def positive(option: str, text: str) -> Fraction:
    """An exact number above 0.

    Args:
        option: The option, as the user types it.
        text: What the user typed: 10, 0.1, 1e-4, 10/3.

    Returns:
        The number.

    Raises:
        UserError: It is something else, or too long to compute with.
    """
    mantissa, exponent = _parts(option, text)
    if abs(exponent) > _EXPONENT:
        raise _refused(option, f"be between 1e-{_EXPONENT} and 1e{_EXPONENT}", text)
    return mantissa * Fraction(10) ** exponent


def positive_of_any_size(option: str, text: str) -> Exact | LogBound:
    """An exact number above 0, or an upper limit on its logarithm where it is astronomical.

    Args:
        option: The option, as the user types it.
        text: What the user typed: 10, 1e1000, 1e1000000.

    Returns:
        The number, or a limit that is above it by less than a part in 2^90.

    Raises:
        UserError: It is something else, or beyond 10 to the million.
    """
    from promptlimits.bound import LogBound, Source, log_ball
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
