"""A map and what a network says behind the prompt of that map, within the proved limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from promptlimits.report.figures.plain_svg import FOUND, INK, MUTED, RULE, document, set_axes
from promptlimits.report.wording import count


@dataclass(frozen=True, kw_only=True)
class UniversalPromptData:
    """What the figure shows.

    Attributes:
        inputs: Rising inputs.
        wanted: The map there.
        answered: What the network says there.
        bound: Proved limit on the error.
        largest_error: The largest one found.
        title: Name of the drawing.
        description: Its numbers in words.
    """

    inputs: tuple[float, ...]
    wanted: tuple[float, ...]
    answered: tuple[float, ...]
    bound: float
    largest_error: float
    title: str
    description: str


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


def draw(shown: UniversalPromptData, axes: Axes) -> None:
    """Draw on any matplotlib axes."""
    lower = [y - shown.bound for y in shown.wanted]
    upper = [y + shown.bound for y in shown.wanted]
    axes.fill_between(
        shown.inputs, lower, upper, color=RULE, linewidth=0, label="proved: within this band"
    )
    axes.plot(shown.inputs, shown.wanted, color=INK, linewidth=1.1, label="the map")
    axes.plot(
        shown.inputs,
        shown.answered,
        color=FOUND,
        linewidth=1.1,
        label="the network behind the prompt",
    )
    axes.legend(frameon=False, fontsize=8.5, labelcolor=MUTED, loc="best")
    set_axes(axes, title=shown.title, below="input", beside="value")


def svg(shown: UniversalPromptData) -> str:
    """The figure as an SVG document."""
    return document(
        lambda axes: draw(shown, axes), title=shown.title, description=shown.description
    )
