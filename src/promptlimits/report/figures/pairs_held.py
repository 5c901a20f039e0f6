"""Pairs held against prompt length: what was found, what was proved, what is not known.

On a page colours are CSS variables with fallbacks, so one drawing serves light and dark.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Final

from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from promptlimits.record.parts import Bracket
from promptlimits.record.record import Record
from promptlimits.report.figures.labels import short_count, spread, thinned
from promptlimits.report.figures.plain_svg import (
    FOUND,
    INK,
    MUTED,
    PROVED,
    RULE,
    Drawing,
    Place,
    rendered,
    set_key,
)
from promptlimits.report.wording import (
    all_of,
    below_shorter,
    clean,
    clip,
    count,
    longer_lists,
    plural,
    share_of_lists,
    unit,
)

# Drawn in the light palette; on a page each becomes var(--name, fallback).
_WASH: Final = "#f6ece4"
_COLOURS: Final = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    FOUND: "--found",
    PROVED: "--proved",
    _WASH: "--proved-wash",
}
# Widths are in points, which become the view box: 360 of them fill a phone's screen.
_SIZE_INCHES: Final = (5.0, 4.3)


@dataclass(frozen=True)
class PairsHeld(Drawing):
    """What the figure shows of a record."""

    record: Record

    place: ClassVar[Place] = (0.13, 0.13, 0.61, 0.79)

    def draw(self, axes: Axes) -> None:
        """Draw on any matplotlib axes."""
        _set_axes(self, axes)
        _draw_levels(self, axes)
        if self.ceilings:
            _draw_ceilings(self, axes)
        _draw_floors(self, axes)

    def inline(self) -> str:
        """The figure as inline SVG for a page."""
        svg = rendered(self.draw, place=self.place, inches=_SIZE_INCHES, points=11.0)
        return _inline(svg, self)

    @property
    def title(self) -> str:
        """Name of the drawing."""
        return f"{self.unit.capitalize()} held against prompt length, {all_of(self.record.task)}"

    @property
    def description(self) -> str:
        """Every number of the drawing in words."""
        record, meaning = self.record, longer_lists(self.record)
        points = "; ".join(f"{_point(one)}{below_shorter(record, one)}" for one in record.brackets)
        lines = "; ".join(f"{name}: {count(pairs)}" for name, pairs in self.levels)
        ceilings = f" Ceilings: {meaning}." if meaning else ""
        return f"{points}.{ceilings} Horizontal lines, {lines}."

    @property
    def unit(self) -> str:
        """What is counted: "pairs" of a list, or "tokens" of a text."""
        return unit(self.record.task)

    @property
    def prompt_tokens(self) -> tuple[int, ...]:
        """P of each point, rising."""
        return tuple(each.prompt_tokens for each in self.record.brackets)

    @property
    def floors(self) -> tuple[int | None, ...]:
        """How many were found at each length; None, and no point, where nothing was searched."""
        return tuple(one.floor.held if one.searched else None for one in self.record.brackets)

    @property
    def fewer(self) -> tuple[bool, ...]:
        """Whether a shorter prompt holds more, so that the search is the limit there."""
        return tuple(bool(below_shorter(self.record, each)) for each in self.record.brackets)

    @property
    def ceilings(self) -> tuple[int, ...]:
        """The proved ceiling for random lists at each length; empty where there is none."""
        limits = [each.ceiling.pairs for each in self.record.brackets]
        known = tuple(most for most in limits if most is not None)
        # One answer set serves all lengths: either each has a ceiling or none has.
        return known if len(known) == len(limits) else ()

    @property
    def share(self) -> str:
        """At most this share of random lists longer than a ceiling is within reach."""
        return share_of_lists(*(each.ceiling for each in self.record.brackets))

    @cached_property
    def levels(self) -> tuple[tuple[str, int], ...]:
        """Horizontal lines: baselines that were measured, the list or the text itself last."""
        task = self.record.task
        of_text = task.text_tokens is not None
        levels = [
            (_plain(row.name), height)
            for row in self.record.baselines
            if (height := row.tokens if of_text else row.pairs) is not None
        ]
        whole = ("whole list", task.pairs)
        if task.text_tokens is not None:
            whole = ("whole text", task.text_tokens)
        return (*levels, whole)


def _point(each: Bracket) -> str:
    found = f"floor {count(each.floor.held)} found" if each.searched else "not searched"
    floor = f"{plural(each.prompt_tokens, 'prompt token')}: {found}"
    if each.ceiling.pairs is None:
        return f"{floor}, no ceiling"
    return f"{floor}, ceiling for random lists {count(each.ceiling.pairs)} proved"


def _plain(name: str) -> str:
    """A name that the drawing's own font can measure; the tables show it in full."""
    return clip(clean(name).encode("ascii", "replace").decode("ascii"), most=16)


