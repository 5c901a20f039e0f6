"""Logarithms in their one form: the least multiple of 2^-96 that is no less than the truth.

A certificate is to fail when any digit of it is altered, even if its digest is computed anew.
So a recorded limit must not be free within its tolerance: it is rounded up to a fixed grid, and
who verifies it finds the same grid point.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from flint import arb

from promptlimits.base.bound import LogBound, Source, working_precision

GRID_BITS: Final = 96
_MOST_BITS: Final = 2**12


def grid_upper(evaluate: Callable[[], arb]) -> arb:
    """The least multiple of 2^-96 at or above a real number.

    A number that is not told from a grid point at 4,096 bits is taken to lie above it, which is
    safe, and true of log(1 + tiny), where it happens.
    """
    bits = 256
    while True:
        with working_precision(bits):
            ball = evaluate() * arb((1, GRID_BITS))
            end = ball.ceil()
            if not end.is_exact() and bits == _MOST_BITS:
                end = ball.upper().ceil()
            if end.is_exact():
                mantissa, exponent = (int(part) for part in end.man_exp())
                return arb((mantissa, exponent - GRID_BITS))
        bits *= 2


def total(bounds: tuple[LogBound, ...], *, quantity: str, source: Source) -> LogBound:
    """The product of upper limits; sums of grid points are exact."""
    # Grid points below 2^k take k + 96 bits.
    size = max(_magnitude(bound.log) for bound in bounds) + len(bounds)
    with working_precision(GRID_BITS + size):
        log = sum((bound.log for bound in bounds), arb(0))
    return LogBound(
        direction="upper",
        log=log,
        quantity=quantity,
        source=source,
        assumptions=bounds[0].assumptions,
        factors=bounds,
    )


def _magnitude(log: arb) -> int:
    """k with |log| < 2^k, at least 1."""
    mantissa, exponent = (int(part) for part in log.man_exp())
    return max(1, abs(mantissa).bit_length() + exponent)
