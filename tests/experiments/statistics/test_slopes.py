"""Slopes are least squares, and their bootstrap intervals cover."""

import numpy as np
import pytest

from promptlimits.base.errors import UserError
from promptlimits.experiments.statistics.slopes import (
    over_problems,
    through_origin,
    with_intercept,
)


def test_both_slopes_are_those_of_least_squares():
    rng = np.random.default_rng(0)
    x, y = np.array([1.0, 2, 4, 5]), rng.standard_normal((3, 4))
    for row, slope, plain in zip(y, with_intercept(x, y), through_origin(x, y), strict=True):
        assert slope == pytest.approx(np.polyfit(x, row, 1)[0])
        assert plain == pytest.approx(np.linalg.lstsq(x[:, None], row, rcond=None)[0][0])


def test_the_interval_of_a_slope_over_problems_covers():
    rng, x, truth, covered = np.random.default_rng(1), np.arange(4.0), 0.7, 0
    runs = 200
    for run in range(runs):
        # Each problem has a level of its own: points of a line are not independent.
        level = rng.standard_normal((30, 1))
        values = truth * x + level + 0.5 * rng.standard_normal((30, 4))
        found = over_problems(
            lambda i, v=values: with_intercept(x, v[i].mean(axis=-2)), 30, seed=run, draws=400
        )
        covered += found.low <= truth <= found.high
    # Percentiles cover a little less than 95% of the time with 30 problems.
    assert 0.88 <= covered / runs <= 0.99


def test_it_repeats_and_says_how():
    values = np.arange(10.0)
    first, second = (over_problems(lambda i: values[i].mean(axis=-1), 10) for _ in range(2))
    assert first == second
    assert first.value == 4.5
    assert "10 problems" in first.way


def test_one_problem_has_no_bootstrap():
    with pytest.raises(UserError, match="two or more"):
        over_problems(lambda i: i.mean(axis=-1), 1)
