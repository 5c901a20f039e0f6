"""The last number of an initial segment."""

from __future__ import annotations

from collections.abc import Callable


def largest(holds: Callable[[int], bool]) -> int:
    """The largest k of an initial segment {0, 1, .., k} on which something holds."""
    low, high = 0, 1
    while holds(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
