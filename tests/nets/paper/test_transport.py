"""Known answers and laws of the Wasserstein distances."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptlimits.base.errors import UserError
from promptlimits.nets.paper.transport import position_distance, wasserstein_distance

ORDERS = (1, 1.5, 2, 4)


def on_a_line(x, a, y, b, q):
    """(int |F^{-1} - G^{-1}|^q)^{1/q}: between the jumps of both both quantiles are constant."""
    x, a = x[np.argsort(x)], a[np.argsort(x)]
    y, b = y[np.argsort(y)], b[np.argsort(y)]
    cuts = np.unique(np.concatenate([[0.0], np.cumsum(a), np.cumsum(b)]).clip(0, 1))
    total = 0.0
    for low, high in pairwise(cuts):
        middle = (low + high) / 2
        left = x[min(np.searchsorted(np.cumsum(a), middle), len(x) - 1)]
        right = y[min(np.searchsorted(np.cumsum(b), middle), len(y) - 1)]
        total += (high - low) * abs(left - right) ** q
    return float(total ** (1 / q))


@pytest.mark.parametrize("q", ORDERS)
@pytest.mark.parametrize("sizes", [(5, 5), (4, 6)])
def test_on_a_line_it_is_that_of_the_quantiles(q, sizes):
    generator = np.random.default_rng(1)
    x, y = (generator.standard_normal(size) for size in sizes)
    a, b = (generator.dirichlet(np.ones(size)) for size in sizes)
    even_a, even_b = (np.full(size, 1 / size) for size in sizes)
    uniform = wasserstein_distance(x[:, None], y[:, None], order=q)
    assert uniform == pytest.approx(on_a_line(x, even_a, y, even_b, q), rel=1e-9)
    weighted = wasserstein_distance(
        x[:, None], y[:, None], order=q, first_weights=a, second_weights=b
    )
    assert weighted == pytest.approx(on_a_line(x, a, y, b, q), rel=1e-7)


@pytest.mark.parametrize("q", ORDERS)
def test_a_translation_costs_its_length(q):
    x = np.random.default_rng(0).standard_normal((6, 3))
    y = x + np.array([3.0, 0.0, 4.0])
    assert wasserstein_distance(x, y, order=q) == pytest.approx(5, rel=1e-12)
    # To the power q = 4 this would overflow.
    assert wasserstein_distance(1e100 * x, 1e100 * y, order=q) == pytest.approx(5e100, rel=1e-12)


@pytest.mark.parametrize("q", ORDERS)
def test_a_prompt_written_twice_is_the_same_measure(q):
    """What E9 rests on."""
    p = np.random.default_rng(0).standard_normal((5, 2))
    assert wasserstein_distance(p, np.concatenate([p, p]), order=q) == 0
    masses = np.full(5, 0.2)
    twice = wasserstein_distance(p, np.concatenate([p, p]), order=q, first_weights=masses)
    assert twice < 1e-3


def test_mass_that_moves_is_paid_by_its_share():
    zero, ends = np.zeros((1, 1)), np.array([[0.0], [2.0]])
    for q in ORDERS:
        share = wasserstein_distance(zero, ends, order=q, second_weights=[0.75, 0.25])
        assert share == pytest.approx(2 * 0.25 ** (1 / q), rel=1e-9)


def test_the_linear_programme_agrees_with_the_matching():
    generator = np.random.default_rng(3)
    x, y = generator.standard_normal((6, 3)), generator.standard_normal((6, 3))
    even = np.full(6, 1 / 6)
    for q in ORDERS:
        matched = wasserstein_distance(x, y, order=q)
        solved = wasserstein_distance(x, y, order=q, first_weights=even)
        assert solved == pytest.approx(matched, rel=1e-9)


clouds = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=n, max_size=n).map(
        np.array
    )
)


@settings(max_examples=40)
@given(x=clouds, y=clouds, z=clouds, q=st.sampled_from([1.0, 2.0, 3.0]))
def test_it_is_a_distance(x, y, z, q):
    def d(one, other):
        return wasserstein_distance(one, other, order=q)

    assert d(x, x) == 0
    assert d(x, y) == pytest.approx(d(y, x), rel=1e-9, abs=1e-12)
    assert d(x, z) <= (d(x, y) + d(y, z)) * (1 + 1e-9) + 1e-12
    assert d(x, y) >= wasserstein_distance(x, y, order=1) * (1 - 1e-9)


def test_equal_positions_are_compared_and_others_are_infinitely_far():
    times = [0.5, 1.0]
    first, second = np.array([[0.0], [1.0]]), np.array([[1.0], [0.0]])
    # As measures of tokens alone they are the same.
    assert wasserstein_distance(first, second, order=2) == 0
    assert position_distance(
        first, second, first_times=times, second_times=times, order=2
    ) == pytest.approx(1)
    assert position_distance(first, second, first_times=times, second_times=[0.5, 0.9]) == math.inf
    assert (
        position_distance(
            first, second, first_times=times, second_times=times, second_weights=[0.4, 0.6]
        )
        == math.inf
    )


def test_within_a_position_mass_is_transported():
    """int W_q^q dtheta: one half at distance 3 after transport, one half at distance 1."""
    first = np.array([[0.0], [10.0], [5.0]])
    second = np.array([[13.0], [3.0], [6.0]])
    times, masses = [0.0, 0.0, 1.0], [0.25, 0.25, 0.5]
    for q in ORDERS:
        found = position_distance(
            first,
            second,
            first_times=times,
            second_times=times,
            order=q,
            first_weights=masses,
            second_weights=masses,
        )
        assert found == pytest.approx((0.5 * 3**q + 0.5) ** (1 / q), rel=1e-9)


def test_what_is_no_measure_is_said():
    x = np.zeros((2, 3))
    for call, words in (
        (lambda: wasserstein_distance(x, x, order=0.5), "1 or more"),
        (lambda: wasserstein_distance(x, x, order=math.inf), "finite"),
        (lambda: wasserstein_distance(x, np.zeros((2, 2))), "one space"),
        (lambda: wasserstein_distance(x, np.zeros(3)), r"\(N, d\)"),
        (lambda: wasserstein_distance(x, x * math.nan), "finite"),
        (lambda: wasserstein_distance(x, x, first_weights=[1, 1]), "add up to 1"),
        (lambda: wasserstein_distance(x, x, first_weights=[2, -1]), "0 or more"),
        (lambda: position_distance(x, x, first_times=[0], second_times=[0, 1]), "shape"),
    ):
        with pytest.raises(UserError, match=words):
            call()
