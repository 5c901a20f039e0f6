"""One transformer for all Lipschitz maps: the prompt is the table of the map (after wang2023).

The network answers any map of a `FunctionClass` behind the prompt of that map; its weights and
positions know the class and nothing of the map. It is in the papers' own class
(`promptlimits.nets.paper.transformer.PaperTransformer`), with positional encodings (Remark 2.4 of
[@meyer2025]) and 2 layers with attention, after 2 ceil(log2 N) layers that only have an MLP.

Coordinates of a token, d + d + d + 2 + 1 + m + 2:

    content (d)   a query's input, at the end the answer; 0 in a prompt token
    value (d)     a prompt token's table entry; 0 in a query token
    scratch (d)   for the digits
    code, index   the cell of this token; the cell of the input
    one           1 everywhere                                              (position)
    here (m)      which query token this is                                 (position)
    place, square q and q^2 of prompt token q, counted from the middle      (position)

A prompt is thus d m_p numbers, in the coordinates `value`; the others are 0. Why it works, and
how well, is in `universal_bound`.

**In numpy, block by block** (`answers`): what PaperTransformer computes, in less room. Layers
without attention act on tokens alone. The first attention changes only the coordinate `index`,
which the second does not read in prompt tokens; so only query tokens need it. Softmax is
accumulated over blocks of the prompt with a running maximum, so that memory does not grow with the
number of queries times the length of the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from promptlimits.base.errors import UserError
from promptlimits.lab.universal.universal_bound import (
    POINTER,
    FunctionClass,
    TableShape,
    UniversalBound,
    choose_shape,
    prompt_tokens,
    universal_bound,
    weights_of_network,
)
from promptlimits.nets.paper.weights import (
    Array,
    HeadWeights,
    LayerWeights,
    TransformerWeights,
    partial_layer,
)

if TYPE_CHECKING:
    from fractions import Fraction

    from promptlimits.nets.paper.transformer import PaperTransformer


MOST_BYTES: Final = 2 * 2**30
"""Memory that the prompt, its positions and the weights may take, unless told otherwise."""

_COPIES: Final = 3


@dataclass(frozen=True)
class Places:
    """Where the parts of a token stand, as in the table above; its d and m come first."""

    dim: int
    tokens: int
    content: slice = field(init=False)
    value: slice = field(init=False)
    scratch: slice = field(init=False)
    code: int = field(init=False)
    index: int = field(init=False)
    one: int = field(init=False)
    here: slice = field(init=False)
    place: int = field(init=False)
    width: int = field(init=False)

    def __post_init__(self) -> None:
        d, m = self.dim, self.tokens
        parts = {"content": slice(0, d), "value": slice(d, 2 * d), "scratch": slice(2 * d, 3 * d)}
        numbers = {"code": 3 * d, "index": 3 * d + 1, "one": 3 * d + 2}
        after = {"here": slice(3 * d + 3, 3 * d + 3 + m), "place": 3 * d + 3 + m}
        for name, where in (parts | numbers | after | {"width": 3 * d + m + 5}).items():
            object.__setattr__(self, name, where)


@dataclass(frozen=True, kw_only=True, eq=False)
class TableNetwork:
    """The transformer that answers every map of a class behind the prompt of that map."""

    target: FunctionClass  # the class
    shape: TableShape  # N, eta, beta
    bound: UniversalBound  # what is proved for every map of the class
    weights: TransformerWeights  # the weights
    positions: Array  # added to the m_p + m tokens, (width, m_p + m)

    @property
    def places(self) -> Places:
        """Where things stand in a token."""
        return Places(dim=self.target.dim, tokens=self.target.tokens)

    @property
    def prompt_tokens(self) -> int:
        """m_p."""
        return int(self.positions.shape[1]) - self.target.tokens

    def prompt(self, table: Array) -> Array:
        """The prompt that holds a table."""
        return self._embedded(table, self.places.value)

    def queries(self, inputs: Array) -> Array:
        """Inputs as tokens of the network."""
        return self._embedded(inputs, self.places.content)

    def paper_transformer(self) -> PaperTransformer:
        """The same network as the papers' transformer in torch, in float64."""
        import torch

        from promptlimits.nets.paper.transformer import from_weights

        return replace(
            from_weights(self.weights), positions=torch.tensor(self.positions, dtype=torch.float64)
        )

    def _embedded(self, numbers: Array, rows: slice) -> Array:
        tokens = np.zeros((*numbers.shape[:-2], self.places.width, numbers.shape[-1]))
        tokens[..., rows, :] = numbers
        return tokens


