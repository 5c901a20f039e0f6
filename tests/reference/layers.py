"""Layers that many tests use: without an MLP, turned by an isometry, drawn with queries."""

from dataclasses import replace

import numpy as np

from promptlimits.lab.one_layer.setting import shared_query
from promptlimits.nets.paper.weights import HeadWeights, LayerWeights, random_weights


def attention_only(*heads):
    """A layer without MLP and biases."""
    d = heads[0].dim
    return LayerWeights(
        heads=heads, w1=np.zeros((0, d)), b1=np.zeros(0), w2=np.zeros((d, 0)), b2=np.zeros(d)
    )


def rotated(layer, turn):
    """The same layer in the coordinates turn x."""
    heads = [
        HeadWeights(
            query=head.query @ turn.T,
            key=head.key @ turn.T,
            value=head.value @ turn.T,
            output=turn @ head.output,
        )
        for head in layer.heads
    ]
    return replace(
        layer, heads=tuple(heads), w1=layer.w1 @ turn.T, w2=turn @ layer.w2, b2=turn @ layer.b2
    )


def draw(dim, heads, head_dim, queries, *seeds, **given):
    """A Gaussian layer, queries with a shared last token, and targets.

    With one seed the sizes are part of it; several seeds are all there is.
    """
    sizes = [dim, heads, head_dim, queries] if len(seeds) == 1 else []
    generator = np.random.default_rng([*sizes, *seeds])
    shape = {"dim": dim, "heads": heads, "head_dim": head_dim, "hidden": 0, "layers": 1}
    layer = random_weights(**(shape | given), generator=generator, masked=False).layers[0]
    tokens = generator.standard_normal((queries + 1, dim))
    setting = shared_query(layer, tokens[0], list(tokens[1:]))
    return setting, generator.standard_normal((queries, dim)), generator
