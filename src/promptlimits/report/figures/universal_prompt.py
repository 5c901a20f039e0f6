"""A map and what a network says behind the prompt of that map, within the proved limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from promptlimits.report.figures.plain_svg import FOUND, INK, MUTED, RULE, Drawing, set_axes
from promptlimits.report.wording import count


@dataclass(frozen=True)
class UniversalPrompt(Drawing):
    """What the figure shows."""

    inputs: Sequence[float]  # rising inputs
    wanted: Sequence[float]  # the map there
    answered: Sequence[float]  # what the network says there
    name: str  # the map's
    bound: float  # proved limit on the error
    largest_error: float  # the largest one found
    prompt_tokens: int  # of the prompt

    @property
    def title(self) -> str:
        """Name of the drawing."""
        return f"{self.name} by a prompt of {count(self.prompt_tokens)} tokens"

    @property
    def description(self) -> str:
        """Its numbers in words."""
        return (
            f"{self.name} and the answers of the network at {len(self.inputs)} inputs from "
            f"{self.inputs[0]:.4g} to {self.inputs[-1]:.4g}: largest error found "
            f"{self.largest_error:.4g}, proved to be at most {self.bound:.4g} off a set of tiny "
            "measure."
        )

    def draw(self, axes: Axes) -> None:
        """Draw on any matplotlib axes."""
        lower = [y - self.bound for y in self.wanted]
        upper = [y + self.bound for y in self.wanted]
        axes.fill_between(
            self.inputs, lower, upper, color=RULE, linewidth=0, label="proved: within this band"
        )
        axes.plot(self.inputs, self.wanted, color=INK, linewidth=1.1, label="the map")
        axes.plot(
            self.inputs,
            self.answered,
            color=FOUND,
            linewidth=1.1,
            label="the network behind the prompt",
        )
        axes.legend(frameon=False, fontsize=8.5, labelcolor=MUTED, loc="best")
        set_axes(axes, title=self.title, below="input", beside="value")