def table_network(
    target: FunctionClass, *, ramp: Fraction | None = None, most_bytes: int = MOST_BYTES
) -> TableNetwork:
    """Build the network of a class."""
    shape = choose_shape(target, ramp=ramp)
    places = Places(dim=target.dim, tokens=target.tokens)
    length = prompt_tokens(target, shape.cells)
    weights = weights_of_network(target, shape.cells)
    needed = _COPIES * 8 * places.width * (length + target.tokens) + 8 * weights
    if needed > most_bytes:
        raise UserError(
            "eps, lipschitz, dim and tokens",
            f"lead to a prompt and weights that fit in {most_bytes:,} bytes",
            got=f"{length:,} tokens and {weights:,} weights, which take {needed:,} bytes",
            remedy="raise eps, or lower the others",
        )
    layers = (
        *_digit_layers(places, shape),
        _gathering_layer(places, shape),
        _answering_layer(places, shape, length),
    )
    return TableNetwork(
        target=target,
        shape=shape,
        bound=universal_bound(target, shape),
        weights=TransformerWeights(layers=layers, masked=False),
        positions=_positions(places, length),
    )


def cell_middles(network: TableNetwork, start: int, stop: int) -> Array:
    """Middles of the cells start to stop - 1, in the order of the table."""
    dim, tokens, cells = network.target.dim, network.target.tokens, network.shape.cells
    left = np.arange(start, stop, dtype=np.int64)
    digits = np.empty((stop - start, tokens, dim), dtype=np.int64)
    for token in range(tokens):
        for row in range(dim):
            digits[:, token, row] = left % cells
            left = left // cells
    return ((digits + 0.5) / cells).transpose(0, 2, 1)


def _digit_layers(places: Places, shape: TableShape) -> list[LayerWeights]:
    """Layers that take floor(N x) apart, highest bit first; two for each bit."""
    layers = []
    bits = (shape.cells - 1).bit_length()
    for number in range(bits):
        weight = 2 ** (bits - 1 - number)
        layers.append(_threshold_layer(places, shape, weight, first=number == 0))
        layers.append(_digit_layer(places, shape, weight))
    return layers


def _threshold_layer(
    places: Places, shape: TableShape, weight: int, *, first: bool
) -> LayerWeights:
    """Scratch += ReLU((x - theta)/eta + 1); the first one also keeps x off the right end."""
    dim, eye = places.dim, np.eye(places.dim)
    hidden = 2 * dim if first else dim
    w1, b1 = np.zeros((hidden, places.width)), np.zeros(hidden)
    w2 = np.zeros((places.width, hidden))
    w1[:dim, places.content] = eye / float(shape.ramp)
    b1[:dim] = 1 - (weight / shape.cells) / float(shape.ramp)
    w2[places.scratch, :dim] = eye
    if first:
        w1[dim:, places.content] = eye
        b1[dim:] = 1 / (2 * shape.cells) - 1
        w2[places.content, dim:] = -eye
    return partial_layer(places.width, w1=w1, b1=b1, w2=w2)


def _digit_layer(places: Places, shape: TableShape, weight: int) -> LayerWeights:
    """Bit = 1 - ReLU(1 - scratch): off the content, into the code; scratch back to 0."""
    dim, eye = places.dim, np.eye(places.dim)
    w1, b1 = np.zeros((2 * dim, places.width)), np.zeros(2 * dim)
    w2, b2 = np.zeros((places.width, 2 * dim)), np.zeros(places.width)
    w1[:dim, places.scratch], b1[:dim] = -eye, 1
    w1[dim:, places.scratch] = eye
    w2[places.scratch, dim:] = -eye
    theta = weight / shape.cells
    w2[places.content, :dim] = theta * eye
    b2[places.content] = -theta
    units = np.array([float(weight * shape.cells**row) for row in range(dim)])
    w2[places.code, :dim] = -units
    b2[places.code] = units.sum()
    return partial_layer(places.width, w1=w1, b1=b1, w2=w2, b2=b2)


