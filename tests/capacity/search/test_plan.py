"""Doubling, then bisection: against a search that knows the answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from promptlimits.capacity.search.search import next_size


def follow(total: int, first: int, capacity: int) -> list[int]:
    """The sizes tried when exactly those up to `capacity` can be solved."""
    solved: set[int] = set()
    failed: set[int] = set()
    tried: list[int] = []
    while (size := next_size(solved, failed, total=total, first=first)) is not None:
        assert size not in solved | failed
        tried.append(size)
        (solved if size <= capacity else failed).add(size)
    assert max(solved, default=0) == min(capacity, total)
    return tried


def test_sizes_double_and_are_then_bisected() -> None:
    assert follow(100, 8, 21) == [8, 16, 32, 24, 20, 22, 21]
    assert follow(100, 8, 3) == [8, 4, 2, 3]
    assert follow(20, 8, 50) == [8, 16, 20]
    assert follow(5, 8, 5) == [5]
    assert follow(8, 8, 0) == [8, 4, 2, 1]


@given(st.integers(1, 400), st.integers(1, 64), st.integers(0, 500))
def test_the_search_ends_at_the_capacity_within_twice_the_logarithm(
    total: int, first: int, capacity: int
) -> None:
    tried = follow(total, first, capacity)
    assert all(1 <= size <= total for size in tried)
    assert len(tried) <= 2 * max(total, first).bit_length() + 2


@given(st.sets(st.integers(1, 40)), st.sets(st.integers(1, 40)), st.integers(1, 40))
def test_whatever_is_known_the_next_size_is_new_and_between(
    solved: set[int], failed: set[int], total: int
) -> None:
    solved = {size for size in solved if size <= total}
    failed = {size for size in failed if size <= total} - solved
    size = next_size(solved, failed, total=total, first=8)
    low = max(solved, default=0)
    if size is not None:
        assert low < size <= total
        assert size not in solved | failed
