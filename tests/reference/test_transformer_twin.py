"""The papers' transformer, token by token, as Definitions 2.1 to 2.3 and 2.14 are written."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from promptlimits.nets.paper.transformer import from_weights
from promptlimits.nets.paper.weights import LayerWeights, TransformerWeights, random_weights

Array = NDArray[np.float64]


def attention_of(x: Array, context: list[Array], layer: LayerWeights) -> Array:
    """Att(x, X): the sum over heads of softmax averages of V x_j."""
    total = np.zeros_like(x)
    for head in layer.heads:
        scores = [math.exp(float((head.key @ y) @ (head.query @ x))) for y in context]
        for score, y in zip(scores, context, strict=True):
            total = total + score / sum(scores) * (head.output @ (head.value @ y))
    return total


def mlp_of(x: Array, layer: LayerWeights) -> Array:
    return layer.w2 @ np.maximum(layer.w1 @ x + layer.b1, 0.0) + layer.b2 + x


def transformer_of(tokens: Array, weights: TransformerWeights) -> Array:
    """tau(X), (d, n) to (d, n), one token at a time; the first layer acts first."""
    columns = [tokens[:, j] for j in range(tokens.shape[1])]
    for layer in weights.layers:
        seen = [columns[: j + 1] if weights.masked else columns for j in range(len(columns))]
        columns = [
            mlp_of(attention_of(x, context, layer) + x, layer)
            for x, context in zip(columns, seen, strict=True)
        ]
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("heads", "layers", "hidden"), [(1, 1, 0), (2, 1, 5), (3, 3, 4)])
def test_the_transformer_is_what_the_definitions_say(
    masked: bool, heads: int, layers: int, hidden: int
) -> None:
    generator = np.random.default_rng(heads)
    sizes = {"dim": 4, "heads": heads, "head_dim": 3, "hidden": hidden, "layers": layers}
    weights = random_weights(**sizes, generator=generator, masked=masked, biases=True)
    tokens = generator.standard_normal((4, 5))
    found = from_weights(weights)(torch.tensor(tokens)).numpy()
    # A few hundred operations on numbers of size 10 at most.
    np.testing.assert_allclose(found, transformer_of(tokens, weights), rtol=1e-12, atol=1e-12)