def _positions(shown: PairsHeld) -> tuple[float, ...]:
    """Prompt lengths on a doubling scale."""
    return tuple(math.log2(tokens) for tokens in shown.prompt_tokens)


def _set_axes(shown: PairsHeld, axes: Axes) -> None:
    places = _positions(shown)
    span = places[-1] - places[0]
    steps = [right - left for left, right in itertools.pairwise(places)]
    margin = max(0.14 * span, 0.6 * min(steps, default=1.0))
    # More room on the right: the numbers of the floors stand there.
    axes.set_xlim(places[0] - margin, places[-1] + 1.5 * margin)
    axes.set_yscale("symlog", linthresh=1, linscale=0.6)
    axes.set_ylim(-0.25, 40 * max(*shown.ceilings, *(pairs for _, pairs in shown.levels), 1))
    axes.yaxis.set_major_locator(FixedLocator([0, *(10.0**k for k in range(13))]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(round(value))))
    labels = thinned(places, gap=(span + 2.5 * margin) / 9)
    axes.xaxis.set_major_locator(FixedLocator([places[i] for i in labels]))
    names = [count(shown.prompt_tokens[i]) for i in labels]
    axes.xaxis.set_major_formatter(FuncFormatter(lambda _, at: names[at or 0]))
    axes.set_xlabel("prompt tokens", color=INK)
    axes.set_title(f"{shown.unit} held", loc="left", x=-0.19, fontsize=11, color=INK)
    axes.tick_params(colors=MUTED, length=0, pad=6)
    axes.patch.set_visible(False)
    axes.figure.patch.set_visible(False)
    words = (("\u25cf found", FOUND, 0.52, 1.022), ("\u25ac proved", PROVED, 0.77, 1.022))
    set_key(axes, words, size=9.5)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(RULE)


def _draw_levels(shown: PairsHeld, axes: Axes) -> None:
    """Baselines and the list: thin lines, named in the right margin without overlap."""
    named = sorted(shown.levels, key=lambda level: level[1])
    heights = [_height(axes, pairs) for _, pairs in named]
    for (name, pairs), line, label in zip(named, heights, spread(heights), strict=True):
        axes.axhline(pairs, color=MUTED, linewidth=0.9, linestyle=(0, (1, 3)), zorder=1)
        axes.annotate(
            f"{name}: {count(pairs)}",
            xy=(1.0, line),
            xytext=(1.045, label),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=MUTED,
            fontsize=9.5,
            verticalalignment="center",
            annotation_clip=False,
            parse_math=False,
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkB": 0},
        )


