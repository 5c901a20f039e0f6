"""The spectral norm of a prompt and its loss, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from matplotlib.axes import Axes

from promptlimits.report.figures.plain_svg import (
    FOUND,
    INK,
    MUTED,
    PROVED,
    Drawing,
    Place,
    set_axes,
    set_key,
)

_TOLD: Final = 5
_LEAST: Final = 1e-30


@dataclass(frozen=True)
class PromptNormGrowth(Drawing):
    """What the figure shows."""

    losses: Sequence[float]  # at each step, from step 0
    spectral_norms: Sequence[float]  # ||P||_2 at each step
    token_norms: Sequence[float]  # length of the longest prompt token at each step
    limit: float  # D*: within it, one answer to both inputs is proved impossible

    title = "The prompt's spectral norm grows until the loss saturates"
    # Narrower than usual: the numbers of the second axis stand on the right.
    place: ClassVar[Place] = (0.13, 0.14, 0.74, 0.74)

    def __post_init__(self) -> None:
        """Refuse lists that do not fit."""
        if not len(self.losses) == len(self.spectral_norms) == len(self.token_norms) > 1:
            raise ValueError("the figure needs a loss and both norms at two steps or more")

    @property
    def left_at(self) -> int | None:
        """First step at which a prompt token is longer than D*, or None."""
        return next((i for i, length in enumerate(self.token_norms) if length > self.limit), None)

    @property
    def description(self) -> str:
        """The drawing in words, with its numbers at a few steps."""
        last, left = len(self.losses) - 1, self.left_at
        told = sorted({round(last * part / (_TOLD - 1)) for part in range(_TOLD)})
        words = "; ".join(
            f"step {step}: loss {self.losses[step]:.4g}, norm {self.spectral_norms[step]:.4g}"
            for step in told
        )
        longer = f"from step {left} on." if left is not None else "at no step."
        return f"{words}. D* is {self.limit:.4g}; a prompt token is longer {longer}"

    def draw(self, axes: Axes) -> None:
        """Draw on any matplotlib axes; the loss has an axis of its own on the right."""
        axes.plot(self.spectral_norms, color=FOUND, linewidth=2.0, zorder=3)
        axes.axhline(self.limit, color=PROVED, linewidth=1.4, linestyle=(0, (4, 3)), zorder=2)
        axes.set_ylim(0, 1.15 * max(*self.spectral_norms, self.limit))
        set_axes(axes, title=self.title, below="step", beside="spectral norm of the prompt")
        other = axes.twinx()
        other.set_yscale("log")
        other.plot([max(loss, _LEAST) for loss in self.losses], color=MUTED, linewidth=1.2)
        other.set_ylabel("loss", color=INK)
        other.tick_params(colors=MUTED, length=0, pad=2, labelsize=8)
        other.spines["top"].set_visible(False)
        words = (
            ("▬ norm, found", FOUND, 0.05, 0.95),
            ("▬ loss, found", MUTED, 0.33, 0.95),
            ("┅ D*, proved", PROVED, 0.61, 0.95),
        )
        set_key(axes, words, size=9)
