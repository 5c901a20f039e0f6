"""Search for the free numbers of the ellipsoid bound: gradients in floats, nothing proved.

Every parameter vector stands for free numbers that satisfy the conditions of
`lipschitz.ellipsoid.layer`: weights by a softmax, multipliers as shares of the largest that
keeps X positive. Adam minimises log lambda_max of the last ellipsoid through all layers at once, so
early layers pay attention to what later ones magnify.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from promptlimits.base.errors import RunFailed
from promptlimits.lipschitz.ellipsoid.layer import LayerChoice, StepChoice
from promptlimits.nets.paper.weights import Array, LayerWeights, TransformerWeights

Effort: TypeAlias = Literal["quick", "full"]

STEPS: Final[dict[str, int]] = {"quick": 80, "full": 400}
_LEARNING_RATE: Final = 0.1
_JITTER: Final = 1e-11
_SHY: Final = 1 - 1e-6  # keeps sums of weights, and shares of what is allowed, under 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What a search ends with."""

    choices: tuple[LayerChoice, ...]  # free numbers, one set a layer
    shape: Array  # E; the identity unless given or searched for
    estimate_log: float  # natural logarithm of the bound, in floats


def search_choices(
    weights: TransformerWeights,
    *,
    radius: float,
    prompt_only: bool,
    effort: Effort = "full",
    shape: Array | Literal["unit", "search"] = "unit",
) -> Found:
    """Minimise the bound over its free numbers."""
    run = _Run(weights, radius, prompt_only, shape)
    optimizer = torch.optim.Adam(run.parameters(), lr=_LEARNING_RATE)
    best, kept, steps = math.inf, None, STEPS[effort]
    with torch.enable_grad():
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = _LEARNING_RATE * (1 - 0.95 * step / steps)
            optimizer.zero_grad()
            try:
                log_bound, choices = run.bound()
            except RuntimeError:  # torch.linalg.LinAlgError is one
                break
            value = float(log_bound.detach())
            if not math.isfinite(value):
                break
            if value < best:
                best, kept = value, (choices, run.shape_array())
            log_bound.backward()
            optimizer.step()
    if kept is None:
        raise RunFailed(
            "the ellipsoids overflow double precision",
            remedy="scale the weights or the radius down; a product of norms may still hold",
        )
    frozen = tuple(_frozen_layer(layer) for layer in kept[0])
    return Found(choices=frozen, shape=kept[1], estimate_log=best)


class _Run:
    """The recursion in torch, with its parameters; one instance a search."""

    def __init__(
        self,
        weights: TransformerWeights,
        radius: float,
        prompt_only: bool,
        shape: Array | Literal["unit", "search"],
    ) -> None:
        self.dim, self.radius, self.prompt_only = weights.dim, radius, prompt_only
        self.layers = [_tensors(layer) for layer in weights.layers]
        self.shape_parameters = (
            torch.zeros((self.dim, self.dim), dtype=torch.float64, requires_grad=True)
            if isinstance(shape, str) and shape == "search"
            else None
        )
        self.given = np.eye(self.dim) if isinstance(shape, str) else np.asarray(shape)
        names = ("tokens", "change", "query") if prompt_only else ("tokens", "change")
        self.free = [
            {name: _parameters(len(maps), w1.shape[0]) for name in names}
            for maps, w1, *_ in self.layers
        ]

    def parameters(self) -> list[Tensor]:
        """Everything that is optimised."""
        mine = [
            tensor for layer in self.free for step in layer.values() for tensor in step.values()
        ]
        return mine if self.shape_parameters is None else [*mine, self.shape_parameters]

    def shape(self) -> Tensor:
        """E; one that is searched for is lower triangular with determinant 1."""
        if self.shape_parameters is None:
            return torch.tensor(self.given)
        diagonal = torch.diagonal(self.shape_parameters)
        return torch.tril(self.shape_parameters, -1) + torch.diag(
            torch.exp(diagonal - diagonal.mean())
        )

    def shape_array(self) -> Array:
        """E as numpy has it."""
        return np.array(self.shape().detach().numpy(), dtype=np.float64)

    def bound(self) -> tuple[Tensor, list[dict[str, dict[str, Any]]]]:
        """Natural logarithm of the bound at the parameters, and the free numbers they mean."""
        shape = self.shape()
        tokens = self.radius * self.radius * torch.eye(self.dim, dtype=torch.float64)
        change, query = shape @ shape.T, torch.zeros_like(tokens)
        center = torch.zeros(self.dim, dtype=torch.float64)
        choices = []
        for layer, free in zip(self.layers, self.free, strict=True):
            maps, w1, b1, w2, b2 = layer
            chosen: dict[str, dict[str, Any]] = {name: {} for name in free}
            passed = _lengths(maps, tokens, change, center)
            if self.prompt_only:
                query = _attention(
                    maps, tokens, change, query, passed, free["query"], chosen["query"]
                )
                query = _mlp(w1, w2, query, free["query"], chosen["query"])
            change, tokens = (
                _attention(maps, tokens, change, change, passed, free["change"], chosen["change"]),
                _mean(maps, tokens, free["tokens"], chosen["tokens"]),
            )
            change = _mlp(w1, w2, change, free["change"], chosen["change"])
            tokens = _mlp(w1, w2, tokens, free["tokens"], chosen["tokens"])
            center = center + sum(value @ center for _, value in maps)
            center = center + w2 @ torch.relu(w1 @ center + b1) + b2
            choices.append(chosen)
        return torch.log(_largest(query if self.prompt_only else change)) / 2, choices


