"""A map and what a network says behind the prompt of that map, within the proved limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from promptlimits.report.figures.plain_svg import FOUND, INK, MUTED, RULE, Drawing, set_axes
from promptlimits.report.wording import count


@dataclass(frozen=True, kw_only=True)
class UniversalPromptData(Drawing):
    """What the figure shows.

    Attributes:
        inputs: Rising inputs.
        wanted: The map there.
        answered: What the network says there.
        bound: Proved limit on the error.
        largest_error: The largest one found.
    """

    inputs: tuple[float, ...]
    wanted: tuple[float, ...]
    answered: tuple[float, ...]
    bound: float
    largest_error: float

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


def data(
    inputs: Sequence[float],
    wanted: Sequence[float],
    answered: Sequence[float],
    *,
    name: str,
    bound: float,
    largest_error: float,
    prompt_tokens: int,
) -> UniversalPromptData:
    """Everything the figure shows."""
    told = (
        f"largest error found {largest_error:.4g}, proved to be at most {bound:.4g} off a set "
        "of tiny measure"
    )
    return UniversalPromptData(
        inputs=tuple(inputs),
        wanted=tuple(wanted),
        answered=tuple(answered),
        bound=bound,
        largest_error=largest_error,
        title=f"{name} by a prompt of {count(prompt_tokens)} tokens",
        description=f"{name} and the answers of the network at {len(inputs)} inputs from "
        f"{inputs[0]:.4g} to {inputs[-1]:.4g}: {told}.",
    )
