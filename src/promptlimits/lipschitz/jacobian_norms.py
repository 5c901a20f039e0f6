"""Norms of a Jacobian from below, by ascent over the direction and over the point.

For a map f of token matrices X (columns are tokens) and its Jacobian J(X), the norm is the
largest of |J(X) eta| over directions eta of norm 1, where both norms are

- "token": the largest Euclidean norm of a column, so that eta moves every token by at most 1;
- "frobenius": the square root of the sum of all squares.

J eta is one forward-mode product. Its derivative, one backward pass through that product,
serves twice: with respect to eta it is J^T u, u the normalised change of the outputs, and the
best direction for u is J^T u, normalised (column by column in the token norm): the value never
falls, which for Frobenius is the power iteration on J^T J. With respect to X it is the ascent
direction for the point. So one step improves both.

Nothing here is proved: whatever is reached is |J(X) eta| at an explicit point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor

from promptlimits.lipschitz.starts import project

Norm: TypeAlias = Literal["token", "frobenius"]
Forward: TypeAlias = Callable[[Tensor], Tensor]

_MOMENTS: Final = (0.8, 0.95)
"""Adam's averages, shorter than for training: the steps are few and nothing is noisy."""

_POLISH: Final = 12
"""Steps at the end that turn the direction and leave the point."""


def size(changes: Tensor, norm: Norm) -> Tensor:
    """Norm of each matrix.

    Args:
        changes: Shape (..., D, tokens).
        norm: "token" or "frobenius".

    Returns:
        Shape (...).
    """
    if norm == "frobenius":
        return changes.flatten(-2).norm(dim=-1)
    return changes.norm(dim=-2).amax(dim=-1)


def best_direction(gradient: Tensor, norm: Norm, fallback: Tensor) -> Tensor:
    """The direction of norm 1 along which a linear form grows most.

    Args:
        gradient: The form, shape (..., D, tokens).
        norm: Norm of the direction.
        fallback: Direction kept where the form is zero (token by token in the token norm).

    Returns:
        Same shape, of norm 1.
    """
    axes = (-2,) if norm == "token" else (-2, -1)
    lengths = torch.linalg.vector_norm(gradient, dim=axes, keepdim=True)
    # Times a number a little under 1, so that rounding leaves the norm at 1 or below.
    shrink = 1 - 8 * torch.finfo(gradient.dtype).eps
    turned = shrink * gradient / lengths.clamp_min(torch.finfo(gradient.dtype).tiny)
    return torch.where(lengths > torch.finfo(gradient.dtype).tiny, turned, fallback)


def output_changes(forward: Forward, points: Tensor, directions: Tensor) -> Tensor:
    """J(X) eta for a batch, by forward-mode differentiation.

    Args:
        forward: Map from (B, D, tokens) to (B, D', columns), each member by itself.
        points: X, shape (B, D, tokens).
        directions: eta, same shape.

    Returns:
        Shape (B, D', columns).
    """
    _, changes = torch.func.jvp(forward, (points,), (directions,))
    return changes


@dataclass(frozen=True, kw_only=True, eq=False)
class Ascent:
    """What an ascent reached, for each member of its batch.

    Attributes:
        values: |J(X) eta|, shape (B,).
        points: X, shape (B, D, tokens).
        directions: eta, of norm 1, same shape.
        history: The best value of each member after each step, shape (steps, B).
    """

    values: Tensor
    points: Tensor
    directions: Tensor
    history: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Domain:
    """Where points and directions may go.

    Attributes:
        radius: Radius of the ball of each token, or one for each member, shape (B, 1, 1).
        norm: Norm of directions and of changes.
        moving: Columns of X that are searched, booleans of shape (tokens,).
        perturbed: Columns on which eta may differ from 0, likewise.
    """

    radius: float | Tensor
    norm: Norm
    moving: Tensor
    perturbed: Tensor


def _gradients(
    forward: Forward, points: Tensor, directions: Tensor, norm: Norm
) -> tuple[Tensor, Tensor, Tensor]:
    """Values, and the derivatives of their logarithms by X and by eta."""
    points = points.detach().requires_grad_(True)
    directions = directions.detach().requires_grad_(True)
    values = size(output_changes(forward, points, directions), norm)
    logs = values.clamp_min(torch.finfo(values.dtype).tiny).log().sum()
    by_point, by_direction = torch.autograd.grad(
        logs, (points, directions), allow_unused=True, materialize_grads=True
    )
    return values.detach(), by_point, by_direction


def ascend(
    forward: Forward,
    points: Tensor,
    directions: Tensor,
    *,
    domain: Domain,
    steps: int,
    rate: float = 0.15,
) -> Ascent:
    """Joint ascent of |J(X) eta| over the point (Adam, projected) and the direction.

    Args:
        forward: Map from (B, D, tokens) to (B, D', columns), each member by itself.
        points: Starts, in the domain.
        directions: Directions to begin with, of norm 1, zero outside `domain.perturbed`.
        domain: Where both may go.
        steps: Steps over both; a few more turn the direction alone.
        rate: Length of the first step of a token, relative to the radius; it falls to zero.

    Returns:
        The best values met, and where.
    """
    reached = points.new_zeros(len(points))
    best_points, best_directions = points.clone(), directions.clone()
    first, second = torch.zeros_like(points), torch.zeros_like(points)
    history: list[Tensor] = []
    for step in range(steps + _POLISH):
        if step >= steps:
            points, directions = best_points, best_directions
        values, by_point, by_direction = _gradients(forward, points, directions, domain.norm)
        better = values > reached
        reached = torch.where(better, values, reached)
        best_points = torch.where(better[:, None, None], points, best_points)
        best_directions = torch.where(better[:, None, None], directions, best_directions)
        history.append(reached)
        turned = best_direction(by_direction * domain.perturbed, domain.norm, directions)
        directions = turned * domain.perturbed
        if step >= steps:
            best_directions = directions
            continue
        first.lerp_(by_point, 1 - _MOMENTS[0])
        second.lerp_(by_point**2, 1 - _MOMENTS[1])
        stride = first / (1 - _MOMENTS[0] ** (step + 1))
        stride = stride / (second / (1 - _MOMENTS[1] ** (step + 1))).sqrt().clamp_min(1e-30)
        length = rate * domain.radius * (1 - step / steps) / points.shape[-2] ** 0.5
        moved = project(points + length * stride, domain.radius)
        points = torch.where(domain.moving, moved, points)
    with torch.no_grad():
        values = size(output_changes(forward, best_points, best_directions), domain.norm)
    return Ascent(
        values=values,
        points=best_points,
        directions=best_directions,
        history=torch.stack([*history, torch.maximum(values, reached)]),
    )
