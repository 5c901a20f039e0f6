"""Products with frozen weights, and the feed-forward layers and the head made of them.

The gradient in the input of x W^T + b is dy W: neither x nor y is kept, and no gradient in a
weight is ever formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from promptlimits.nets.decoder.pointwise import Activation, SavedTensors
from promptlimits.nets.protocol import Memory


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear:
    """x -> x W^T + b."""

    weight: Tensor  # W, (out, in)
    bias: Tensor | None = None  # b, (out,)

    @cached_property
    def turned(self) -> Tensor:
        """W^T, a view."""
        return self.weight.t()

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """(N, out) from (N, in), added to `plus`, which is overwritten."""
        if plus is not None:
            found = plus.addmm_(x, self.turned)
            return found if self.bias is None else found.add_(self.bias)
        return self.write(x, None)

    def write(self, x: Tensor, into: Tensor | None) -> Tensor:
        """(N, out) from (N, in), in memory of the caller's or of its own."""
        if self.bias is None:
            return torch.mm(x, self.turned, out=into)
        # Not added afterwards: in 16 bits that would round twice.
        return torch.addmm(self.bias, x, self.turned, out=into)

    def backward(self, gradient: Tensor, plus: Tensor | None = None) -> Tensor:
        """Gradient in x, added to `plus`, which is overwritten."""
        if plus is None:
            return torch.mm(gradient, self.weight)
        return plus.addmm_(gradient, self.weight)


@dataclass(frozen=True, kw_only=True, eq=False)
class FeedForward:
    """A feed-forward layer, gated (SwiGLU, GeGLU) or plain, where there is no gate."""

    up: Linear
    down: Linear
    activation: Activation  # of the gate, or of `up` where there is none
    gate: Linear | None = None

    def forward(self, x: Tensor, saved: SavedTensors, plus: Tensor | None) -> Tensor:
        """(N, D), added to `plus`, which is overwritten."""
        up = self.up.forward(x)
        if self.gate is None:
            saved.save((up,))
            return self.down.forward(self.activation.forward(up), plus)
        gate = self.gate.forward(x)
        if not saved.keeps:
            return self.down.forward(up.mul_(self.activation.forward(gate)), plus)
        product, active, slope = self.activation.gate(gate, up)
        saved.save((active, slope))
        return self.down.forward(product, plus)

    def backward(self, gradient: Tensor, saved: SavedTensors) -> Tensor:
        """Gradient in x from that in the output, without the one of `plus`."""
        hidden = self.down.backward(gradient)
        if self.gate is None:
            (up,) = saved.take(1)
            return self.up.backward(self.activation.backward(hidden, up))
        active, slope = saved.take(2)
        found = self.up.backward(active.mul_(hidden))
        return self.gate.backward(slope.mul_(hidden), found)


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearHead:
    """The product that turns a state into logits: a `promptlimits.nets.protocol.ReadHead`."""

    linear: Linear

    @property
    def vocabulary(self) -> int:
        """V."""
        return int(self.linear.weight.shape[0])

    def logits(self, states: Tensor, memory: Memory | None = None) -> Tensor:
        """(R, V) from states (R, D); differentiable where they get memory of their own."""
        if memory is None:
            return self.linear.forward(states)
        return self.linear.write(states, memory(states.shape[0], self.vocabulary, states))

    def pull_back(self, gradient: Tensor) -> Tensor:
        """Gradient (R, D) from that in the logits (R, V)."""
        return self.linear.backward(gradient)

    def pull_back_tokens(self, tokens: Tensor, factor: float, into: Tensor) -> Tensor:
        """Add multiples of the weights' rows `tokens` (R, 1) to `into` (R, D)."""
        return into.add_(self.linear.weight.index_select(0, tokens.squeeze(1)), alpha=factor)

    def blocks(self, most: int) -> Sequence[LinearHead]:
        """Heads of at most `most` tokens each, about equally many, on views of the weights."""
        count = -(-self.vocabulary // most)
        if count == 1:
            return [self]
        weight, bias = self.linear.weight, self.linear.bias
        biases = [None] * count if bias is None else bias.tensor_split(count)
        return [
            LinearHead(linear=Linear(weight=rows, bias=shift))
            for rows, shift in zip(weight.tensor_split(count), biases, strict=True)
        ]
