"""Which number of pairs to try next: doubling, then bisection."""

from __future__ import annotations

from collections.abc import Collection


def next_size(
    solved: Collection[int], failed: Collection[int], *, total: int, first: int
) -> int | None:
    """The next number of pairs to train for.

    Sizes double while they are solved; after a failure the largest solved and the smallest
    failed size above it are bisected until they are neighbours. If even the first size fails,
    it is halved. A pure function of what is known, so a search resumes by asking again.
    """
    low = max(solved, default=0)
    above = [size for size in failed if size > low]
    if not above:
        return None if low >= total else min(total, max(first, 2 * low))
    high = min(above)
    return None if high - low <= 1 else (low + high) // 2
