"""Products with frozen weights, and the feed-forward layers made of them.

The gradient in the input of x W^T + b is dy W: neither x nor y is kept, and no gradient in a
weight is ever formed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from promptlimits.nets.decoder.pointwise import Activation
from promptlimits.nets.decoder.tape import Tape


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear:
    """x -> x W^T + b.

    Attributes:
        weight: W, of shape (out, in).
        bias: b, of shape (out,), or None.
    """

    weight: Tensor
    bias: Tensor | None = None

    @cached_property
    def turned(self) -> Tensor:
        """W^T, a view."""
        return self.weight.t()

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """(N, out) from (N, in), added to `plus`, which is overwritten."""
        if plus is not None:
            found = plus.addmm_(x, self.turned)
            return found if self.bias is None else found.add_(self.bias)
        if self.bias is None:
            return torch.mm(x, self.turned)
        return torch.addmm(self.bias, x, self.turned)

    def write(self, x: Tensor, into: Tensor) -> Tensor:
        """(N, out) from (N, in), in memory of the caller's."""
        if self.bias is None:
            return torch.mm(x, self.turned, out=into)
        # Not added afterwards: in 16 bits that would round twice, where `forward` rounds once.
        return torch.addmm(self.bias, x, self.turned, out=into)

    def backward(self, gradient: Tensor, plus: Tensor | None = None) -> Tensor:
        """Gradient in x, added to `plus`, which is overwritten."""
        if plus is None:
            return torch.mm(gradient, self.weight)
        return plus.addmm_(gradient, self.weight)


@dataclass(frozen=True, kw_only=True, eq=False)
class FeedForward:
    """A feed-forward layer, gated (SwiGLU, GeGLU) or plain.

    Attributes:
        up: From the width to the hidden width.
        down: Back.
        gate: The gate's product, None for a plain layer.
        activation: Of the gate, or of `up` where there is none.
    """

    up: Linear
    down: Linear
    gate: Linear | None
    activation: Activation

    def forward(self, x: Tensor, tape: Tape, plus: Tensor | None) -> Tensor:
        """(N, D), added to `plus`, which is overwritten."""
        up = self.up.forward(x)
        if self.gate is None:
            tape.push(up)
            return self.down.forward(self.activation.forward(up), plus)
        gate = self.gate.forward(x)
        if not tape.keeps:
            return self.down.forward(up.mul_(self.activation.forward(gate)), plus)
        product, active, slope = self.activation.gate(gate, up)
        tape.push(active, slope)
        return self.down.forward(product, plus)

    def backward(self, gradient: Tensor, tape: Tape) -> Tensor:
        """Gradient in x from that in the output, without the one of `plus`."""
        hidden = self.down.backward(gradient)
        if self.gate is None:
            (up,) = tape.pop(1)
            return self.up.backward(self.activation.backward(hidden, up))
        active, slope = tape.pop(2)
        found = self.up.backward(active.mul_(hidden))
        return self.gate.backward(slope.mul_(hidden), found)
