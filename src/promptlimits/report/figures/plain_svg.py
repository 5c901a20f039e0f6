"""A drawing as an SVG file of its own: text stays text, and the same data give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Final

import matplotlib
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK: Final = "#1c2127"
MUTED: Final = "#5a636e"
RULE: Final = "#d9dee4"
FOUND: Final = "#0b5a9d"
PROVED: Final = "#a84300"
_SIZE_INCHES: Final = (5.6, 3.9)
_PLACE: Final = (0.13, 0.14, 0.83, 0.74)


def document(
    draw: Callable[[Axes], None],
    *,
    title: str,
    description: str,
    place: tuple[float, float, float, float] = _PLACE,
) -> str:
    """Draw into an SVG document."""
    buffer = io.StringIO()
    # The settings are undone on leaving; nothing of matplotlib's own state is kept.
    with matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "promptlimits",
            "font.family": "DejaVu Sans",
            "font.size": 10.5,
            "axes.linewidth": 0.8,
        }
    ):
        figure = Figure(figsize=_SIZE_INCHES, facecolor="white")
        draw(figure.add_axes(place))
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)
    text = buffer.getvalue()
    start = text.index("<svg")
    after = text.index(">", start) + 1
    words = f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
    return text[:after] + words + text[after:]


def set_axes(axes: Axes, *, title: str, below: str, beside: str) -> None:
    """Give axes their names and take away what is not read."""
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, parse_math=False)
    axes.set_xlabel(below, color=INK)
    axes.set_ylabel(beside, color=INK)
    axes.tick_params(colors=MUTED, length=0, pad=5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(RULE)
