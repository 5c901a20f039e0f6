"""Errors of trained prompts against their length, over what no prompt goes below."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from promptlimits.report.figures.plain_svg import FOUND, PROVED, Drawing, set_axes, set_key


@dataclass(frozen=True, kw_only=True)
class PromptErrorData(Drawing):
    """What the figure shows.

    Attributes:
        prompt_tokens: m_p of each point, rising.
        found: Error of the best trained prompt at each length; empty if none was trained.
        proved: Error below which no prompt of that length goes; one number for each length.
        name: What the error is, for the axis.
    """

    prompt_tokens: tuple[int, ...]
    found: tuple[float, ...]
    proved: tuple[float, ...]
    name: str

    def draw(self, axes: Axes) -> None:
        """Draw on any matplotlib axes."""
        places = [math.log2(tokens) for tokens in self.prompt_tokens]
        wide = [places[0] - 0.5, *places, places[-1] + 0.5]
        floor = [self.proved[0], *self.proved, self.proved[-1]]
        axes.step(wide, floor, where="mid", color=PROVED, linewidth=2.0, zorder=2)
        if self.found:
            axes.plot(places, self.found, "o", color=FOUND, markersize=7, zorder=3)
        top = 1.15 * max(*self.found, *self.proved, 1e-300)
        axes.set_ylim(0, top)
        axes.set_xlim(wide[0], wide[-1])
        axes.xaxis.set_major_locator(FixedLocator(places))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([str(tokens) for tokens in self.prompt_tokens])
        set_axes(axes, title=self.title, below="prompt tokens", beside=self.name)
        words = (("● found", FOUND, 0.68, 0.95), ("▬ proved", PROVED, 0.84, 0.95))
        set_key(axes, words if self.found else words[1:])


def data(
    prompt_tokens: Sequence[int], found: Sequence[float], proved: Sequence[float], *, name: str
) -> PromptErrorData:
    """Everything the figure shows."""
    if not len(prompt_tokens) == len(proved) > 0 or len(found) not in (0, len(proved)):
        raise ValueError("the figure needs as many errors as lengths, and at least one")
    if any(b <= a for a, b in itertools.pairwise(prompt_tokens)):
        raise ValueError("lengths must rise")
    words = "; ".join(
        f"{tokens} prompt tokens: "
        + (f"{found[i]:.6g} found, " if found else "")
        + f"{proved[i]:.6g} proved"
        for i, tokens in enumerate(prompt_tokens)
    )
    return PromptErrorData(
        prompt_tokens=tuple(prompt_tokens),
        found=tuple(map(float, found)),
        proved=tuple(map(float, proved)),
        name=name,
        title="Errors of prompts against prompt length",
        description=f"{name}. {words}.",
    )
