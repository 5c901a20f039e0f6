"""Many small transformers of the papers at once, written from Definitions 2.1 to 2.3 and 2.14.

Weights carry a leading axis (problems); a batch of starts for each problem goes through in one
pass. It is a twin: it shares nothing with the package but the dataclasses of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from promptlimits.nets.paper.weights import HeadWeights, LayerWeights, TransformerWeights


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerStack:
    """Layers of several problems: shapes (problems, heads, d, d) and (problems, ...)."""

    scores: Tensor  # A = W_k^T W_q
    values: Tensor  # W_o W_v
    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class TransformerStack:
    """Transformers of one shape; `masked` has one boolean for each."""

    layers: tuple[LayerStack, ...]
    masked: Tensor

    @classmethod
    def of(cls, problems):
        layers = [
            LayerStack(
                scores=_tensor([[h.key.T @ h.query for h in one.heads] for one in layer]),
                values=_tensor([[h.output @ h.value for h in one.heads] for one in layer]),
                **{
                    name: _tensor([getattr(one, name) for one in layer])
                    for name in ("w1", "b1", "w2", "b2")
                },
            )
            for layer in zip(*(problem.layers for problem in problems), strict=True)
        ]
        return cls(
            layers=tuple(layers), masked=torch.tensor([problem.masked for problem in problems])
        )

    def __call__(self, points):
        """Outputs for (problems * starts, d, n), the starts of a problem side by side."""
        problems = len(self.masked)
        batch, dim, tokens = points.shape
        x = points.reshape(problems, batch // problems, dim, tokens).movedim(-1, -2)
        later = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
        hidden = later & self.masked[:, None, None, None, None]
        for layer in self.layers:
            x = _layer(layer, x, hidden)
        return x.movedim(-1, -2).reshape(batch, dim, tokens)


def _tensor(rows):
    return torch.from_numpy(np.array(rows, dtype=np.float64))


def _each(matrix, x):
    """matrix @ token for each token: (P, f, d) and (P, S, n, d) to (P, S, n, f)."""
    problems, starts, tokens, dim = x.shape
    flat = x.reshape(problems, starts * tokens, dim) @ matrix.mT
    return flat.reshape(problems, starts, tokens, matrix.shape[1])


def _layer(layer, x, hidden):
    """MLP(x + sum_h W_o W_v X softmax(X^T A x))."""
    problems, starts, tokens, dim = x.shape
    heads = layer.scores.shape[1]
    shape = (problems, starts, tokens, heads, dim)
    queries = _each(layer.scores.flatten(1, 2), x).reshape(shape).movedim(3, 2)
    values = _each(layer.values.flatten(1, 2), x).reshape(shape).movedim(3, 2)
    logits = queries @ x[:, :, None].mT
    weights = logits.masked_fill(hidden, -torch.inf).softmax(dim=-1)
    y = x + (weights @ values).sum(dim=2)
    inner = _each(layer.w1, y) + layer.b1[:, None, None]
    return y + _each(layer.w2, inner.relu()) + layer.b2[:, None, None]


def trained(problems, *, tokens, radii, steps, generator):
    """The problems after a short training each: the last output token repeats the first token.

    Inputs are random tokens of each problem's ball; all problems train side by side.
    """
    leaves = {
        name: torch.stack([torch.tensor(dict(p.arrays())[name]) for p in problems])
        for name, _ in problems[0].arrays()
    }
    for leaf in leaves.values():
        leaf.requires_grad_(True)
    optimiser = torch.optim.Adam(leaves.values(), lr=0.02)
    masked = torch.tensor([problem.masked for problem in problems])
    count, dim = len(problems), problems[0].dim
    for _ in range(steps):
        x = torch.randn(count * 16, dim, tokens, generator=generator, dtype=torch.float64)
        x = x / x.norm(dim=1, keepdim=True) * radii.repeat_interleave(16)[:, None, None]
        outputs = TransformerStack(layers=_stacks(leaves, problems[0]), masked=masked)(x)
        loss = ((outputs[:, :, -1] - x[:, :, 0]) ** 2).reshape(count, -1).mean(dim=1)
        optimiser.zero_grad()
        (loss / radii**2).sum().backward()
        optimiser.step()
    return [_back(leaves, index, problem) for index, problem in enumerate(problems)]


def _stacks(leaves, like):
    layers = []
    for place, layer in enumerate(like.layers):
        front = f"layers.{place}."
        heads = [f"{front}heads.{number}." for number in range(len(layer.heads))]
        layers.append(
            LayerStack(
                scores=torch.stack([leaves[h + "key"].mT @ leaves[h + "query"] for h in heads], 1),
                values=torch.stack([leaves[h + "output"] @ leaves[h + "value"] for h in heads], 1),
                **{name: leaves[front + name] for name in ("w1", "b1", "w2", "b2")},
            )
        )
    return tuple(layers)


def _back(leaves, index, like):
    def one(name):
        return leaves[name][index].detach().numpy()

    layers = tuple(
        LayerWeights(
            heads=tuple(
                HeadWeights(
                    **{
                        name: one(f"layers.{place}.heads.{number}.{name}")
                        for name in ("query", "key", "value", "output")
                    }
                )
                for number in range(len(layer.heads))
            ),
            **{name: one(f"layers.{place}.{name}") for name in ("w1", "b1", "w2", "b2")},
        )
        for place, layer in enumerate(like.layers)
    )
    return TransformerWeights(layers=layers, masked=like.masked)