def _draw_ceilings(shown: PairsHeld, axes: Axes) -> None:
    top = axes.get_ylim()[1]
    half = _half_width(shown, axes)
    limits = zip(_positions(shown), shown.floors, shown.ceilings, strict=True)
    for place, floor, pairs in limits:
        # A column of its own for each length: between two lengths nothing was computed.
        sides = (place - half, place + half)
        axes.fill_between(sides, pairs, top, color=_WASH, linewidth=0, zorder=0)
        if floor is not None:
            axes.plot([place, place], [floor, pairs], color=RULE, linewidth=1.2, zorder=2)
        axes.plot(sides, [pairs, pairs], color=PROVED, linewidth=2.4, zorder=3)
    _label(shown, axes, shown.ceilings, colour=PROVED, above=True)
    axes.annotate(
        f"proved: random lists longer than this\ncannot be answered (but for {shown.share})",
        xy=(0.025, 0.975),
        xycoords="axes fraction",
        verticalalignment="top",
        fontsize=9,
        color=PROVED,
    )


def _half_width(shown: PairsHeld, axes: Axes) -> float:
    """Half the width of a ceiling's bar: a thumb's breadth, less where lengths stand close."""
    left, right = axes.get_xlim()
    steps = [after - before for before, after in itertools.pairwise(_positions(shown))]
    wide = right - left
    return max(0.008 * wide, min([0.06 * wide, *(0.4 * step for step in steps)]))


def _draw_floors(shown: PairsHeld, axes: Axes) -> None:
    marks = zip(_positions(shown), shown.floors, shown.fewer, strict=True)
    for place, floor, fewer in marks:
        if floor is None:
            _say_above(axes, place, 0, "not searched")
            continue
        if fewer:
            _say_above(axes, place, floor, "the search\u2019s limit", aside=-7)
        axes.plot([place, place], [0, floor], color=FOUND, linewidth=2.4, zorder=2)
        axes.plot([place], [floor], "o", markersize=8, color=FOUND, zorder=4)
    _label(shown, axes, shown.floors, colour=FOUND, above=False)


def _say_above(axes: Axes, place: float, height: int, words: str, *, aside: int = 0) -> None:
    """Words on end above a point, or where none is: what was not searched is no measured zero."""
    axes.annotate(
        words,
        xy=(place, height),
        xytext=(aside, 6),
        textcoords="offset points",
        rotation=90,
        horizontalalignment="center",
        verticalalignment="bottom",
        fontsize=9.5,
        color=MUTED,
    )


def _label(
    shown: PairsHeld, axes: Axes, values: Sequence[int | None], *, colour: str, above: bool
) -> None:
    """Write the numbers next to their marks, as many as fit side by side."""
    places = _positions(shown)
    left, right = axes.get_xlim()
    for i in thinned(places, gap=(right - left) / 5.6):
        value = values[i]
        if value is None:
            continue
        axes.annotate(
            count(value),
            xy=(places[i], value),
            xytext=(0, 6) if above else (9, 0),
            textcoords="offset points",
            horizontalalignment="center" if above else "left",
            verticalalignment="bottom" if above else "center",
            fontsize=11,
            fontweight="bold",
            color=colour,
        )


def _height(axes: Axes, pairs: float) -> float:
    """Height of a number of pairs as a fraction of the axes."""
    bottom, top = axes.get_ylim()
    low, here, high = (
        float(axes.yaxis.get_transform().transform([value])[0]) for value in (bottom, pairs, top)
    )
    return (here - low) / (high - low)


def _inline(document: str, shown: PairsHeld) -> str:
    """Matplotlib's SVG document as an element for a page."""
    body = document[document.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    # Matplotlib's own style sheet speaks of every element, which on a page is every element.
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"\s+xmlns(:xlink)?=\"[^\"]*\"", "", body).replace("xlink:href", "href")
    for colour, name in _COLOURS.items():
        body = body.replace(colour, f"var({name}, {colour})")
    view_box = re.search(r'viewBox="[^"]*"', body)
    box = view_box.group() if view_box else ""
    head = (
        f'<svg class="figure" {box} role="img" aria-labelledby="figure-title figure-text">'
        f'<title id="figure-title">{escape(shown.title)}</title>'
        f'<desc id="figure-text">{escape(shown.description)}</desc>'
    )
    return head + body[body.index(">") + 1 :].rstrip()
