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

from promptlimits.nets.paper.layers import (
    PaperLayer,
    PaperNorm,
    activated,
    activation_slope,
    causal_bias,
)
from promptlimits.nets.paper.transformer import PaperTransformer


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
    """A transformer on matrices whose rows are tokens, read at a few columns."""

    model: PaperTransformer  # the transformer that it computes
    layers: tuple[_Layer, ...]  # its layers with stacked heads

    @classmethod
    def of(cls, model: PaperTransformer) -> RowNetwork:
        """The same function as `model`."""
        return cls(model=model, layers=tuple(map(_stacked, model.layers)))

    @property
    def widest(self) -> int:
        """Numbers of a token in the widest place."""
        return max(max(layer.source.w1.shape[0], 3 * len(layer.query)) for layer in self.layers)

    def __call__(self, tokens: Tensor, columns: Tensor) -> Tensor:
        """Some tokens of tau(X)."""
        return self._forward(tokens, columns)[0]

    @torch.no_grad()
    def slopes(self, tokens: Tensor, columns: Tensor, places: tuple[Tensor, Tensor]) -> Tensor:
        """Slopes of single numbers of tau(X) with respect to X, by a backward pass by hand.

        The R numbers go back together as R rows beside each token, so that a head's products are
        four for all of them. In the solver, R = 8 passes of autograd took twice as long.

        Args:
            tokens: X, of shape (..., n, d).
            columns: Numbers of the tokens that are read, c of them.
            places: (R,) which of the c tokens and (R,) which coordinate, of each number.

        Returns:
            Of shape (..., n, R, d).
        """
        read, traces = self._forward(tokens, columns)
        numbers = torch.arange(len(places[0]), device=tokens.device)
        back = tokens.new_zeros(len(columns), len(numbers), tokens.shape[-1])
        back[places[0], numbers, places[1]] = 1.0
        back = back.expand(*read.shape[:-2], -1, -1, -1)
        back, into = self._back(self.layers[-1], traces[-1], back)
        back = into.index_add_(-3, columns, back)
        for layer, trace in zip(self.layers[-2::-1], traces[-2::-1], strict=True):
            back, into = self._back(layer, trace, back)
            back = into.add_(back)
        return back

    def _forward(self, tokens: Tensor, columns: Tensor) -> tuple[Tensor, list[_Trace]]:
        length, traces = tokens.shape[-2], []
        if self.model.positions is not None:
            tokens = tokens + self.model.positions[:, :length].mT
        bias = causal_bias(length, tokens) if self.model.masked else None
        for layer in self.layers[:-1]:
            tokens, trace = self._layer(layer, tokens, tokens, bias)
            traces.append(trace)
        read = tokens.index_select(-2, columns)
        hidden = None if bias is None else bias.index_select(0, columns)
        read, trace = self._layer(self.layers[-1], read, tokens, hidden)
        return read, [*traces, trace]

    def _layer(
        self, layer: _Layer, read: Tensor, context: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, _Trace]:
        """One layer at the tokens `read` of the context, as `layers.apply_layer`."""
        before, after = self.model.norm_place == "pre", self.model.norm_place == "post"
        first, second = layer.source.attention_norm, layer.source.mlp_norm
        seen = _normed(first, context, before)
        asking = seen if read is context else _normed(first, read, before)
        added, heads = _attention(layer, asking, seen, bias)
        summed = read + added
        middle = _normed(first, summed, after)
        inner = linear(_normed(second, middle, before), layer.source.w1, layer.source.b1)
        out = middle + linear(
            activated(layer.source.activation, inner), layer.source.w2, layer.source.b2
        )
        trace = _Trace(
            read=read, context=context, summed=summed, middle=middle, inner=inner, out=out,
            heads=heads,
        )  # fmt: skip
        return _normed(second, out, after), trace

    def _back(self, layer: _Layer, trace: _Trace, back: Tensor) -> tuple[Tensor, Tensor]:
        """From slopes (..., c, R, d) at a layer's result to those at `read` and at the context."""
        before, after = self.model.norm_place == "pre", self.model.norm_place == "post"
        first, second = layer.source.attention_norm, layer.source.mlp_norm
        back = _norm_back(second, trace.out, back, after)
        slope = activation_slope(layer.source.activation, trace.inner)
        inner = (back @ layer.source.w2).mul_(slope[..., None, :])
        back = back + _norm_back(second, trace.middle, inner @ layer.source.w1, before)
        back = _norm_back(first, trace.summed, back, after)
        if trace.heads is None:
            return back, back.new_zeros(*trace.context.shape[:-1], *back.shape[-2:])
        asking, seen = _attention_back(layer, trace.heads, back)
        asking = _norm_back(first, trace.read, asking, before)
        return back + asking, _norm_back(first, trace.context, seen, before)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Heads:
    """Of h heads: queries (.., h, c, s), keys and values (.., h, n, s), shares (.., h, c, n)."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    shares: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class _Trace:
    """What a layer's backward pass needs."""

    read: Tensor
    context: Tensor
    summed: Tensor
    middle: Tensor
    inner: Tensor
    out: Tensor
    heads: _Heads | None


