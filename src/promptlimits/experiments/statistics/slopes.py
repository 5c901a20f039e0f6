"""Slopes of lines, with bootstrap intervals over problems.

Problems are drawn again with replacement, each with all that was measured of it, and the whole
estimate is made anew from each draw (Efron 1979). The intervals are percentiles: what is estimated
here, as a k50 between two sizes, may be the same in many draws, where the correction of
bias-corrected intervals is not defined.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from promptlimits.base.errors import UserError
from promptlimits.experiments.statistics.proportions import CONFIDENCE
from promptlimits.record.experiment import Interval

Array: TypeAlias = NDArray[np.float64]
DRAWS: Final = 2000


def through_origin(x: ArrayLike, y: ArrayLike) -> Array:
    """c of the line y = c x, by least squares, for y of shape (..., n)."""
    at, height = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    found: Array = (height * at).sum(axis=-1) / (at * at).sum()
    return found


def with_intercept(x: ArrayLike, y: ArrayLike) -> Array:
    """The slope of the line y = a + c x, by least squares, for y of shape (..., n)."""
    at = np.asarray(x, dtype=np.float64)
    return through_origin(at - at.mean(), y)


def resampled(problems: int, *, seed: int = 0, draws: int = DRAWS) -> NDArray[np.intp]:
    """Indices of problems drawn with replacement, of shape (draws, problems).

    Raises:
        UserError: There are fewer than two problems.
    """
    if problems < 2:
        raise UserError(
            "the problems", "be two or more for a bootstrap", got=problems, remedy="draw more"
        )
    return np.random.default_rng(seed).integers(problems, size=(draws, problems))


def percentiles(
    value: float, drawn: Array, problems: int, *, confidence: float = CONFIDENCE
) -> Interval:
    """The interval of an estimate from those of resampled problems (draws,)."""
    tail = 50 * (1 - confidence)
    low, high = np.percentile(drawn, (tail, 100 - tail))
    return Interval(
        value=float(value),
        low=float(low),
        high=float(high),
        way=f"bootstrap over {problems} problems, {len(drawn):,} draws, percentiles, "
        f"{confidence:.0%}",
    )


def over_problems(
    statistic: Callable[[NDArray[np.intp]], Array],
    problems: int,
    *,
    seed: int = 0,
    draws: int = DRAWS,
) -> Interval:
    """A statistic and its bootstrap interval.

    Args:
        statistic: From indices of problems, of shape (..., problems), to numbers of shape (...,).
        problems: How many there are; two or more.
        seed: Of the draws.
        draws: How many.

    Returns:
        The statistic of the problems as they are, and the interval.
    """
    drawn = statistic(resampled(problems, seed=seed, draws=draws))
    return percentiles(float(statistic(np.arange(problems))), drawn, problems)
