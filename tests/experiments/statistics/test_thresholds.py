"""k50: the maximum and the profile interval, by brute force and by coverage; separation."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import chi2

from promptlimits.experiments.statistics.thresholds import (
    profile_interval,
    threshold,
    thresholds,
)

SIZES = np.arange(1, 7)


def likelihood(k50, steep, s, n):
    p = np.clip(expit(-steep * (SIZES - k50)), 1e-12, 1 - 1e-12)
    return float((s * np.log(p) + (n - s) * np.log(1 - p)).sum())


def test_the_threshold_is_where_the_likelihood_is_largest():
    s, n = np.array([24, 21, 15, 6, 1, 0]), 24
    best = minimize(
        lambda v: -likelihood(v[0], v[1], s, n), (3, 1), method="Nelder-Mead",
        options={"xatol": 1e-8, "fatol": 1e-10},
    )  # fmt: skip
    found = threshold(SIZES, s, n)
    assert found.value == pytest.approx(best.x[0], abs=1e-5)
    cut = -best.fun - chi2.ppf(0.95, 1) / 2
    steeps = np.geomspace(0.05, 50, 400)
    for end in (found.low, found.high):
        profile = max(likelihood(end, steep, s, n) for steep in steeps)
        assert profile == pytest.approx(cut, abs=2e-3)
    assert found.low < found.value < found.high


@pytest.mark.parametrize(("k50", "steep"), [(3.2, 1.5), (2.0, 3.0), (4.4, 0.8)])
def test_the_interval_covers_19_of_20_times(k50, steep):
    rng = np.random.default_rng(1)
    s = rng.binomial(24, expit(-steep * (SIZES - k50)), (2000, 6))
    low, high = profile_interval(SIZES, s, 24)
    # The standard error of the share is 0.005; separated curves make it more than 0.95.
    assert 0.935 <= np.mean((low <= k50) & (k50 <= high)) <= 0.985


def test_problems_that_differ_widen_the_interval():
    s = np.array([24, 21, 15, 6, 1, 0])
    plain, wide = threshold(SIZES, s, 24), threshold(SIZES, s, 24, dispersion=4.0)
    assert wide.value == plain.value
    assert (wide.high - wide.low) == pytest.approx(2 * (plain.high - plain.low), rel=0.15)
    assert "variance" in wide.way


@pytest.mark.parametrize(
    ("solved", "value", "low", "high"),
    [
        ([24, 24, 0, 0, 0, 0], 2.5, 2, 3),
        ([0, 0, 0, 0, 0, 0], 0.5, 0, 1),
        ([24, 24, 24, 24, 24, 24], None, 6, None),
    ],
)
def test_perfect_separation(solved, value, low, high):
    found = threshold(SIZES, solved, 24)
    assert (found.value, found.low, found.high) == (value, low, high)


def test_with_one_trial_more_than_the_gap_is_possible():
    found = threshold(SIZES, [1, 1, 0, 0, 0, 0], 1)
    assert found.value == 2.5
    assert found.low < 2 < 3 < found.high


def test_one_size_between_all_and_nothing_is_k50_when_half_succeed():
    found = threshold(SIZES, [24, 12, 0, 0, 0, 0], 24)
    assert found.value == pytest.approx(2.0, abs=1e-3)
    assert 1 < found.low < 2 < found.high < 3


def test_many_curves_are_as_one_and_the_place_in_the_gap_is_given():
    s = np.array([[24, 21, 15, 6, 1, 0], [24, 24, 0, 0, 0, 0], [24, 24, 24, 24, 24, 24]])
    found = thresholds(SIZES, s, 24)
    assert found == pytest.approx([threshold(SIZES, s[0], 24).value, 2.5, 6.5])
    moved = thresholds(SIZES, s, 24, place=[0.9, 0.25, 1.0])
    assert moved == pytest.approx([found[0], 2.25, 7.0])


def test_more_success_moves_it_up():
    low, high = (threshold(SIZES, [24, 20, n, 4, 0, 0], 24).value for n in (8, 16))
    assert low < high
