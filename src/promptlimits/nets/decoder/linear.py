"""Products with frozen weights, normalisations and activations, and what is made of them.

The gradient in the input of x W^T + b is dy W: neither x nor y is kept, and no gradient in a
weight is ever formed. Norms and activations take a few passes over memory each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import gelu, silu

from promptlimits.nets.protocol import Memory

ActivationName: TypeAlias = Literal["silu", "gelu", "gelu_tanh", "relu"]


class SavedTensors:
    """What the reverse pass needs of the forward pass, last in, first out.

    Every operation saves what its derivative needs and, going back, takes it from the top; so
    memory shrinks while the reverse pass runs. `keeps` is False where there will be none: then
    nothing is saved.
    """

    def __init__(self, *, keeps: bool = True) -> None:
        self.keeps = keeps
        self._stack: list[Tensor] = []

    @property
    def kept_bytes(self) -> int:
        """Memory of all that is saved, storage shared by several tensors counted once."""
        storages = {tensor.untyped_storage().data_ptr(): tensor for tensor in self._stack}
        return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())

    def save(self, tensors: Iterable[Tensor]) -> None:
        """Put tensors on top."""
        if self.keeps:
            self._stack.extend(tensors)

    def take(self, count: int) -> list[Tensor]:
        """The last `count` tensors, in the order in which they were saved."""
        first = len(self._stack) - count
        taken = self._stack[first:]
        del self._stack[first:]
        return taken


@dataclass(frozen=True, kw_only=True, eq=False)
class Norm:
    """RMSNorm (no bias) or LayerNorm over the last axis.

    Sums run in float32 at least, as in transformers; unlike there, float64 stays float64.
    """

    weight: Tensor | None  # (D,) gain; None for an RMSNorm whose gain the products behind it carry
    bias: Tensor | None  # (D,) shift of a LayerNorm, None for RMSNorm
    epsilon: float  # added to the mean square

    @property
    def keeps_input(self) -> bool:
        """Whether the way back needs what was normalised, so that nobody may overwrite it."""
        return self.bias is not None

    def forward(self, x: Tensor, saved: SavedTensors) -> Tensor:
        """(N, D) normalised."""
        if self.bias is not None:
            return self._layer_forward(x, saved)
        wide = x if x.dtype.itemsize >= 4 else x.float()
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        epsilon = length.new_full((), self.epsilon)
        # One call for the mean square: on small models each costs what a row of work does.
        scale = torch.addcmul(epsilon, length, length, value=1 / x.shape[-1]).rsqrt_()
        unit = wide * scale
        saved.save((unit, scale))
        out: Tensor = unit if self.weight is None else unit * self.weight
        return out.to(x.dtype)

    def backward(self, gradient: Tensor, saved: SavedTensors, plus: Tensor | None = None) -> Tensor:
        """Gradient in x from that in the output, added to `plus`, which may be overwritten."""
        if self.bias is not None:
            return self._layer_backward(gradient, saved, plus)
        unit, scale = saved.take(2)
        weighted = gradient.to(unit.dtype)
        if self.weight is not None:
            weighted = weighted * self.weight
        along = (weighted * unit).sum(dim=-1, keepdim=True).mul_(scale)
        share = -1 / unit.shape[-1]
        if plus is None or plus.dtype != weighted.dtype:
            found = (weighted * scale).addcmul_(unit, along, value=share).to(gradient.dtype)
            return found if plus is None else plus.add_(found)
        return plus.addcmul_(weighted, scale).addcmul_(unit, along, value=share)

    def _layer_forward(self, x: Tensor, saved: SavedTensors) -> Tensor:
        out, mean, scale = torch.native_layer_norm(
            x, [x.shape[-1]], self.weight, self.bias, self.epsilon
        )
        saved.save((x, mean, scale))
        return out

    def _layer_backward(self, gradient: Tensor, saved: SavedTensors, plus: Tensor | None) -> Tensor:
        x, mean, scale = saved.take(3)
        found, _, _ = torch.ops.aten.native_layer_norm_backward(
            gradient, x, [x.shape[-1]], mean, scale, self.weight, self.bias, [True, False, False]
        )
        back: Tensor = found if plus is None else found.add_(plus)
        return back


@dataclass(frozen=True)
class Activation:
    """An activation function."""

    name: ActivationName

    def forward(self, x: Tensor) -> Tensor:
        """Its value."""
        if self.name == "silu":
            return silu(x)
        if self.name == "relu":
            return torch.relu(x)
        return gelu(x, approximate=self._approximation)

    def gate(self, x: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """f(x) up, with the two factors that are all its way back needs: f(x) and f'(x) up."""
        if self.name != "silu" or x.dtype.itemsize < torch.float32.itemsize:
            value = self.forward(x)
            return up * value, value, self.backward(up, x)
        # With s = sigmoid(x) and f = x s, f' = s + f (1 - s): so f' up = s up + (1 - s) f up,
        # one exponential and one pass, where the derivative alone would take more of both.
        sigmoid = torch.sigmoid(x)
        value = x.mul_(sigmoid)
        product = up * value
        return product, value, torch.lerp(product, up, sigmoid, out=up)

    def backward(self, gradient: Tensor, x: Tensor) -> Tensor:
        """Gradient in x from that in the value."""
        found: Tensor
        if self.name == "silu":
            found = torch.ops.aten.silu_backward(gradient, x)
        elif self.name == "relu":
            found = gradient * (x > 0)
        else:
            found = torch.ops.aten.gelu_backward(gradient, x, approximate=self._approximation)
        return found

    @property
    def _approximation(self) -> str:
        return "tanh" if self.name == "gelu_tanh" else "none"


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear:
    """x -> x W^T + b.

    Rows of another dtype than the weights' are rounded to it on their way in, and what comes out
    is of the rows' own.
    """

    weight: Tensor  # W, (out, in)
    bias: Tensor | None = None  # b, (out,)

    @cached_property
    def turned(self) -> Tensor:
        """W^T, a view."""
        return self.weight.t()

    def narrowed(self, dtype: torch.dtype) -> Linear:
        """A copy of `dtype`."""
        bias = None if self.bias is None else self.bias.to(dtype)
        return Linear(weight=self.weight.to(dtype), bias=bias)

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """(N, out) from (N, in), added to `plus`, which is overwritten."""
        if plus is None:
            return self.write(x, None)
        if plus.dtype != self.weight.dtype:
            return plus.add_(self.write(x.to(self.weight.dtype), None))
        found = plus.addmm_(x, self.turned)
        return found if self.bias is None else found.add_(self.bias)

    def write(self, x: Tensor, into: Tensor | None) -> Tensor:
        """(N, out) from (N, in), in memory of the caller's or of its own."""
        if x.dtype != self.weight.dtype:
            found = self.write(x.to(self.weight.dtype), None)
            return found.to(x.dtype) if into is None else into.copy_(found)
        if self.bias is None:
            return torch.mm(x, self.turned, out=into)
        # Not added afterwards: in 16 bits that would round twice.
        return torch.addmm(self.bias, x, self.turned, out=into)

    def backward(self, gradient: Tensor, plus: Tensor | None = None) -> Tensor:
        """Gradient in x, added to `plus`, which is overwritten."""
        if gradient.dtype != self.weight.dtype:
            found = torch.mm(gradient.to(self.weight.dtype), self.weight)
            return found.to(gradient.dtype) if plus is None else plus.add_(found)
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

    def narrowed(self, dtype: torch.dtype) -> FeedForward:
        """A copy whose products, and what is between them, are of `dtype`."""
        gate = None if self.gate is None else self.gate.narrowed(dtype)
        return replace(self, up=self.up.narrowed(dtype), down=self.down.narrowed(dtype), gate=gate)

    def forward(self, x: Tensor, saved: SavedTensors, plus: Tensor | None) -> Tensor:
        """(N, D), added to `plus`, which is overwritten."""
        hidden = self._hidden(x.to(self.up.weight.dtype), saved)
        return self.down.forward(hidden, plus).to(x.dtype)

    def _hidden(self, x: Tensor, saved: SavedTensors) -> Tensor:
        """What `down` is given."""
        up = self.up.forward(x)
        if self.gate is None:
            saved.save((up,))
            return self.activation.forward(up)
        gate = self.gate.forward(x)
        if not saved.keeps:
            return up.mul_(self.activation.forward(gate))
        product, active, slope = self.activation.gate(gate, up)
        saved.save((active, slope))
        return product

    def backward(self, gradient: Tensor, saved: SavedTensors) -> Tensor:
        """Gradient in x from that in the output, without the one of `plus`."""
        hidden = self.down.backward(gradient.to(self.down.weight.dtype))
        if self.gate is None:
            (up,) = saved.take(1)
            return self.up.backward(self.activation.backward(hidden, up)).to(gradient.dtype)
        active, slope = saved.take(2)
        found = self.up.backward(active.mul_(hidden))
        return self.gate.backward(slope.mul_(hidden), found).to(gradient.dtype)


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
