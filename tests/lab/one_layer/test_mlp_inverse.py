"""Answers go back to what attention must give, or it is said that they cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from promptlimits.base.errors import UserError
from promptlimits.lab.one_layer.error_floor import preimages
from promptlimits.lab.one_layer.setting import feed_forward
from promptlimits.nets.paper.weights import LayerWeights, random_weights


def layer_of(dim: int, seed: int, product: float) -> tuple[LayerWeights, np.random.Generator]:
    generator = np.random.default_rng([dim, seed])
    layer = random_weights(
        dim=dim,
        heads=1,
        head_dim=dim,
        hidden=3 * dim,
        layers=1,
        generator=generator,
        masked=False,
        biases=True,
    ).layers[0]
    norm = np.linalg.norm(layer.w1, 2) * np.linalg.norm(layer.w2, 2)
    return replace(layer, w2=layer.w2 * (product / norm)), generator


@pytest.mark.parametrize("product", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("seed", range(5))
def test_one_to_one(product: float, seed: int) -> None:
    layer, generator = layer_of(7, seed, product)
    token, offsets = generator.standard_normal(7), 3 * generator.standard_normal((4, 7))
    found = preimages(layer, token, feed_forward(layer, token + offsets))
    assert found.offsets == pytest.approx(offsets, abs=1e-7)
    assert found.unique
    assert found.error < 1e-9


def test_not_one_to_one() -> None:
    layer, generator = layer_of(5, 0, 6.0)
    answers = feed_forward(layer, generator.standard_normal((3, 5)))
    found = preimages(layer, np.zeros(5), answers)
    assert not found.unique
    assert feed_forward(layer, found.offsets) == pytest.approx(answers, abs=1e-8)


def test_outside_the_range() -> None:
    layer, _ = layer_of(3, 0, 1.0)
    # MLP(x) = -|x| in each coordinate.
    down = replace(
        layer,
        w1=np.eye(3),
        b1=np.zeros(3),
        w2=-2 * np.eye(3),
        b2=np.zeros(3),
    )
    assert feed_forward(down, np.array([1.0, -2.0, 3.0])) == pytest.approx([-1, -2, -3])
    preimages(down, np.zeros(3), -np.ones((1, 3)))
    with pytest.raises(UserError, match="answer 1 must lie in the range of the layer's MLP"):
        preimages(down, np.zeros(3), np.array([[-1.0, -1, -1], [-1, 1, -1]]))
    with pytest.raises(UserError, match="finite"):
        preimages(down, np.zeros(3), np.full((1, 3), np.inf))
