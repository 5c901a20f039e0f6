"""The papers' weights are checked, copied, and hashed whole."""

from dataclasses import replace

import numpy as np
import pytest

from promptlimits.base.errors import UserError
from promptlimits.nets.paper.weights import (
    HeadWeights,
    TransformerWeights,
    random_weights,
)


def weights(seed=0, **changes):
    settings = {
        "dim": 6,
        "heads": 2,
        "head_dim": 3,
        "hidden": 5,
        "layers": 2,
        "masked": True,
        "biases": True,
    }
    return random_weights(generator=np.random.default_rng(seed), **(settings | changes))


def test_the_arrays_are_copies_nobody_can_change():
    source = np.ones((2, 4))
    head = HeadWeights(query=source, key=source, value=source, output=source.T)
    source[0, 0] = 9.0
    assert head.query[0, 0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        head.query[0, 0] = 2.0


def test_float32_is_taken_over_exactly():
    third = np.full((1, 1), np.float32(1) / np.float32(3), dtype=np.float32)
    head = HeadWeights(query=third, key=third, value=third, output=third)
    assert head.query.dtype == np.float64
    assert head.query[0, 0] == float(third[0, 0]) != 1 / 3


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("key", np.ones((3, 4)), "W_key must have the shape"),
        ("output", np.ones((2, 4)), "W_output must have the shape"),
        ("query", np.ones(4), "W_q must be a matrix"),
        ("value", np.full((2, 4), np.nan), "finite"),
        ("value", np.full((2, 4), 1j), "real numbers"),
        ("value", np.full((2, 4), np.longdouble(1)), "at most 64 bits"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(name, array, message):
    fitting = {name: np.ones((2, 4)) for name in ("query", "key", "value")}
    with pytest.raises(UserError, match=message):
        HeadWeights(**(fitting | {"output": np.ones((4, 2))} | {name: array}))


def test_layers_that_do_not_fit_are_refused():
    narrow, wide = weights(dim=6), weights(dim=8)
    with pytest.raises(UserError, match="share one width"):
        TransformerWeights(layers=narrow.layers + wide.layers, masked=False)
    with pytest.raises(UserError, match="number of layers"):
        TransformerWeights(layers=(), masked=False)
    layer = narrow.layers[0]
    with pytest.raises(UserError, match="share one width"):
        replace(layer, heads=layer.heads + wide.layers[0].heads)
    with pytest.raises(UserError, match="number of heads"):
        replace(layer, heads=())
    with pytest.raises(UserError, match="b1 must have the shape"):
        replace(layer, b1=np.ones(4))


def test_no_hidden_neuron_is_no_mlp():
    layer = weights(hidden=0).layers[0]
    assert (layer.hidden, layer.dim) == (0, 6)


def test_the_hash_covers_every_number_the_mask_and_the_shapes():
    first = weights()
    assert first.sha256() == weights().sha256() != weights(1).sha256()
    assert replace(first, masked=False).sha256() != first.sha256()
    seen = {first.sha256()}
    for place, layer in enumerate(first.layers):
        for name in ("w1", "b1", "w2", "b2"):
            array = getattr(layer, name).copy()
            array.flat[0] = np.nextafter(array.flat[0], np.inf)
            layers = list(first.layers)
            layers[place] = replace(layer, **{name: array})
            seen.add(replace(first, layers=tuple(layers)).sha256())
    assert len(seen) == 1 + 2 * 4
    assert len(list(first.arrays())) == 2 * (2 * 4 + 4)


def test_the_deviation_of_random_weights_is_that_of_the_fan_in():
    drawn = weights(dim=64, head_dim=64, hidden=128, heads=1, layers=1, scale=2.0).layers[0]
    assert drawn.w1.std() == pytest.approx(2 / 8, rel=0.05)
    assert drawn.w2.std() == pytest.approx(2 / 128**0.5, rel=0.05)
    assert drawn.heads[0].query.std() == pytest.approx(2 / 8, rel=0.05)
    assert drawn.heads[0].key.std() == pytest.approx(2 / 64, rel=0.05)
