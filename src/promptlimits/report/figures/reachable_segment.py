"""The second answers that prompts reach once they meet the first: a segment, and the target.

The plane drawn holds the segment and the second target: along the segment, and away from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator

from promptlimits.report.figures.plain_svg import (
    FOUND,
    INK,
    MUTED,
    PROVED,
    Drawing,
    set_axes,
)


@dataclass(frozen=True, kw_only=True)
class ReachableSegment(Drawing):
    """What the figure shows, in units of offsets before the MLP."""

    length: float  # length of the segment; it is drawn from (0, 0) to (length, 0)
    # The second target: along the segment, and its distance from the line.
    target: tuple[float, float]
    # For each number of prompt tokens the intervals reached, along the segment.
    parts: tuple[tuple[int, tuple[tuple[float, float], ...]], ...]
    distance: float  # least distance of the target from the whole segment

    title = "Second answers behind prompts that meet the first"

    @property
    def description(self) -> str:
        """Every number of the drawing in words."""
        words = "; ".join(
            f"{tokens} prompt tokens: "
            + (", ".join(f"{left:.4g} to {right:.4g}" for left, right in intervals) or "nothing")
            for tokens, intervals in self.parts
        )
        return (
            f"A segment of length {self.length:.4g}; the second target is {self.distance:.4g} away "
            f"from it. Reached along the segment: {words}."
        )

    def draw(self, axes: Axes) -> None:
        """Draw on any matplotlib axes."""
        tall = max(self.target[1], 0.2 * self.length, 1e-9)
        axes.plot([0, self.length], [0, 0], color=MUTED, linewidth=1.2, zorder=2)
        axes.plot([0, self.length], [0, 0], "o", color="white", markeredgecolor=MUTED, zorder=3)
        for number, (tokens, intervals) in enumerate(self.parts):
            height = -0.12 * tall * (number + 1)
            for left, right in intervals:
                kind = "o" if right - left < 1e-9 * self.length else "-"
                axes.plot(
                    [left, right], [height, height], kind, color=FOUND, linewidth=3, markersize=5
                )
            axes.annotate(
                f"{tokens} prompt token{'s' if tokens > 1 else ''}",
                xy=(1.0, height),
                xycoords=("axes fraction", "data"),
                horizontalalignment="right",
                verticalalignment="center",
                fontsize=8.5,
                color=FOUND,
            )
        place, height = self.target
        nearest = min(max(place, 0.0), self.length)
        axes.plot([place, nearest], [height, 0], color=PROVED, linewidth=1.4, linestyle=(0, (4, 3)))
        axes.plot([place], [height], "D", color=PROVED, markersize=7)
        axes.annotate(
            f"second target, {self.distance:.4g} away",
            xy=(place, height),
            xytext=(9, -3),
            textcoords="offset points",
            color=INK,
            fontsize=9.5,
        )
        right = max(self.length, place)
        left = min(0.0, place)
        axes.set_xlim(left - 0.06 * (right - left), right + 0.45 * (right - left))
        axes.set_ylim(-0.12 * tall * (len(self.parts) + 1), 1.2 * tall)
        # Below the segment stand the parts reached, not distances.
        axes.yaxis.set_major_locator(
            FixedLocator([tick for tick in MaxNLocator(5).tick_values(0, 1.2 * tall) if tick >= 0])
        )
        set_axes(axes, title=self.title, below="along the segment", beside="away from it")


def data(
    start: Sequence[float],
    end: Sequence[float],
    target: Sequence[float],
    parts: Mapping[int, Sequence[tuple[float, float]]],
) -> ReachableSegment:
    """Everything the figure shows."""
    along = [b - a for a, b in zip(start, end, strict=True)]
    away = [b - a for a, b in zip(start, target, strict=True)]
    length = math.sqrt(math.fsum(x * x for x in along))
    whole = math.sqrt(math.fsum(x * x for x in away))
    place = math.fsum(x * y for x, y in zip(along, away, strict=True)) / length if length else 0.0
    height = math.sqrt(max(whole**2 - place**2, 0.0))
    distance = math.hypot(height, place - min(max(place, 0.0), length))
    scaled = tuple(
        (tokens, tuple((left * length, right * length) for left, right in intervals))
        for tokens, intervals in sorted(parts.items())
    )
    return ReachableSegment(
        length=length,
        target=(place, height),
        parts=scaled,
        distance=distance,
    )
