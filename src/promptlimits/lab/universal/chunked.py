"""The value-table network in numpy, block by block: what PaperTransformer computes, in less room.

Layers without attention act on tokens alone. The first attention changes only the coordinate
`index`, which the second does not read in prompt tokens; so only query tokens need it. Softmax is
accumulated over blocks of the prompt with a running maximum, so that memory does not grow with
the number of queries times the length of the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from promptlimits.base.errors import UserError
from promptlimits.lab.universal.value_table import TableNetwork
from promptlimits.nets.paper.weights import Array, HeadWeights, LayerWeights

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
