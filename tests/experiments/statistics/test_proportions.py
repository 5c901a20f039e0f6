"""Exact intervals cover, and the beta-binomial correlation is found again."""

import math

import numpy as np
import pytest
from scipy.stats import betabinom, binom

from promptlimits.base.errors import UserError
from promptlimits.experiments.statistics.proportions import (
    exact_interval,
    log_likelihood,
    overdispersion,
    variance_factor,
)


def test_the_ends_are_where_the_tails_are_one_fortieth():
    found = exact_interval(3, 10)
    assert found.value == 0.3
    assert binom.sf(2, 10, found.low) == pytest.approx(0.025)
    assert binom.cdf(3, 10, found.high) == pytest.approx(0.025)


@pytest.mark.parametrize(("successes", "low", "high"), [(0, 0, 1), (24, 0, 1)])
def test_none_and_all(successes, low, high):
    found = exact_interval(successes, 24)
    side = 1 - 0.025 ** (1 / 24)
    assert (found.low, found.high) == pytest.approx((0, side) if successes == 0 else (1 - side, 1))
    assert low <= found.value <= high


@pytest.mark.parametrize("trials", [5, 24])
def test_it_covers_at_least_as_often_as_it_says(trials):
    counts = np.arange(trials + 1)
    ends = [exact_interval(int(count), trials) for count in counts]
    for share in np.linspace(0.01, 0.99, 99):
        covering = [end.low <= share <= end.high for end in ends]
        assert binom.pmf(counts, trials, share)[covering].sum() >= 0.95


@pytest.mark.parametrize(("successes", "trials"), [(-1, 3), (4, 3), (0, 0)])
def test_counts_that_cannot_be(successes, trials):
    with pytest.raises(UserError, match="successes"):
        exact_interval(successes, trials)


@pytest.mark.parametrize("rho", [0.0, 0.05, 0.6])
def test_the_likelihood_is_that_of_the_distribution(rho):
    counts, trials, mean = np.arange(8), 7, 0.3
    found = log_likelihood(counts, trials, mean, rho)
    choices = np.log([math.comb(7, c) for c in counts])
    a, b = (mean * (1 - rho) / rho, (1 - mean) * (1 - rho) / rho) if rho else (None, None)
    known = betabinom.logpmf(counts, 7, a, b) if rho else binom.logpmf(counts, 7, mean)
    np.testing.assert_allclose(found + choices, known, rtol=1e-9)


def test_the_interval_of_the_correlation_covers():
    rng, rho, mean, covered = np.random.default_rng(0), 0.3, 0.4, []
    a, b = mean * (1 - rho) / rho, (1 - mean) * (1 - rho) / rho
    for _ in range(40):
        found = overdispersion(rng.binomial(12, rng.beta(a, b, 40)).tolist(), 12)
        covered.append(found.low <= rho <= found.high)
    # Two failures are expected; ten would come about once in 10^5 times.
    assert sum(covered) > 30


def test_alike_or_always_and_never():
    alike = overdispersion([6, 5, 7, 6, 6, 5, 7, 6], 12)
    assert (alike.value, alike.low) == (0.0, 0.0)
    assert overdispersion([12, 0, 12, 0, 0, 12], 12).value > 0.99
    nothing = overdispersion([12, 12], 12)
    assert (nothing.value, nothing.low, nothing.high) == (None, None, None)


def test_the_variance_of_a_count():
    rho, trials, mean = 0.4, 12, 0.3
    a, b = mean * (1 - rho) / rho, (1 - mean) * (1 - rho) / rho
    plain = trials * mean * (1 - mean)
    assert betabinom.var(trials, a, b) == pytest.approx(plain * variance_factor(rho, trials))
