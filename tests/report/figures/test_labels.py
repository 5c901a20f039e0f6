import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptlimits.report.figures.labels import short_count, spread, thinned

HEIGHTS = st.lists(st.floats(0, 1), max_size=12).map(sorted)
PLACES = st.lists(st.floats(0, 20), min_size=1, max_size=12, unique=True).map(sorted)


@given(HEIGHTS)
def test_spread_labels_stand_apart_in_order(heights):
    placed = spread(heights, gap=0.05)
    assert len(placed) == len(heights)
    assert all(b - a >= 0.05 - 1e-9 for a, b in itertools.pairwise(placed))


def test_labels_with_room_stay_where_they_are():
    assert spread([0.1, 0.5, 0.9], gap=0.05) == (0.1, 0.5, 0.9)


def test_a_cluster_keeps_its_mean():
    assert spread([0.5, 0.5, 0.9], gap=0.1) == pytest.approx((0.45, 0.55, 0.9))


@given(PLACES, st.floats(0.01, 5))
def test_thinned_places_stand_apart_and_keep_the_first(places, gap):
    kept = thinned(places, gap=gap)
    assert kept[0] == 0
    assert all(places[b] - places[a] >= gap for a, b in itertools.pairwise(kept))
    if places[-1] - places[0] >= gap:
        assert kept[-1] == len(places) - 1


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0"), (1, "1"), (1000, "1,000"), (10_000, "10k"), (100_000, "100k"), (10**6, "1M"),
     (10**10, "10G")],
)  # fmt: skip
def test_short_counts(number, shown):
    assert short_count(number) == shown
