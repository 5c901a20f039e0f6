"""The papers' transformer, token by token, as Definitions 2.1 to 2.3 and 2.14 are written."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from promptlimits.lab.one_layer.setting import SharedQuery, answers
from promptlimits.lab.regression.regression_network import RowNetwork
from promptlimits.lipschitz.balls.forward import proved_distance
from promptlimits.nets.paper.mean_field import mean_field, token_measure
from promptlimits.nets.paper.transformer import from_weights
from promptlimits.nets.paper.weights import random_weights

Array = NDArray[np.float64]


def attention_of(x, context, layer):
    """Att(x, X): the sum over heads of softmax averages of V x_j."""
    total = np.zeros_like(x)
    for head in layer.heads:
        scores = [math.exp(float((head.key @ y) @ (head.query @ x))) for y in context]
        for score, y in zip(scores, context, strict=True):
            total = total + score / sum(scores) * (head.output @ (head.value @ y))
    return total


def mlp_of(x, layer):
    return layer.w2 @ np.maximum(layer.w1 @ x + layer.b1, 0.0) + layer.b2 + x


def transformer_of(tokens, weights):
    """tau(X), (d, n) to (d, n), one token at a time; the first layer acts first."""
    columns = [tokens[:, j] for j in range(tokens.shape[1])]
    for layer in weights.layers:
        seen = [columns[: j + 1] if weights.masked else columns for j in range(len(columns))]
        columns = [
            mlp_of(attention_of(x, context, layer) + x, layer)
            for x, context in zip(columns, seen, strict=True)
        ]
    return np.stack(columns, axis=1)


def tellings(weights, tokens):
    """Every other place in the package that computes the papers' transformer, or its last columns.

    Ball arithmetic gives no floats: it is asked how far it is from those of the definitions.
    """
    model, x = from_weights(weights), torch.tensor(tokens)
    yield "torch", model(x).numpy()
    yield "rows", RowNetwork.of(model)(x.mT, torch.arange(x.shape[1])).mT.numpy()
    yield "measures", mean_field(model, token_measure(x, timed=weights.masked)).points.T.numpy()
    if len(weights.layers) == 1:
        setting = SharedQuery(layer=weights.layers[0], queries=(tokens[:, 2:],))
        yield "one layer", answers(setting, tokens[:, :2]).T


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("heads", "layers", "hidden"), [(1, 1, 0), (2, 1, 5), (3, 3, 4)])
def test_all_that_compute_the_transformer_do_what_the_definitions_say(
    masked, heads, layers, hidden
):
    generator = np.random.default_rng(heads)
    sizes = {"dim": 4, "heads": heads, "head_dim": 3, "hidden": hidden, "layers": layers}
    weights = random_weights(**sizes, generator=generator, masked=masked, biases=True)
    tokens = generator.standard_normal((4, 5))
    expected = transformer_of(tokens, weights)
    # A few hundred operations on numbers of size 10 at most.
    for name, found in tellings(weights, tokens):
        wanted = expected[:, -found.shape[1] :]
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12, err_msg=name)
    assert proved_distance(weights, tokens, expected, norm="frobenius") < 1e-11
