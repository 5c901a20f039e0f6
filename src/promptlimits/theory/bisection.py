"""The last number of an initial segment."""

from __future__ import annotations

from collections.abc import Callable


def largest(holds: Callable[[int], bool]) -> int:
    """The largest k of an initial segment {0, 1, .., k} on which something holds.

    Args:
        holds: True on the segment, False beyond it; it is taken to hold at 0.

    Returns:
        k; there `holds` was seen to be true (unless k is 0), and false at k + 1.
    """
    low, high = 0, 1
    while holds(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
