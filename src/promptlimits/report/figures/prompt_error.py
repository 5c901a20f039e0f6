"""Errors of trained prompts against their length, over what no prompt goes below."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from promptlimits.report.figures.plain_svg import FOUND, PROVED, Drawing, set_axes, set_key


@dataclass(frozen=True)
class PromptError(Drawing):
    """What the figure shows."""

    prompt_tokens: Sequence[int]  # m_p of each point, rising
    # Error of the best trained prompt at each length; empty if none was trained.
    found: Sequence[float]
    # Error below which no prompt of that length goes; one number for each length.
    proved: Sequence[float]
    name: str  # what the error is, for the axis

    title = "Errors of prompts against prompt length"

    def __post_init__(self) -> None:
        """Refuse lists that do not fit."""
        lengths = self.prompt_tokens
        if not len(lengths) == len(self.proved) > 0 or len(self.found) not in (0, len(lengths)):
            raise ValueError("the figure needs as many errors as lengths, and at least one")
        if any(b <= a for a, b in itertools.pairwise(lengths)):
            raise ValueError("lengths must rise")

    @property
    def description(self) -> str:
        """Every number of the drawing in words."""
        words = "; ".join(
            f"{tokens} prompt tokens: "
            + (f"{self.found[i]:.6g} found, " if self.found else "")
            + f"{self.proved[i]:.6g} proved"
            for i, tokens in enumerate(self.prompt_tokens)
        )
        return f"{self.name}. {words}."

    def draw(self, axes: Axes) -> None:
        """Draw on any matplotlib axes."""
        places = [math.log2(tokens) for tokens in self.prompt_tokens]
        wide = [places[0] - 0.5, *places, places[-1] + 0.5]
        floor = [self.proved[0], *self.proved, self.proved[-1]]
        axes.step(wide, floor, where="mid", color=PROVED, linewidth=2.0, zorder=2)
        if self.found:
            axes.plot(places, self.found, "o", color=FOUND, markersize=7, zorder=3)
        axes.set_ylim(0, 1.15 * max(*self.found, *self.proved, 1e-300))
        axes.set_xlim(wide[0], wide[-1])
        axes.xaxis.set_major_locator(FixedLocator(places))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([str(tokens) for tokens in self.prompt_tokens])
        set_axes(axes, title=self.title, below="prompt tokens", beside=self.name)
        words = (("● found", FOUND, 0.68, 0.95), ("▬ proved", PROVED, 0.84, 0.95))
        set_key(axes, words if self.found else words[1:])
