"""Success against size, problem by problem: shares, k50, and lines through several k50."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from promptlimits.experiments.statistics.proportions import exact_interval
from promptlimits.experiments.statistics.slopes import percentiles, resampled
from promptlimits.experiments.statistics.thresholds import threshold, thresholds
from promptlimits.record.experiment import Control, Interval

Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class SuccessCurve:
    """Which problems were solved at which size."""

    sizes: tuple[int, ...]  # rising
    solved: NDArray[np.bool_]  # of shape (sizes, problems)

    @property
    def counts(self) -> list[int]:
        """Problems solved at each size."""
        found: list[int] = self.solved.sum(axis=1).tolist()
        return found

    @property
    def problems(self) -> int:
        """How many at each size."""
        return int(self.solved.shape[1])

    @property
    def shares(self) -> list[Interval]:
        """Of each size, with exact intervals."""
        return [exact_interval(count, self.problems) for count in self.counts]

    @property
    def k50(self) -> Interval:
        """Where half of the problems are solved; by one size alone it is not known."""
        if len(self.sizes) < 2:
            return Interval(value=None, low=None, high=None, way="one size has no curve")
        return threshold(self.sizes, self.counts, self.problems)

    def k50_of(self, index: NDArray[np.intp], place: Any = 0.5) -> Array:
        """k50 of the problems `index` (..., problems); `place` as in `thresholds`."""
        solved = np.moveaxis(self.solved[:, index].sum(axis=-1), 0, -1)
        return thresholds(self.sizes, solved, index.shape[-1], place=place)


def planted_control(name: str, rows: Sequence[Sequence[bool]], meaning: str) -> Control:
    """The control of several cells.

    Args:
        name: What was planted.
        rows: Of each cell, which problems were solved; one problem or more in all.
        meaning: What it shows.

    Returns:
        The control.
    """
    every = [bool(one) for row in rows for one in row]
    return Control(
        name=name,
        solved=sum(every),
        of=len(every),
        share=exact_interval(sum(every), len(every)),
        least=min(float(np.mean(row)) for row in rows if len(row)),
        meaning=meaning,
    )


class K50Lines:
    """k50 of several curves over the same problems, and of problems drawn again.

    A problem is drawn with all its sizes and curves. Where a curve falls from all to nothing in one
    step, each draw puts its k50 anywhere between the two sizes.

    Args:
        across: x of each curve.
        curves: The curves, of two sizes or more and equally many problems.
        seed: Of the draws.
    """

    def __init__(
        self, across: Sequence[float], curves: Sequence[SuccessCurve], *, seed: int = 0
    ) -> None:
        self._problems = curves[0].problems
        generator = np.random.default_rng([seed, 1])
        index = resampled(self._problems, seed=seed)
        self._across = np.asarray(across, dtype=np.float64)
        self._value = np.array([each.k50_of(np.arange(self._problems)) for each in curves])
        self._drawn = np.stack(
            [each.k50_of(index, generator.random(len(index))) for each in curves], axis=-1
        )

    def slope(
        self, fit: Callable[[Any, Any], Any], places: Sequence[int] | None = None
    ) -> Interval:
        """A slope, of all curves or of some, with its bootstrap interval.

        Args:
            fit: `slopes.through_origin` or `slopes.with_intercept`.
            places: Which curves; None for all.

        Returns:
            The slope.
        """
        chosen = list(range(len(self._across)) if places is None else places)
        x = self._across[chosen]
        drawn = fit(x, self._drawn[:, chosen])
        return percentiles(fit(x, self._value[chosen]), drawn, self._problems)