def _attention(
    layer: _Layer, asking: Tensor, seen: Tensor, bias: Tensor | None
) -> tuple[Tensor, _Heads | None]:
    if not layer.heads:
        return torch.zeros_like(asking), None

    def by_head(tokens: Tensor, weight: Tensor) -> Tensor:
        heads: Tensor = linear(tokens, weight).unflatten(-1, (layer.heads, -1))
        return heads.transpose(-2, -3).contiguous()

    queries, keys = by_head(asking, layer.query), by_head(seen, layer.key)
    values, logits = by_head(seen, layer.value), queries @ keys.mT
    shares = _softmax(logits if bias is None else logits + bias)
    output: Tensor = linear((shares @ values).transpose(-2, -3).flatten(-2), layer.output)
    return output, _Heads(queries=queries, keys=keys, values=values, shares=shares)


def _softmax(logits: Tensor) -> Tensor:
    """Over the last axis; for rows of ten numbers `torch.softmax` takes five times as long."""
    weights = (logits - logits.detach().amax(dim=-1, keepdim=True)).exp()
    return weights / weights.sum(dim=-1, keepdim=True)


def _attention_back(layer: _Layer, heads: _Heads, back: Tensor) -> tuple[Tensor, Tensor]:
    """From slopes (..., c, R, d) at the output to those at the asking and the seen tokens."""
    count = back.shape[-2]
    mixed = (back @ layer.output).unflatten(-1, (layer.heads, -1)).movedim(-2, -4).contiguous()
    shares = heads.shares[..., None, :]
    steep = (mixed.flatten(-3, -2) @ heads.values.mT).unflatten(-2, (-1, count))
    steep = steep.sub_((steep * shares).sum(dim=-1, keepdim=True)).mul_(shares)
    queries = (steep.flatten(-3, -2) @ heads.keys).unflatten(-2, (-1, count))
    keys = (heads.queries.mT @ steep.flatten(-2)).unflatten(-1, (count, -1)).movedim(-3, -1)
    values = (heads.shares.mT @ mixed.flatten(-2)).unflatten(-1, (count, -1))

    def by_token(slopes: Tensor, weight: Tensor) -> Tensor:
        joined: Tensor = slopes.movedim(-4, -2).flatten(-2) @ weight
        return joined

    seen = by_token(keys.transpose(-2, -3), layer.key).add_(by_token(values, layer.value))
    return by_token(queries, layer.query), seen


def _normed(norm: PaperNorm | None, tokens: Tensor, wanted: bool) -> Tensor:
    return norm(tokens.mT).mT if wanted and norm is not None else tokens


def _norm_back(norm: PaperNorm | None, tokens: Tensor, back: Tensor, wanted: bool) -> Tensor:
    """From slopes (..., R, d) at the normalised tokens to those at the tokens (..., d)."""
    if not wanted or norm is None:
        return back
    centred = tokens - tokens.mean(dim=-1, keepdim=True) if norm.kind == "layer" else tokens
    inverse = torch.rsqrt(centred.square().mean(dim=-1, keepdim=True) + norm.epsilon)
    unit, back = (centred * inverse)[..., None, :], back * norm.weight
    back = (back - unit * (back * unit).mean(dim=-1, keepdim=True)) * inverse[..., None, :]
    return back - back.mean(dim=-1, keepdim=True) if norm.kind == "layer" else back


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
