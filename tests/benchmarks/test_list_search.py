"""The plain search that the benchmark of lists compares with."""

from benchmarks.engine_parts.doubling import next_size
from benchmarks.search import summary


def follow(total, first, capacity):
    """The sizes tried when exactly those up to `capacity` can be solved."""
    solved, failed, tried = set(), set(), []
    while (size := next_size(solved, failed, total, first)) is not None:
        assert size not in solved | failed
        tried.append(size)
        (solved if size <= capacity else failed).add(size)
    assert max(solved, default=0) == min(capacity, total)
    return tried


def test_sizes_double_and_are_then_bisected():
    assert follow(100, 8, 21) == [8, 16, 32, 24, 20, 22, 21]
    assert follow(100, 8, 3) == [8, 4, 2, 3]
    assert follow(20, 8, 50) == [8, 16, 20]
    assert follow(5, 8, 5) == [5]


def test_the_ratio_is_that_of_the_means_over_the_seeds():
    rows = [
        {"search": name, "prompt_tokens": 1, "held": held}
        for name, held in (
            ("doubling", 10),
            ("doubling", 30),
            ("working sets", 20),
            ("working sets", 30),
        )
    ]
    (told,) = summary(rows)
    assert told["ratio"] == 1.25
    assert told["held"]["working sets"] == [20, 30]