def _gathering_layer(places: Places, shape: TableShape) -> LayerWeights:
    """Head j brings the code of query token j to every token, times N^(d j)."""
    heads = []
    for token in range(places.tokens):
        query, key = np.zeros((1, places.width)), np.zeros((1, places.width))
        value, output = np.zeros((1, places.width)), np.zeros((places.width, 1))
        query[0, places.one] = POINTER
        key[0, places.here.start + token] = 1
        value[0, places.code] = 1
        output[places.index, 0] = float(shape.cells ** (places.dim * token))
        heads.append(HeadWeights(query=query, key=key, value=value, output=output))
    return partial_layer(places.width, *heads)


def _answering_layer(places: Places, shape: TableShape, length: int) -> LayerWeights:
    """Attention to prompt token t = m index + j; the MLP puts its value in place of the content."""
    dim, tokens, eye = places.dim, places.tokens, np.eye(places.dim)
    query, key = np.zeros((3, places.width)), np.zeros((3, places.width))
    value, output = np.zeros((dim, places.width)), np.zeros((places.width, dim))
    beta = float(shape.sharpness)
    query[0, places.index] = 2 * beta * tokens
    query[0, places.here] = 2 * beta * np.arange(tokens)
    query[0, places.one] = -2 * beta * (length // 2)
    query[1, places.one] = -beta
    query[2, places.one] = -POINTER
    key[0, places.place] = 1
    key[1, places.place + 1] = 1
    key[2, places.here] = 1
    value[:, places.value] = eye
    output[places.value] = eye
    w1, w2 = np.zeros((2 * dim, places.width)), np.zeros((places.width, 2 * dim))
    w1[:dim, places.value], w1[:dim, places.content] = eye, -eye
    w1[dim:] = -w1[:dim]
    w2[places.content, :dim], w2[places.content, dim:] = eye, -eye
    head = HeadWeights(query=query, key=key, value=value, output=output)
    return partial_layer(places.width, head, w1=w1, w2=w2)


def _positions(places: Places, length: int) -> Array:
    positions = np.zeros((places.width, length + places.tokens))
    positions[places.one] = 1
    positions[places.here, length:] = np.eye(places.tokens)
    positions[places.place, :length] = np.arange(length) - length // 2
    positions[places.place + 1] = positions[places.place] ** 2
    positions.setflags(write=False)
    return positions


Progress: TypeAlias = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""

BLOCK_TOKENS: Final = 2**15
"""Prompt tokens of one block."""

_BLOCK_LOGITS: Final = 2**21


@dataclass(frozen=True, kw_only=True, eq=False)
class _Softmax:
    """A softmax over some of the tokens: for each query its peak, mass and mix of values."""

    peak: Array
    mass: Array
    mixed: Array

    def joined(self, other: _Softmax) -> _Softmax:
        peak = np.maximum(self.peak, other.peak)
        mine, theirs = np.exp(self.peak - peak), np.exp(other.peak - peak)
        return _Softmax(
            peak=peak,
            mass=self.mass * mine + other.mass * theirs,
            mixed=self.mixed * mine + other.mixed * theirs,
        )


def answers(
    network: TableNetwork,
    prompt: Array,
    inputs: Array,
    *,
    block: int = BLOCK_TOKENS,
    progress: Progress | None = None,
) -> Array:
    """g([P, X])_{:, m_p:} in the coordinates of the input, for many inputs."""
    target, length = network.target, network.prompt_tokens
    width = network.places.width
    if np.shape(prompt) != (width, length) or np.shape(inputs)[1:] != (target.dim, target.tokens):
        raise UserError(
            "the prompt and the inputs",
            f"be of shape ({width}, {length}) and (B, {target.dim}, {target.tokens})",
            got=f"{np.shape(prompt)} and {np.shape(inputs)}",
            remedy="make them with the network",
        )
    *first, gathering, answering = network.weights.layers
    batch = len(inputs)
    queries = network.queries(inputs) + network.positions[:, length:]
    queries = queries.transpose(1, 0, 2).reshape(width, -1)
    queries = _through(first, queries)
    plan = _Plan(network, prompt, first, block, progress, passes=2)
    for layer in (gathering, answering):
        total = np.zeros_like(queries)
        for part, head in zip(plan.over_prompt(layer, queries), layer.heads, strict=True):
            whole = part.joined(_own(head, queries, batch))
            total += head.output @ (whole.mixed / whole.mass)
        queries = _mlp(layer, queries + total)
    content = queries[network.places.content].reshape(target.dim, batch, target.tokens)
    return np.ascontiguousarray(content.transpose(1, 0, 2))


class _Plan:
    """Passes over the prompt, whose tokens are made anew for each block."""

    def __init__(
        self,
        network: TableNetwork,
        prompt: Array,
        first: list[LayerWeights],
        block: int,
        progress: Progress | None,
        *,
        passes: int,
    ) -> None:
        self._network, self._prompt, self._first = network, prompt, first
        self._block, self._progress = block, progress
        self._steps = passes * -(-network.prompt_tokens // block)
        self._done = 0

    def over_prompt(self, layer: LayerWeights, queries: Array) -> list[_Softmax]:
        """For each head the softmax over the prompt alone."""
        asked = [_distinct(head.query @ queries) for head in layer.heads]
        found: list[_Softmax | None] = [None] * len(asked)
        for tokens in self._blocks():
            for number, head in enumerate(layer.heads):
                new = _over(head, asked[number], tokens)
                old = found[number]
                found[number] = new if old is None else old.joined(new)
        return [part for part in found if part is not None]

    def _blocks(self) -> Iterator[Array]:
        length = self._network.prompt_tokens
        for start in range(0, length, self._block):
            stop = min(start + self._block, length)
            there = self._prompt[:, start:stop] + self._network.positions[:, start:stop]
            yield _through(self._first, there)
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, self._steps)


def _through(layers: list[LayerWeights], tokens: Array) -> Array:
    """Layers whose attention writes nothing."""
    for layer in layers:
        tokens = _mlp(layer, tokens)
    return tokens


def _mlp(layer: LayerWeights, tokens: Array) -> Array:
    hidden = np.maximum(layer.w1 @ tokens + layer.b1[:, None], 0)
    changed: Array = tokens + layer.w2 @ hidden + layer.b2[:, None]
    return changed


def _distinct(asked: Array) -> Array:
    """One column where all are equal: equal queries get equal answers."""
    return asked[:, :1] if bool((asked == asked[:, :1]).all()) else asked


def _over(head: HeadWeights, asked: Array, tokens: Array) -> _Softmax:
    """Softmax of every query over given tokens."""
    keys, values = head.key @ tokens, head.value @ tokens
    rows = max(1, _BLOCK_LOGITS // tokens.shape[1])
    peaks, masses, mixes = [], [], []
    for start in range(0, asked.shape[1], rows):
        logits = asked[:, start : start + rows].T @ keys
        peak = logits.max(axis=1)
        logits -= peak[:, None]
        np.exp(logits, out=logits)
        peaks.append(peak)
        masses.append(logits.sum(axis=1))
        mixes.append(values @ logits.T)
    return _Softmax(
        peak=np.concatenate(peaks), mass=np.concatenate(masses), mixed=np.concatenate(mixes, axis=1)
    )


def _own(head: HeadWeights, queries: Array, batch: int) -> _Softmax:
    """Softmax of every query token over the tokens of its own input."""

    def grouped(matrix: Array) -> Array:
        return (matrix @ queries).reshape(matrix.shape[0], batch, -1)

    asked, keys, values = map(grouped, (head.query, head.key, head.value))
    logits = np.einsum("sbi,sbj->bij", asked, keys)
    peak = logits.max(axis=2)
    shares = np.exp(logits - peak[:, :, None])
    mixed = np.einsum("bij,vbj->vbi", shares, values)
    return _Softmax(
        peak=peak.reshape(-1),
        mass=shares.sum(axis=2).reshape(-1),
        mixed=mixed.reshape(len(values), -1),
    )
