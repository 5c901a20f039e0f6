"""The papers' layer on columns of tokens, written from the definitions, one token at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PlainLayer:
    """Heads (V_i, A_i) and x -> x + W_2 relu(W_1 x)."""

    heads: tuple[tuple[Array, Array], ...]
    w1: Array
    w2: Array

    def attention(self, query, context, weights):
        """Sum over heads of V times the mean of the context, weighted by exp(y . A x)."""
        total = np.zeros_like(query)
        for value, score in self.heads:
            mass = weights * np.exp(context.T @ (score @ query))
            total += value @ (context @ mass) / mass.sum()
        return total

    def mlp(self, x):
        return x + self.w2 @ np.maximum(self.w1 @ x, 0)


def run(layers, tokens, *, masked):
    """The tokens that enter each layer, and what leaves the last."""
    states = [tokens]
    for layer in layers:
        old = states[-1]
        columns = []
        for place in range(old.shape[1]):
            seen = old[:, : place + 1] if masked else old
            column = old[:, place]
            columns.append(
                layer.mlp(column + layer.attention(column, seen, np.ones(seen.shape[1])))
            )
        states.append(np.stack(columns, axis=1))
    return states
