"""Starts, and projected ascent from them to points where the Jacobian of a map is large.

For a map f of token matrices X (columns are tokens) and its Jacobian J(X), the norm is the
largest of |J(X) eta| over directions eta of norm 1, where both norms are

- "token": the largest Euclidean norm of a column, so that eta moves every token by at most 1;
- "frobenius": the square root of the sum of all squares.

J eta is one forward-mode product. Its derivative, one backward pass through that product,
serves twice: with respect to eta it is J^T u, u the normalised change of the outputs, and the
best direction for u is J^T u, normalised (column by column in the token norm): the value never
falls, which for Frobenius is the power iteration on J^T J. With respect to X it is the ascent
direction for the point. So one pass serves both.

One ascent moves the point by Adam inside the token balls and turns the direction to the best
one at each step. The landscape of a deep transformer has many peaks, so a search is four
ascents: after each, the best quarter of the starts is copied over the others and disturbed, a
little less each time. At equal cost that found 1.3 to 2.7 times as much in four layers as one
long ascent, and the same in one layer.

Nothing here is proved: whatever is reached is |J(X) eta| at an explicit point.

**Starts** are kinds of token configurations in a ball. A worst case of attention is seldom a random
prompt. Weights saturate when logits are large (tokens on the sphere, along the singular vectors of
A and V), the covariance term is largest when the weights split between two far groups, and the MLP
sees most when all tokens agree. Each kind is a function of shape (count, D, tokens);
`starting_points` cycles through them.

The tokens of a start lie in the ball, and no two starts are equal.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

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


Norm: TypeAlias = Literal["token", "frobenius"]
Forward: TypeAlias = Callable[[Tensor], Tensor]

_MOMENTS: Final = (0.8, 0.95)
"""Adam's averages, shorter than for training: the steps are few and nothing is noisy."""

_ROUNDS: Final = ((0.4, 0.0), (0.4, 0.3), (0.3, 0.2), (0.15, 0.1))
"""Rate of each ascent of a search, and the disturbance before it, relative to the radius."""

_KEPT: Final = 4
"""One start of so many survives a round."""

_TURNS: Final = 4
"""Directions tried at the last point, for each token."""


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
    """J(X) eta for a batch, by forward-mode differentiation, which fused attention has not."""
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Ascent:
    """What an ascent reached, for each member of its batch."""

    values: Tensor  # |J(X) eta|, shape (B,)
    points: Tensor  # X, shape (B, D, tokens)
    directions: Tensor  # eta, of norm 1, same shape
    # The best value of each member (`ascend`) or problem (`search`) after each step, shape (steps,
    # members).
    history: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Domain:
    """Where points and directions may go."""

    # Radius of the ball of each token, or one for each member, shape (B, 1, 1).
    radius: float | Tensor
    norm: Norm  # norm of directions and of changes
    moving: Tensor  # columns of X that are searched, booleans of shape (tokens,)
    perturbed: Tensor  # columns on which eta may differ from 0, likewise


def ascend(
    forward: Forward,
    points: Tensor,
    directions: Tensor,
    *,
    domain: Domain,
    steps: int,
    rate: float,
    polish: int,
) -> Ascent:
    """Joint ascent of |J(X) eta| over the point (Adam, projected) and the direction."""
    reached = points.new_zeros(len(points))
    best_points, best_directions = points.clone(), directions.clone()
    first, second = torch.zeros_like(points), torch.zeros_like(points)
    history: list[Tensor] = []
    for step in range(steps + polish):
        if step >= steps:
            points, directions = best_points, best_directions
        values, by_point, by_direction = values_and_gradients(
            forward, points, directions, domain.norm
        )
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


def towards_outputs(
    forward: Forward, points: Tensor, *, domain: Domain, generator: torch.Generator
) -> Tensor:
    """For each point, the best direction for a random change of one column of its output.

    The column goes round, so that each is somebody's aim: turning a direction never leaves the
    column that is largest when it begins.
    """
    points = points.detach().requires_grad_(True)
    outputs = forward(points)
    wanted = torch.randn(
        outputs.shape, generator=generator, dtype=outputs.dtype, device=outputs.device
    )
    batch, _, columns = outputs.shape
    places = torch.arange(batch, device=outputs.device) % columns
    aims = torch.zeros_like(wanted)
    aims[torch.arange(batch), :, places] = wanted[torch.arange(batch), :, places]
    (pulled,) = torch.autograd.grad(
        outputs, points, aims, allow_unused=True, materialize_grads=True
    )
    even = torch.ones_like(pulled) * domain.perturbed
    fallback = best_direction(even, domain.norm, torch.zeros_like(even))
    return best_direction(pulled * domain.perturbed, domain.norm, fallback)


def turn(
    forward: Forward,
    point: Tensor,
    direction: Tensor,
    *,
    domain: Domain,
    generator: torch.Generator,
) -> Ascent:
    """Better directions at one point: the given one and many others, turned."""
    points = point.expand(1 + _TURNS * point.shape[-1], *point.shape).clone()
    others = towards_outputs(forward, points[1:], domain=domain, generator=generator)
    return ascend(
        forward,
        points,
        torch.cat([direction[None], others]),
        domain=domain,
        steps=0,
        rate=0.0,
        polish=20,
    )


def _survivors(reached: Ascent, groups: int) -> Tensor:
    """Indices that replace each group's starts by its best ones, the best first."""
    values = reached.values.reshape(groups, -1)
    starts = values.shape[1]
    order = values.argsort(dim=1, descending=True)[:, : -(-starts // _KEPT)]
    chosen = order.repeat(1, _KEPT)[:, :starts]
    offsets = torch.arange(groups, device=values.device)[:, None] * starts
    return (chosen + offsets).flatten()


def _disturbed(
    reached: Ascent, noise: float, domain: Domain, groups: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Copies of the survivors: the first of each as it is, the others disturbed."""
    chosen = _survivors(reached, groups)
    points = reached.points[chosen]
    drawn = torch.randn(
        points.shape, generator=generator, dtype=points.dtype, device=generator.device
    )
    starts = len(points) // groups
    copy = torch.arange(len(points), device=points.device) % starts >= -(-starts // _KEPT)
    shift = drawn * copy[:, None, None] * (noise / points.shape[-2] ** 0.5) * domain.radius
    moved = project(points + shift, domain.radius)
    return torch.where(domain.moving, moved, points), reached.directions[chosen]


def search(
    forward: Forward,
    points: Tensor,
    directions: Tensor,
    *,
    domain: Domain,
    steps: int,
    generator: torch.Generator,
    groups: int = 1,
) -> Ascent:
    """Four ascents, each from the disturbed best of the one before."""
    share = -(-steps // len(_ROUNDS))
    first, *others = _ROUNDS
    reached = ascend(
        forward, points, directions, domain=domain, steps=share, rate=first[0], polish=2
    )
    history = [_best(reached, groups)]
    for number, (rate, noise) in enumerate(others, 1):
        points, directions = _disturbed(reached, noise, domain, groups, generator)
        reached = ascend(
            forward,
            points,
            directions,
            domain=domain,
            steps=share,
            rate=rate,
            polish=8 if number == len(others) else 2,
        )
        history.append(_best(reached, groups))
    return replace(reached, history=torch.cat(history).cummax(dim=0).values)


def _best(reached: Ascent, groups: int) -> Tensor:
    """The history of each group's best start."""
    grouped: Tensor = reached.history.unflatten(1, (groups, -1))
    return grouped.amax(dim=2)
