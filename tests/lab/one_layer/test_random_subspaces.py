"""The dimension count is sharp: random subspaces are met from kd - R on, and not before."""

import pytest
from benchmarks.random_subspaces import CELLS, share_met


@pytest.mark.parametrize(("dim", "heads", "rank", "queries"), CELLS)
def test_subspaces_are_met_from_the_codimension_on(dim, heads, rank, queries):
    cell = (dim, heads, rank, queries)
    assert share_met(*cell, -1, count=10) == 0
    assert share_met(*cell, 0, count=10) < 0.6
    assert share_met(*cell, 1, count=10) >= 0.3
