"""Preconditions that raise `UserError` in the one form the project uses."""

from __future__ import annotations

import math

from promptlimits.base.errors import UserError


def require_positive_int(name: str, value: object, *, remedy: str = "give 1 or more") -> int:
    """Return `value` if it is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(name, "be a whole number of at least 1", got=value, remedy=remedy)
    return value


def require_positive(name: str, value: float, *, remedy: str = "give a number above 0") -> float:
    """Return `value` as a float if it is finite and above 0."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UserError(name, "be a number above 0", got=value, remedy=remedy) from None
    if not math.isfinite(number) or number <= 0:
        raise UserError(name, "be a finite number above 0", got=value, remedy=remedy)
    return number
