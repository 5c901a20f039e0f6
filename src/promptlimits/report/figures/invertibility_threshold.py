"""Errors of trained prompts against the scale of the weights, over the proved floor."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from matplotlib.axes import Axes

from promptlimits.report.figures.plain_svg import (
    FOUND,
    MUTED,
    PROVED,
    Drawing,
    require_one_each,
    set_axes,
    set_key,
)

_LEAST: Final = 1e-9
"""Smaller errors are drawn here: they are rounding."""


@dataclass(frozen=True)
class InvertibilityThreshold(Drawing):
    """What the figure shows."""

    scales: Sequence[float]  # factors on the weights, rising
    # Proved error of every prompt at a common answer; 0 where none is proved.
    floors: Sequence[float]
    two_to_one: Sequence[float]  # error found at a common answer
    invertible: Sequence[float]  # error found at an invertible target

    title = "Two inputs, one answer: error against the scale of the weights"

    def __post_init__(self) -> None:
        """Refuse lists that do not fit."""
        require_one_each(self.scales, self.floors, self.two_to_one, self.invertible, of="scale")
        if any(b <= a for a, b in itertools.pairwise(self.scales)):
            raise ValueError("scales must rise")

    @property
    def description(self) -> str:
        """Every number of the drawing in words."""
        numbers = zip(self.scales, self.floors, self.two_to_one, self.invertible, strict=True)
        words = "; ".join(
            f"scale {scale:g}: {floor:.4g} proved, {common:.4g} found, {own:.4g} at the "
            "invertible target"
            for scale, floor, common, own in numbers
        )
        return f"Largest error of the best trained prompt. {words}."

    def draw(self, axes: Axes) -> None:
        """Draw on any matplotlib axes."""
        axes.set_xscale("log")
        axes.set_yscale("log")
        proved = [(s, f) for s, f in zip(self.scales, self.floors, strict=True) if f > 0]
        if proved:
            places, heights = zip(*proved, strict=True)
            axes.plot(places, heights, "-", color=PROVED, linewidth=2.0, zorder=2)
            axes.axvspan(self.scales[0], places[-1], color=PROVED, alpha=0.07, zorder=1)
        # Circles are larger: where both are rounding, the square lies on the circle.
        marks = ((self.two_to_one, FOUND, "o", 9), (self.invertible, MUTED, "s", 4))
        for found, colour, mark, size in marks:
            errors = [max(error, _LEAST) for error in found]
            axes.plot(self.scales, errors, mark, color=colour, markersize=size)
        top = 10 * max(*self.two_to_one, *self.invertible, *self.floors, _LEAST)
        axes.set_ylim(_LEAST / 3, 30 * top)
        set_axes(axes, title=self.title, below="scale of the weights", beside="error")
        words = (
            ("● one common answer, found", FOUND, 0.02, 0.94),
            ("■ invertible target, found", MUTED, 0.02, 0.88),
            ("▬ proved for every prompt", PROVED, 0.02, 0.82),
        )
        set_key(axes, words, size=9)
