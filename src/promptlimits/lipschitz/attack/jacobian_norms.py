"""Two norms of a Jacobian, as the value |J(X) eta| of one direction eta and its improvement.

For a map f of token matrices X (columns are tokens) and its Jacobian J(X), the norm is the
largest of |J(X) eta| over directions eta of norm 1, where both norms are

- "token": the largest Euclidean norm of a column, so that eta moves every token by at most 1;
- "frobenius": the square root of the sum of all squares.

J eta is one forward-mode product. Its derivative, one backward pass through that product,
serves twice: with respect to eta it is J^T u, u the normalised change of the outputs, and the
best direction for u is J^T u, normalised (column by column in the token norm): the value never
falls, which for Frobenius is the power iteration on J^T J. With respect to X it is the ascent
direction for the point. So one pass serves both.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Norm: TypeAlias = Literal["token", "frobenius"]
Forward: TypeAlias = Callable[[Tensor], Tensor]


def size(changes: Tensor, norm: Norm) -> Tensor:
    """Norm of each matrix."""
    if norm == "frobenius":
        whole: Tensor = changes.flatten(-2).norm(dim=-1)
        return whole
    columns: Tensor = changes.norm(dim=-2)
    return columns.amax(dim=-1)


def best_direction(gradient: Tensor, norm: Norm, fallback: Tensor) -> Tensor:
    """The direction of norm 1 along which a linear form grows most."""
    axes = (-2,) if norm == "token" else (-2, -1)
    lengths = torch.linalg.vector_norm(gradient, dim=axes, keepdim=True)
    # Times a number a little under 1, so that rounding leaves the norm at 1 or below.
    shrink = 1 - 8 * torch.finfo(gradient.dtype).eps
    turned = shrink * gradient / lengths.clamp_min(torch.finfo(gradient.dtype).tiny)
    return torch.where(lengths > torch.finfo(gradient.dtype).tiny, turned, fallback)


def output_changes(forward: Forward, points: Tensor, directions: Tensor) -> Tensor:
    """J(X) eta for a batch, by forward-mode differentiation."""
    with warnings.catch_warnings():
        # The first forward-mode product of a process makes torch script a module of its own.
        warnings.filterwarnings("ignore", r"`torch\.jit\.script`", DeprecationWarning)
        changes: Tensor = torch.func.jvp(forward, (points,), (directions,))[1]
    return changes


def values_and_gradients(
    forward: Forward, points: Tensor, directions: Tensor, norm: Norm
) -> tuple[Tensor, Tensor, Tensor]:
    """|J(X) eta| and the derivatives of its logarithm by X and by eta, for a batch."""
    points = points.detach().requires_grad_(True)
    directions = directions.detach().requires_grad_(True)
    values = size(output_changes(forward, points, directions), norm)
    logs = values.clamp_min(torch.finfo(values.dtype).tiny).log().sum()
    by_point, by_direction = torch.autograd.grad(
        logs, (points, directions), allow_unused=True, materialize_grads=True
    )
    return values.detach(), by_point, by_direction
