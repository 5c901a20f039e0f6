"""The spectral norm of a prompt in training: it grows until the loss saturates.

A prompt of short tokens is trained by Adam to give two inputs one answer. While all tokens are
within D* (`lipschitz.prompt_norm_limit`) that is proved impossible, so the prompt must leave the
ball. Recorded at each step: the loss, the larger error, ||P||_2, and the longest token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from promptlimits.base.checks import require_positive, require_positive_int
from promptlimits.base.errors import UserError
from promptlimits.base.typing import JsonObject
from promptlimits.lipschitz.balls.matrix import float_up
from promptlimits.lipschitz.paper.prompt_norm_limit import prompt_norm_limit
from promptlimits.nets.paper.transformer import from_weights
from promptlimits.nets.paper.weights import random_weights


@dataclass(frozen=True, kw_only=True)
class PromptNormGrowth:
    """A training run, step by step; the first entry is before any step.

    Attributes:
        limit: D*, rounded down: proved.
        losses: Sum of squared errors at both inputs.
        errors: The larger of the two errors.
        spectral_norms: ||P||_2.
        token_norms: Length of the longest prompt token.
    """

    limit: float
    losses: tuple[float, ...]
    errors: tuple[float, ...]
    spectral_norms: tuple[float, ...]
    token_norms: tuple[float, ...]

    def to_json(self) -> JsonObject:
        """As plain JSON."""
        series = {name: values for name, values in vars(self).items() if name != "limit"}
        return {
            "experiment": "norm",
            "limit": self.limit,
            **{name: list(values) for name, values in series.items()},
        }


def run(
    *,
    dim: int = 4,
    heads: int = 2,
    layers: int = 2,
    scale: float = 0.45,
    prompt_tokens: int = 4,
    steps: int = 800,
    learning_rate: float = 0.05,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> PromptNormGrowth:
    """Train one prompt."""
    require_positive_int("steps", steps)
    require_positive("the learning rate", learning_rate)
    generator = np.random.default_rng(seed)
    weights = random_weights(
        dim=dim,
        heads=heads,
        head_dim=dim,
        hidden=2 * dim,
        layers=layers,
        generator=generator,
        scale=scale,
    )
    limit = prompt_norm_limit(weights).value
    if not limit:
        raise UserError(
            "the scale of the weights",
            "leave a prompt norm below which it is proved that inputs keep apart",
            got=scale,
            remedy="give a smaller scale",
        )
    ball = -float_up(-min(limit, Fraction(10**6)))
    inputs = torch.tensor(_tokens(generator, (2, dim, 1), 0.9 * ball))
    prompt = torch.tensor(_tokens(generator, (dim, prompt_tokens), 0.1 * ball))
    model = from_weights(weights)
    target = model.with_prompt(prompt, inputs).mean(dim=0)
    rows: list[tuple[float, float, float, float]] = []

    def loss(of: Tensor) -> Tensor:
        rest = model.with_prompt(of, inputs) - target
        squares = rest.square().sum(dim=(-2, -1))
        rows.append(_measured(of.detach(), squares.detach()))
        return squares.sum()

    _train(loss, prompt, steps, learning_rate, progress)
    losses, errors, spectral, tokens = zip(*rows, strict=True)
    return PromptNormGrowth(
        limit=ball,
        losses=losses,
        errors=errors,
        spectral_norms=spectral,
        token_norms=tokens,
    )


def _measured(prompt: Tensor, squares: Tensor) -> tuple[float, float, float, float]:
    """Loss, larger error, spectral norm, longest token."""
    return (
        float(squares.sum()),
        float(squares.max().sqrt()),
        float(torch.linalg.matrix_norm(prompt, 2)),
        float(torch.linalg.vector_norm(prompt, dim=0).max()),
    )


def _train(
    loss: Callable[[Tensor], Tensor],
    prompt: Tensor,
    steps: int,
    learning_rate: float,
    progress: Callable[[int], None] | None,
) -> None:
    trained = prompt.clone().requires_grad_(True)
    adam = torch.optim.Adam([trained], lr=learning_rate)
    for step in range(steps):
        adam.param_groups[0]["lr"] = learning_rate * (1 - 0.9 * step / steps)
        adam.zero_grad()
        loss(trained).backward()
        adam.step()
        if progress is not None:
            progress(step + 1)
    loss(trained)


def _tokens(
    generator: np.random.Generator, shape: tuple[int, ...], length: float
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    drawn = generator.standard_normal(shape)
    scaled: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = (
        drawn * length / np.linalg.norm(drawn, axis=-2, keepdims=True)
    )
    return scaled
