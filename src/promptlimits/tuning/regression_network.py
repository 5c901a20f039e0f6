"""The papers' transformer with tokens as rows and heads side by side, for many small prompts.

`PaperTransformer` multiplies small matrices W X, one for each sequence and head. Here tokens are
rows, so one product with W^T serves all sequences, and the heads of a layer are one matrix. The
last layer computes only the columns that are read. The function is the same, to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from promptlimits.models.paper_layers import PaperLayer, PaperNorm, causal_bias
from promptlimits.models.transformer import PaperTransformer


@dataclass(frozen=True, kw_only=True, eq=False)
class _Layer:
    """A layer whose heads are stacked; smaller heads are padded with zeros, which is exact."""

    heads: int
    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    source: PaperLayer


@dataclass(frozen=True, kw_only=True, eq=False)
class RowNetwork:
    """A transformer on matrices whose rows are tokens, read at a few columns.

    Attributes:
        model: The transformer that it computes.
        layers: Its layers with stacked heads.
    """

    model: PaperTransformer
    layers: tuple[_Layer, ...]

    @classmethod
    def of(cls, model: PaperTransformer) -> RowNetwork:
        """The same function as `model`."""
        return cls(model=model, layers=tuple(map(_stacked, model.layers)))

    @property
    def widest(self) -> int:
        """Numbers of a token in the widest place."""
        return max(max(layer.source.w1.shape[0], 3 * len(layer.query)) for layer in self.layers)

    def __call__(self, tokens: Tensor, columns: Tensor) -> Tensor:
        """Some tokens of tau(X).

        Args:
            tokens: X with tokens as rows, of shape (..., n, d).
            columns: Numbers of the tokens to return, c of them.

        Returns:
            Of shape (..., c, d).
        """
        length = tokens.shape[-2]
        if self.model.positions is not None:
            tokens = tokens + self.model.positions[:, :length].mT
        bias = causal_bias(length, tokens) if self.model.masked else None
        for layer in self.layers[:-1]:
            tokens = self._layer(layer, tokens, tokens, bias)
        read = tokens.index_select(-2, columns)
        hidden = None if bias is None else bias.index_select(0, columns)
        return self._layer(self.layers[-1], read, tokens, hidden)

    def _layer(self, layer: _Layer, read: Tensor, context: Tensor, bias: Tensor | None) -> Tensor:
        """One layer at the tokens `read` of the context, as `paper_layers.apply_layer`."""
        before, after = self.model.norm_place == "pre", self.model.norm_place == "post"
        first, second = layer.source.attention_norm, layer.source.mlp_norm
        seen = _normed(first, context, before)
        asking = seen if read is context else _normed(first, read, before)
        read = _normed(first, read + _attention(layer, asking, seen, bias), after)
        inner = linear(_normed(second, read, before), layer.source.w1, layer.source.b1)
        read = read + linear(torch.relu(inner), layer.source.w2, layer.source.b2)
        return _normed(second, read, after)


def _attention(layer: _Layer, asking: Tensor, seen: Tensor, bias: Tensor | None) -> Tensor:
    if not layer.heads:
        return torch.zeros_like(asking)

    def by_head(tokens: Tensor, weight: Tensor) -> Tensor:
        heads: Tensor = linear(tokens, weight).unflatten(-1, (layer.heads, -1))
        return heads.transpose(-2, -3)

    logits = by_head(asking, layer.query) @ by_head(seen, layer.key).mT
    shares = torch.softmax(logits if bias is None else logits + bias, dim=-1)
    mixed = (shares @ by_head(seen, layer.value)).transpose(-2, -3).flatten(-2)
    output: Tensor = linear(mixed, layer.output)
    return output


def _normed(norm: PaperNorm | None, tokens: Tensor, wanted: bool) -> Tensor:
    return norm(tokens.mT).mT if wanted and norm is not None else tokens


def _stacked(layer: PaperLayer) -> _Layer:
    heads = layer.heads
    if not heads:
        none = layer.w1.new_zeros(0, layer.b2.shape[0])
        return _Layer(heads=0, query=none, key=none, value=none, output=none.mT, source=layer)
    size = max(head.query.shape[0] for head in heads)
    inner = max(head.value.shape[0] for head in heads)
    return _Layer(
        heads=len(heads),
        query=_rows([head.query for head in heads], size),
        key=_rows([head.key for head in heads], size),
        value=_rows([head.value for head in heads], inner),
        output=_rows([head.output.mT for head in heads], inner).mT.contiguous(),
        source=layer,
    )


def _rows(matrices: Sequence[Tensor], size: int) -> Tensor:
    return torch.cat([pad(matrix, (0, 0, 0, size - matrix.shape[0])) for matrix in matrices])
