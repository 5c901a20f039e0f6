"""Errors of trained prompts against the scale of the weights, over the proved floor."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from matplotlib.axes import Axes

from promptlimits.report.figures.plain_svg import FOUND, MUTED, PROVED, document, set_axes

_LEAST: Final = 1e-9
"""Smaller errors are drawn here: they are rounding."""


@dataclass(frozen=True, kw_only=True)
class InvertibilityThresholdData:
    """What the figure shows.

    Attributes:
        scales: Factors on the weights, rising.
        floors: Proved error of every prompt at a common answer; 0 where none is proved.
        two_to_one: Error found at a common answer.
        invertible: Error found at an invertible target.
        title: Name of the drawing.
        description: Every number of the drawing in words.
    """

    scales: tuple[float, ...]
    floors: tuple[float, ...]
    two_to_one: tuple[float, ...]
    invertible: tuple[float, ...]
    title: str
    description: str


def data(
    scales: Sequence[float],
    floors: Sequence[float],
    two_to_one: Sequence[float],
    invertible: Sequence[float],
) -> InvertibilityThresholdData:
    """Everything the figure shows."""
    if not len(scales) == len(floors) == len(two_to_one) == len(invertible) > 0:
        raise ValueError("the figure needs one of each number for each scale")
    if any(b <= a for a, b in itertools.pairwise(scales)):
        raise ValueError("scales must rise")
    words = "; ".join(
        f"scale {scale:g}: {floor:.4g} proved, {common:.4g} found, {own:.4g} at the invertible "
        "target"
        for scale, floor, common, own in zip(scales, floors, two_to_one, invertible, strict=True)
    )
    return InvertibilityThresholdData(
        scales=tuple(scales),
        floors=tuple(floors),
        two_to_one=tuple(two_to_one),
        invertible=tuple(invertible),
        title="Two inputs, one answer: error against the scale of the weights",
        description=f"Largest error of the best trained prompt. {words}.",
    )


def draw(shown: InvertibilityThresholdData, axes: Axes) -> None:
    """Draw on any matplotlib axes."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    proved = [(s, f) for s, f in zip(shown.scales, shown.floors, strict=True) if f > 0]
    if proved:
        places, heights = zip(*proved, strict=True)
        axes.plot(places, heights, "-", color=PROVED, linewidth=2.0, zorder=2)
        axes.axvspan(shown.scales[0], places[-1], color=PROVED, alpha=0.07, zorder=1)
    # Circles are larger: where both are rounding, the square lies on the circle.
    marks = ((shown.two_to_one, FOUND, "o", 9), (shown.invertible, MUTED, "s", 4))
    for found, colour, mark, size in marks:
        errors = [max(error, _LEAST) for error in found]
        axes.plot(shown.scales, errors, mark, color=colour, markersize=size)
    top = 10 * max(*shown.two_to_one, *shown.invertible, *shown.floors, _LEAST)
    axes.set_ylim(_LEAST / 3, 30 * top)
    set_axes(axes, title=shown.title, below="scale of the weights", beside="error")
    words = (
        ("● one common answer, found", FOUND, 0.94),
        ("■ invertible target, found", MUTED, 0.88),
        ("▬ proved for every prompt", PROVED, 0.82),
    )
    for word, colour, height in words:
        axes.text(0.02, height, word, color=colour, transform=axes.transAxes, fontsize=9)


def svg(shown: InvertibilityThresholdData) -> str:
    """The figure as an SVG document."""
    return document(
        lambda axes: draw(shown, axes), title=shown.title, description=shown.description
    )
