"""Adam over a batch of independent problems, as a pure function.

`torch.optim.Adam` keeps its state inside and takes one learning rate for a parameter group;
here the state is a value that goes into the store after every step, and each problem's
gradient is clipped by its own norm. The update is that of Kingma and Ba (2015), Algorithm 1,
and is tested against `torch.optim.Adam`.
"""

from __future__ import annotations

import torch
from torch import Tensor

BETA_1 = 0.9
BETA_2 = 0.99
EPSILON = 1e-8


def clip_each(gradient: Tensor, clip_norm: float) -> Tensor:
    """Scale the gradient (B, P, D) of each problem to norm at most `clip_norm`."""
    norms = gradient.flatten(1).norm(dim=1).clamp_min(torch.finfo(gradient.dtype).tiny)
    factors: Tensor = (clip_norm / norms).clamp_max(1.0)
    return gradient * factors[:, None, None]


def adam_step(
    prompts: Tensor,
    gradient: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    *,
    step: int,
    learning_rate: float,
    clip_norm: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step.

    Args:
        prompts: (B, P, D).
        gradient: (B, P, D), the gradient of each problem's loss.
        first_moment: (B, P, D) before the step.
        second_moment: (B, P, D) before the step.
        step: Steps done before this one.
        learning_rate: Step size.
        clip_norm: Largest gradient norm of one problem.

    Returns:
        The prompts and both moments after the step; the inputs are not changed.
    """
    clipped = clip_each(gradient, clip_norm)
    first = first_moment.lerp(clipped, 1 - BETA_1)
    second = second_moment.lerp(clipped * clipped, 1 - BETA_2)
    mean = first / (1 - BETA_1 ** (step + 1))
    spread = (second / (1 - BETA_2 ** (step + 1))).sqrt()
    return prompts - learning_rate * mean / (spread + EPSILON), first, second
