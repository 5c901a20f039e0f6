"""A drawing as a file of its own, SVG, PDF or PNG: the same data give the same bytes.

In an SVG text stays text.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import ClassVar, Final

import matplotlib
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK: Final = "#1c2127"
MUTED: Final = "#5a636e"
RULE: Final = "#d9dee4"
FOUND: Final = "#0b5a9d"
PROVED: Final = "#a84300"
Place = tuple[float, float, float, float]
_INCHES: Final = (5.6, 3.9)
_POINTS: Final = 10.5
_DOTS_PER_INCH: Final = 200


class Drawing(ABC):
    """What a figure shows: its fields hold the numbers, `draw` only draws them."""

    place: ClassVar[Place] = (0.13, 0.14, 0.83, 0.74)

    @property
    @abstractmethod
    def title(self) -> str:
        """Name of the drawing."""

    @property
    @abstractmethod
    def description(self) -> str:
        """Every number of the drawing in words, for those who do not see it."""

    @abstractmethod
    def draw(self, axes: Axes) -> None:
        """Draw on any matplotlib axes."""

    def svg(self) -> str:
        """The figure as an SVG document of its own, on white."""
        return document(self.draw, title=self.title, description=self.description, place=self.place)

    def file(self, form: str) -> bytes:
        """The figure on white as a file: "svg", "pdf" or "png"."""
        if form == "svg":
            return self.svg().encode()
        buffer = io.BytesIO()
        with _figure(
            self.draw, place=self.place, inches=_INCHES, points=_POINTS, background="white"
        ) as figure:
            if form == "pdf":
                nothing = dict.fromkeys(("Creator", "Producer", "CreationDate"))
                FigureCanvasPdf(figure).print_pdf(buffer, metadata=nothing)
            else:
                figure.set_dpi(_DOTS_PER_INCH)
                FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
        return buffer.getvalue()


def document(
    draw: Callable[[Axes], None],
    *,
    title: str,
    description: str,
    place: Place = Drawing.place,
) -> str:
    """Draw into an SVG document."""
    text = rendered(draw, place=place, inches=_INCHES, points=_POINTS, background="white")
    start = text.index("<svg")
    after = text.index(">", start) + 1
    words = f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
    return text[:after] + words + text[after:]


def rendered(
    draw: Callable[[Axes], None],
    *,
    place: Place,
    inches: tuple[float, float],
    points: float,
    background: str | None = None,
) -> str:
    """Matplotlib's SVG of a drawing, without names, dates or settings left behind."""
    buffer = io.StringIO()
    with _figure(draw, place=place, inches=inches, points=points, background=background) as figure:
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)
    return buffer.getvalue()


@contextmanager
def _figure(
    draw: Callable[[Axes], None],
    *,
    place: Place,
    inches: tuple[float, float],
    points: float,
    background: str | None,
) -> Iterator[Figure]:
    """A drawing to be written; matplotlib's settings are undone on leaving, none of them kept."""
    with matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "promptlimits",
            "font.family": "DejaVu Sans",
            "font.size": points,
            "axes.linewidth": 0.8,
        }
    ):
        figure = Figure(figsize=inches, facecolor=background)
        draw(figure.add_axes(place))
        yield figure


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


def set_key(
    axes: Axes, words: Iterable[tuple[str, str, float, float]], *, size: float | None = None
) -> None:
    """Write what the marks mean: a word, its colour and its place as fractions of the axes."""
    for word, colour, across, up in words:
        axes.text(across, up, word, color=colour, transform=axes.transAxes, fontsize=size)


def require_one_each(*numbers: Iterable[object], of: str) -> None:
    """Refuse lists of different lengths, or of none: each names a number for each mark."""
    if len({len(tuple(each)) for each in numbers}) != 1 or not tuple(numbers[0]):
        raise ValueError(f"the figure needs one of each number for each {of}")
