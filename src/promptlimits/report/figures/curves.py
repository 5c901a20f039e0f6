"""Curves over one axis, each proved, found or estimated, with intervals where there are some."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, TypeAlias

from matplotlib.axes import Axes

from promptlimits.record.experiment import Interval
from promptlimits.report.figures.labels import spread
from promptlimits.report.figures.plain_svg import (
    FOUND,
    INK,
    MUTED,
    PROVED,
    Drawing,
    Place,
    require_one_each,
    set_axes,
)

Sort: TypeAlias = Literal["proved", "found", "estimated", "published"]
_COLOURS: Final = {"proved": PROVED, "found": FOUND, "estimated": INK, "published": MUTED}
_LINES: Final = {"proved": "-", "found": "-", "estimated": "-", "published": (0, (4, 3))}
_DECADE: Final = 10
"""On a logarithmic axis an end at 0 is drawn so far below the lowest point."""
_MARKS: Final = "osD^vP"
_SIDE_BY_SIDE: Final = 0.012
"""How far apart points of two curves at one place stand, as a share of the axis."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Numbers over numbers."""

    name: str
    sort: Sort  # a line is what a theorem says; marks are what was counted or inferred
    across: Sequence[float]  # rising
    up: Sequence[float]
    # Ends of intervals; empty where there are none.
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    marks: bool = True  # whether points are marked; a line alone where not

    def __post_init__(self) -> None:
        """Refuse lists that do not fit."""
        ends = (self.low, self.high) if self.low else ()
        require_one_each(self.across, self.up, *ends, of="point")

    @classmethod
    def of(
        cls, name: str, sort: Sort, across: Sequence[float], intervals: Sequence[Interval]
    ) -> Curve:
        """Estimates with their ends; those without a value are left out."""
        known = [
            (x, y, y if one.low is None else one.low, y if one.high is None else one.high)
            for x, one in zip(across, intervals, strict=True)
            if (y := one.value) is not None
        ]
        x, up, low, high = zip(*known, strict=True)
        return cls(name=name, sort=sort, across=x, up=up, low=low, high=high)

    def in_words(self, below: str) -> str:
        """Every number."""
        ends = [f" ({a:.4g} to {b:.4g})" for a, b in zip(self.low, self.high, strict=True)]
        points = (
            f"{below} {x:g}: {y:.4g}{end}"
            for x, y, end in zip(self.across, self.up, ends or [""] * len(self.up), strict=True)
        )
        return f"{self.name}, {self.sort}: {', '.join(points)}"


@dataclass(frozen=True, kw_only=True)
class Curves(Drawing):
    """What the figure shows."""

    name: str
    below: str  # name of the axis below
    beside: str
    curves: Sequence[Curve]
    log_scale: bool = False  # of the axis beside; points of 0 are left out there
    whole: bool = False  # whether only whole numbers stand below

    place: ClassVar[Place] = (0.13, 0.14, 0.57, 0.74)

    @property
    def title(self) -> str:
        """Name of the drawing."""
        return self.name

    @property
    def description(self) -> str:
        """Every number of the drawing in words."""
        return ". ".join(curve.in_words(self.below) for curve in self.curves) + "."

    def draw(self, axes: Axes) -> None:
        """Draw on any matplotlib axes."""
        if self.log_scale:
            axes.set_yscale("log")
        marked = [curve for curve in self.curves if curve.marks]
        for curve in self.curves:
            self._draw(axes, curve, marked.index(curve) if curve.marks else None, len(marked))
        if self.whole:
            every = {round(x) for curve in self.curves for x in curve.across}
            axes.set_xticks(range(min(every), max(every) + 1))
        set_axes(axes, title=self.title, below=self.below, beside=self.beside)
        self._name_curves(axes)

    def _draw(self, axes: Axes, curve: Curve, number: int | None, of: int) -> None:
        colour, line = _COLOURS[curve.sort], _LINES[curve.sort]
        shown = [i for i, y in enumerate(curve.up) if y > 0 or not self.log_scale]
        up = [curve.up[i] for i in shown]
        if number is None:
            across = [curve.across[i] for i in shown]
            axes.plot(across, up, linestyle=line, color=colour, linewidth=2.0, zorder=2)
            return
        wide = max(max(each.across) - min(each.across) for each in self.curves)
        aside = (number - (of - 1) / 2) * _SIDE_BY_SIDE * wide
        across = [curve.across[i] + aside for i in shown]
        mark = _MARKS[number % len(_MARKS)]
        axes.plot(across, up, mark, color=colour, markersize=5.5, zorder=4)
        axes.plot(across, up, linestyle=line, color=colour, linewidth=0.9, alpha=0.6, zorder=3)
        if curve.low:
            low, high = ([ends[i] for i in shown] for ends in (curve.low, curve.high))
            if self.log_scale:
                low = [end or min(up) / _DECADE for end in low]
            axes.vlines(across, low, high, color=colour, linewidth=1.1, alpha=0.7, zorder=3)

    def _name_curves(self, axes: Axes) -> None:
        """Names in the right margin, at the heights where the curves end."""
        box = axes.get_ylim()
        ends = sorted(
            ((self._height(curve.up[-1], box), curve) for curve in self.curves),
            key=lambda end: end[0],
        )
        marks = {id(c): _MARKS[i % 6] for i, c in enumerate(c for c in self.curves if c.marks)}
        for height, (_, curve) in zip(spread([h for h, _ in ends]), ends, strict=True):
            if curve.marks:
                axes.plot(
                    [1.035], [height], marks[id(curve)], color=_COLOURS[curve.sort],
                    markersize=5, transform=axes.transAxes, clip_on=False,
                )  # fmt: skip
            axes.text(
                1.06 if curve.marks else 1.02,
                height,
                curve.name,
                color=_COLOURS[curve.sort],
                transform=axes.transAxes,
                verticalalignment="center",
                fontsize=9,
                parse_math=False,
            )

    def _height(self, up: float, box: tuple[float, float]) -> float:
        """A height as a share of the axes, from 0 to 1."""
        bottom, top = (math.log(end) for end in box) if self.log_scale else box
        at = (math.log(up) if up > 0 else bottom) if self.log_scale else up
        return min(1.0, max(0.0, (at - bottom) / (top - bottom)))