def _tensors(layer: LayerWeights) -> tuple[Any, ...]:
    with np.errstate(over="ignore", invalid="ignore"):  # the bound is then not finite
        maps = [
            (torch.tensor(head.key.T @ head.query), torch.tensor(head.output @ head.value))
            for head in layer.heads
        ]
    return (maps, *(torch.tensor(array) for array in (layer.w1, layer.b1, layer.w2, layer.b2)))


def _parameters(heads: int, hidden: int) -> dict[str, Tensor]:
    sizes = {"weights": heads + 1, "turns": heads + 1, "reaches": hidden, "share": 1}
    return {
        name: torch.zeros(size, dtype=torch.float64, requires_grad=True)
        for name, size in sizes.items()
    }


def _largest(matrix: Tensor) -> Tensor:
    largest: Tensor = torch.linalg.eigvalsh((matrix + matrix.T) / 2)[-1]
    return largest


def _factor(matrix: Tensor) -> Tensor:
    jitter = _JITTER * torch.trace(matrix).detach() + 1e-300
    size = matrix.shape[0]
    factor: Tensor = torch.linalg.cholesky(
        (matrix + matrix.T) / 2 + jitter * torch.eye(size, dtype=matrix.dtype)
    )
    return factor


def _lengths(maps: Any, tokens: Tensor, change: Tensor, center: Tensor) -> list[Tensor]:
    """gamma_h of each head."""
    left, right = _factor(change), _factor(tokens)
    found = []
    for score, _ in maps:
        pulled = left.T @ score
        spread = pulled @ right
        length = (_largest(spread @ spread.T) + 1e-300).sqrt()
        if bool(center.any()):
            length = length + (pulled @ center).norm()
        found.append(length)
    return found


def _attention(
    maps: Any, tokens: Tensor, change: Tensor, own: Tensor, lengths: Any, free: Any, chosen: Any
) -> Tensor:
    split = torch.softmax(free["weights"], 0) * _SHY
    shares = torch.softmax(free["turns"], 0) * _SHY
    still = not bool(own.any())
    spread, factor = _factor(tokens), own if still else _factor(own)
    middle = split[0] * torch.eye(own.shape[0], dtype=own.dtype)
    moved, rest, turns = factor, torch.zeros_like(own), []
    for place, (score, value) in enumerate(maps):
        weight = split[place + 1]
        wide, seen = value @ spread, spread.T @ score @ factor
        gram = seen.T @ seen
        # A head that sees nothing may have any multiplier: it is kept from infinity.
        top = torch.ones((), dtype=own.dtype) * 1e-30 if still else _largest(gram)
        turn = 4 * split[0] * shares[place] / (top + 1e-30)
        turns.append(turn)
        moved = moved + wide @ seen / 2
        middle = middle - turn / 4 * gram
        rest = rest + wide @ wide.T * (1 / turn + lengths[place] ** 2 / weight)
        rest = rest + value @ change @ value.T / weight
    chosen.update(own=split[0], heads=split[1:], turns=torch.stack(turns))
    moved_on: Tensor = moved @ torch.linalg.solve(middle, moved.T) + rest
    return moved_on


def _mean(maps: Any, tokens: Tensor, free: Any, chosen: Any) -> Tensor:
    split = torch.softmax(free["weights"], 0) * _SHY
    chosen.update(own=split[0], heads=split[1:], turns=())
    total = tokens / split[0]
    for place, (_, value) in enumerate(maps):
        total = total + value @ tokens @ value.T / split[place + 1]
    return total


def _mlp(w1: Tensor, w2: Tensor, known: Tensor, free: Any, chosen: Any) -> Tensor:
    if w1.shape[0] == 0:
        chosen.update(reaches=())
        return known
    factor = _factor(known)
    seen = w1 @ factor
    raw = torch.exp(free["reaches"])
    gram = seen.T @ (raw[:, None] * seen) / 4
    stiffness = raw * torch.sigmoid(free["share"]) * _SHY / (_largest(gram) + 1e-30)
    chosen.update(reaches=stiffness**-0.5)
    middle = torch.eye(known.shape[0], dtype=known.dtype) - seen.T @ (stiffness[:, None] * seen) / 4
    moved = factor + w2 @ seen / 2
    moved_on: Tensor = moved @ torch.linalg.solve(middle, moved.T) + (w2 / stiffness) @ w2.T
    return moved_on


def _frozen_layer(chosen: dict[str, dict[str, Any]]) -> LayerChoice:
    steps = {name: _frozen(step) for name, step in chosen.items()}
    return LayerChoice(tokens=steps["tokens"], change=steps["change"], query=steps.get("query"))


def _frozen(step: dict[str, Any]) -> StepChoice:
    def floats(values: Any) -> tuple[float, ...]:
        return tuple(float(value) for value in (values.detach() if len(values) else ()))

    return StepChoice(
        own=float(step["own"].detach()),
        heads=floats(step["heads"]),
        turns=floats(step["turns"]),
        reaches=floats(step["reaches"]),
    )
