"""Attention, MLP and normalisation of the papers, on columns as tokens.

Definitions 2.1, 2.2 and 2.14 of meyer2025, with "W_v x" read as "W_v X" (E16). One function
computes every attention here: a bias on the logits makes it causal, and log weights make it
that of a weighted measure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

NormKind: TypeAlias = Literal["layer", "rms"]
NormPlace: TypeAlias = Literal["pre", "post"]
Activation: TypeAlias = Literal["relu", "gelu"]
"""Of the MLP: that of the papers, or x Phi(x) with the normal distribution function Phi."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PaperHead:
    """One attention head; 1/sqrt(s) is absorbed in the key, as in the papers."""

    query: Tensor  # W_q, of shape (s, d)
    key: Tensor  # W_k, of shape (s, d)
    value: Tensor  # W_v, of shape (s', d)
    output: Tensor  # W_o, of shape (d, s')


@dataclass(frozen=True, kw_only=True, eq=False)
class PaperNorm:
    """A normalisation of each token."""

    kind: NormKind  # "layer" (centred, with a bias) or "rms" (neither)
    weight: Tensor  # gain of each coordinate, of shape (d,)
    bias: Tensor | None  # shift of each coordinate, of shape (d,); None for "rms"
    epsilon: float  # added to the variance, or to the mean square, under the root

    def __call__(self, tokens: Tensor) -> Tensor:
        """The normalised tokens, of shape (..., d, n) as they came."""
        if self.kind == "layer":
            tokens = tokens - tokens.mean(dim=-2, keepdim=True)
        mean_square = tokens.square().mean(dim=-2, keepdim=True)
        scaled = self.weight[:, None] * tokens * torch.rsqrt(mean_square + self.epsilon)
        return scaled if self.bias is None else scaled + self.bias[:, None]


@dataclass(frozen=True, kw_only=True, eq=False)
class PaperLayer:
    """One transformer layer, X -> MLP(Att(X, X) + X)."""

    heads: tuple[PaperHead, ...]  # the attention heads; their sum is added to the token
    # First matrix of the MLP, of shape (f, d); no rows means that it is the identity plus `b2`.
    w1: Tensor
    b1: Tensor  # its bias, of shape (f,)
    w2: Tensor  # second matrix, of shape (d, f)
    b2: Tensor  # its bias, of shape (d,)
    # Normalisation of the attention block, if the model has one.
    attention_norm: PaperNorm | None = None
    mlp_norm: PaperNorm | None = None  # normalisation of the MLP block
    activation: Activation = "relu"

    @classmethod
    def without_mlp(cls, *heads: PaperHead) -> PaperLayer:
        """A layer of attention alone, X -> Att(X, X) + X."""
        zeros = torch.zeros_like(heads[0].output[:, :1])
        return cls(heads=heads, w1=zeros.mT[:0], b1=zeros[:0, 0], w2=zeros[:, :0], b2=zeros[:, 0])


def changed(part: Any, change: Callable[[str, Tensor], Tensor], name: str = "") -> Any:
    """A transformer, layer, head or norm with every tensor replaced by `change(its name, it)`."""

    def inner(key: object, value: Any) -> Any:
        return changed(value, change, f"{name}.{key}" if name else str(key))

    if isinstance(part, Tensor):
        return change(name, part)
    if isinstance(part, tuple):
        return tuple(inner(place, value) for place, value in enumerate(part))
    if is_dataclass(part) and not isinstance(part, type):
        values = {field.name: getattr(part, field.name) for field in fields(part)}
        return replace(part, **{key: inner(key, value) for key, value in values.items()})
    return part


def named_tensors(part: Any) -> dict[str, Tensor]:
    """Every tensor of a transformer, layer, head or norm, by its name in files and errors."""
    found: dict[str, Tensor] = {}
    changed(part, found.setdefault)
    return found


def attention(
    heads: tuple[PaperHead, ...], tokens: Tensor, context: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Att(x, X) for every column x of `tokens` within the context X (Definition 2.1)."""
    total = torch.zeros_like(tokens)
    for head in heads:
        logits = (head.query @ tokens).transpose(-1, -2) @ (head.key @ context)
        shares = torch.softmax(logits if bias is None else logits + bias, dim=-1)
        mixed = (head.value @ context) @ shares.transpose(-1, -2)
        total = total + head.output @ mixed
    return total


def activated(activation: Activation, inner: Tensor) -> Tensor:
    """The activation of each number."""
    return torch.relu(inner) if activation == "relu" else torch.nn.functional.gelu(inner)


def activation_slope(activation: Activation, inner: Tensor) -> Tensor:
    """Its derivative: a step, or Phi(x) + x phi(x)."""
    if activation == "relu":
        return (inner > 0).to(inner.dtype)
    density = torch.exp(-inner.square() / 2) / math.sqrt(2 * math.pi)
    slope: Tensor = torch.special.ndtr(inner) + inner * density
    return slope


def mlp(layer: PaperLayer, tokens: Tensor, inputs: Tensor | None = None) -> Tensor:
    """The MLP with its residual: x + W_2 ReLU(W_1 x + b_1) + b_2 (Definition 2.2)."""
    seen = tokens if inputs is None else inputs
    hidden = activated(layer.activation, layer.w1 @ seen + layer.b1[:, None])
    return tokens + layer.w2 @ hidden + layer.b2[:, None]


def apply_layer(
    layer: PaperLayer,
    tokens: Tensor,
    place: NormPlace | None,
    attend: Callable[[Tensor], Tensor],
) -> Tensor:
    """One layer around any attention; the residual of the attention is inside the MLP (E16)."""
    before = place == "pre"
    after = place == "post"
    tokens = tokens + attend(_normed(layer.attention_norm, tokens, before))
    tokens = _normed(layer.attention_norm, tokens, after)
    tokens = mlp(layer, tokens, _normed(layer.mlp_norm, tokens, before))
    return _normed(layer.mlp_norm, tokens, after)


def self_layer(
    layer: PaperLayer, tokens: Tensor, place: NormPlace | None, bias: Tensor | None
) -> Tensor:
    """One layer whose tokens attend to each other, under a bias on the logits."""
    return apply_layer(layer, tokens, place, lambda seen: attention(layer.heads, seen, seen, bias))


def causal_bias(length: int, like: Tensor) -> Tensor:
    """Bias of Definition 2.14: token i attends to tokens 1 to i."""
    full = torch.full((length, length), float("-inf"), dtype=like.dtype, device=like.device)
    return torch.triu(full, diagonal=1)


def _normed(norm: PaperNorm | None, tokens: Tensor, wanted: bool) -> Tensor:
    return norm(tokens) if wanted and norm is not None else tokens
