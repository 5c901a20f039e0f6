"""Where a search for a large Jacobian begins: kinds of token configurations in a ball.

A worst case of attention is seldom a random prompt. Weights saturate when logits are large
(tokens on the sphere, along the singular vectors of A and V), the covariance term is largest
when the weights split between two far groups, and the MLP sees most when all tokens agree.
Each kind is a function of shape (count, D, tokens); `starting_points` cycles through them.

The tokens of a start lie in the ball, and no two starts are equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from promptlimits.nets.paper.weights import TransformerWeights

_SPREAD: Final = 0.05
"""How far the members of a cluster lie apart, relative to the radius."""

_NEAR: Final = 1e-3
"""How far near-duplicates lie apart, relative to the radius."""

Draw = Callable[[tuple[int, ...]], Tensor]


def project(points: Tensor, radius: float | Tensor) -> Tensor:
    """Tokens pulled back into the ball: each column of Euclidean norm at most `radius`."""
    norms: Tensor = points.norm(dim=-2, keepdim=True)
    inside = torch.as_tensor(radius, dtype=points.dtype, device=points.device)
    inside = inside * (1 - 8 * torch.finfo(points.dtype).eps)
    return points * (inside / torch.maximum(norms, inside))


def _unit(points: Tensor) -> Tensor:
    norms: Tensor = points.norm(dim=-2, keepdim=True)
    return points / norms.clamp_min(torch.finfo(points.dtype).tiny)


def _gaussian(draw: Draw, count: int, dim: int, tokens: int) -> Tensor:
    """Independent tokens whose lengths are about 0.7 of the radius."""
    return 0.7 * draw((count, dim, tokens)) / math.sqrt(dim)


def _boundary(draw: Draw, count: int, dim: int, tokens: int) -> Tensor:
    """Independent tokens on the sphere."""
    return _unit(draw((count, dim, tokens)))


def _clustered(draw: Draw, count: int, dim: int, tokens: int) -> Tensor:
    """All tokens near one point of the sphere."""
    return _unit(draw((count, dim, 1))) + _SPREAD * draw((count, dim, tokens)) / math.sqrt(dim)


def _tied(draw: Draw, count: int, dim: int, tokens: int) -> Tensor:
    """One token repeated, except the last."""
    points = _unit(draw((count, dim, 1))).repeat(1, 1, tokens)
    points[:, :, -1:] = _unit(draw((count, dim, 1)))
    return points


def _two_clusters(draw: Draw, count: int, dim: int, tokens: int) -> Tensor:
    """Tokens near two opposite points of the sphere, each side about half of them."""
    sides = torch.where(draw((count, 1, tokens)) > 0, 1.0, -1.0)
    centre = _unit(draw((count, dim, 1)))
    return centre * sides.to(centre.dtype) + _SPREAD * draw((count, dim, tokens)) / math.sqrt(dim)


def _near_duplicates(draw: Draw, count: int, dim: int, tokens: int) -> Tensor:
    """Tokens of the sphere, each with a twin almost equal to it."""
    half = _unit(draw((count, dim, (tokens + 1) // 2)))
    return half.repeat(1, 1, 2)[:, :, :tokens] + _NEAR * draw((count, dim, tokens)) / math.sqrt(dim)


KINDS: Final = {
    "gaussian": _gaussian,
    "boundary": _boundary,
    "clustered": _clustered,
    "tied": _tied,
    "two clusters": _two_clusters,
    "near duplicates": _near_duplicates,
}
"""The kinds that need nothing but sizes. A seventh, "aligned", needs directions."""


def _aligned(draw: Draw, count: int, tokens: int, directions: Tensor) -> Tensor:
    """Tokens along plus or minus one of the given directions each, a little disturbed."""
    dim, choices = directions.shape
    which = draw((count, tokens, choices)).argmax(dim=-1)
    signs = torch.where(draw((count, 1, tokens)) > 0, 1.0, -1.0).to(directions.dtype)
    chosen = _unit(directions)[:, which].movedim(0, 1)
    return chosen * signs + _SPREAD * draw((count, dim, tokens)) / math.sqrt(dim)


def starting_points(
    *,
    dim: int,
    tokens: int,
    radius: float,
    count: int,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float64,
    aligned: Tensor | None = None,
) -> Tensor:
    """Starts of every kind in turn."""

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype, device=generator.device)

    kinds = len(KINDS) + (aligned is not None)
    points = torch.empty(count, dim, tokens, dtype=dtype, device=generator.device)
    for index, kind in enumerate(KINDS.values()):
        share = points[index::kinds]
        share.copy_(kind(draw, len(share), dim, tokens))
    if aligned is not None:
        share = points[len(KINDS) :: kinds]
        share.copy_(_aligned(draw, len(share), tokens, aligned.to(points)))
    return project(radius * points, radius)


def singular_directions(
    weights: TransformerWeights, *, dtype: torch.dtype = torch.float64
) -> Tensor:
    """The leading singular vectors, on both sides, of A and of V, for each head of layer 1."""
    columns: list[Tensor] = []
    for head in weights.layers[0].heads:
        for matrix in (head.key.T @ head.query, head.output @ head.value):
            left, _, right = torch.linalg.svd(torch.as_tensor(matrix, dtype=dtype))
            columns += [left[:, 0], right[0]]
    return torch.stack(columns, dim=1)
