"""Small prompts fitted by Levenberg-Marquardt, all starts at once, tokens kept in a ball.

A token is r z/(1 + |z|^2)^(1/2), so z is free and the token stays within r. What is found is an
error that some prompt attains; it proves nothing about other prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

_DAMPING_DOWN: Final = 0.2
_DAMPING_UP: Final = 5.0
_LEAST_DAMPING: Final = 1e-14


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedPrompt:
    """The best of several starts.

    Attributes:
        prompt: (d, m_p).
        residuals: At that prompt, flat.
    """

    prompt: Tensor
    residuals: Tensor


def fit_prompt(
    residuals: Callable[[Tensor], Tensor],
    *,
    dim: int,
    prompt_tokens: int,
    radius: float,
    starts: int,
    steps: int,
    generator: torch.Generator,
) -> FittedPrompt:
    """Find a prompt of small residuals among those with tokens within a radius."""
    free = torch.randn(starts, dim, prompt_tokens, generator=generator, dtype=torch.float64)

    def prompt_of(z: Tensor) -> Tensor:
        return radius * z / (1 + z.square().sum(dim=-2, keepdim=True)).sqrt()

    def errors(z: Tensor) -> Tensor:
        return residuals(prompt_of(z)).reshape(-1)

    batched, slope = torch.func.vmap(errors), torch.func.vmap(torch.func.jacrev(errors))
    now = batched(free)
    damping = torch.full((starts, 1, 1), 1e-2, dtype=torch.float64)
    for _ in range(steps):
        matrix = slope(free).reshape(starts, now.shape[-1], -1)
        step = _step(matrix, now, damping).reshape(free.shape)
        after = batched(free - step)
        better = after.square().sum(dim=-1) < now.square().sum(dim=-1)
        free = torch.where(better[:, None, None], free - step, free)
        now = torch.where(better[:, None], after, now)
        factor = torch.where(better, _DAMPING_DOWN, _DAMPING_UP)
        damping = (damping * factor[:, None, None]).clamp_(_LEAST_DAMPING, 1 / _LEAST_DAMPING)
    best = int(now.square().sum(dim=-1).argmin())
    return FittedPrompt(prompt=prompt_of(free[best]), residuals=now[best])


def _step(matrix: Tensor, residuals: Tensor, damping: Tensor) -> Tensor:
    """J^T (J J^T + mu I)^-1 r: the smaller of the two normal systems, as residuals are few."""
    outer = matrix @ matrix.mT
    scale = outer.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[:, None, None] + 1e-300
    eye = torch.eye(outer.shape[-1], dtype=outer.dtype)
    dual = torch.linalg.solve(outer + damping * scale * eye, residuals[..., None])
    step: Tensor = matrix.mT @ dual
    return step
