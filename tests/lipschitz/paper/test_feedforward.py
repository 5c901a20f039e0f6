"""Feed-forward blocks against exact Jacobians and outputs."""

from fractions import Fraction

import numpy as np
import pytest
from flint import arb

from promptlimits.lipschitz.balls.rounding import upper
from promptlimits.lipschitz.paper.feedforward import (
    branch_lipschitz,
    feed_forward_norms,
)
from promptlimits.nets.paper.weights import HeadWeights, LayerWeights

TIGHT = 1 + 1e-6


def layer_of(w1, w2, b1, b2):
    d = w2.shape[0]
    head = HeadWeights(
        query=np.zeros((1, d)), key=np.zeros((1, d)), value=np.zeros((1, d)),
        output=np.zeros((d, 1)),
    )  # fmt: skip
    return LayerWeights(heads=(head,), w1=w1, b1=b1, w2=w2, b2=b2)


def norms_of(w1, w2):
    found = feed_forward_norms(layer_of(w1, w2, np.zeros(len(w1)), np.zeros(len(w2))))
    assert found.branch == branch_lipschitz(w1, w2)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_no_diagonal_of_slopes_exceeds_the_constant(seed):
    generator = np.random.default_rng(seed)
    d, f = 4, int(generator.integers(1, 9))
    w1, w2 = generator.standard_normal((f, d)), generator.standard_normal((d, f))
    w1 *= np.exp(generator.standard_normal((f, 1)))
    norms = norms_of(w1, w2)
    assert norms.lipschitz <= TIGHT * (1 + np.linalg.norm(w1, 2) * np.linalg.norm(w2, 2))
    for _ in range(200):
        J = w2 @ (generator.integers(0, 2, f)[:, None] * w1)
        assert np.linalg.norm(np.eye(d) + J, 2) <= norms.lipschitz * TIGHT
        assert np.linalg.norm(J, 2) <= norms.branch * TIGHT


def test_one_neuron_attains_and_an_opposing_one_is_seen():
    w1, w2 = np.array([[0.0, 3.0]]), np.array([[0.0], [2.0]])
    assert float(norms_of(w1, w2).lipschitz) == pytest.approx(7, rel=1e-7)
    # I - D on one axis: slopes 0..1 keep the norm at 1, where 1 + ||W_1|| ||W_2|| says 2.
    assert float(norms_of(np.eye(2), -np.eye(2)).lipschitz) == pytest.approx(1, rel=1e-7)


def test_badly_scaled_neurons_are_balanced_exactly():
    """Neuron i is w_i = 4^i e_i, column 4^-i e_i: the map is 1-Lipschitz beside the identity."""
    scales = 4.0 ** np.arange(5)
    norms = norms_of(np.diag(scales), np.diag(1 / scales))
    assert float(norms.branch) == pytest.approx(1, rel=1e-6)
    assert float(norms.lipschitz) == pytest.approx(2, rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_outputs_stay_in_the_ball(seed):
    generator = np.random.default_rng(seed)
    w1, w2 = generator.standard_normal((5, 3)), generator.standard_normal((3, 5))
    b1, b2 = generator.standard_normal(5) - 3 * (seed % 2), generator.standard_normal(3)
    norms = feed_forward_norms(layer_of(w1, w2, b1, b2))
    limit = float(upper(norms.output_limit(arb(1))))
    X = generator.standard_normal((3, 5000))
    X /= np.linalg.norm(X, axis=0)
    out = X + w2 @ np.maximum(w1 @ X + b1[:, None], 0) + b2[:, None]
    assert np.linalg.norm(out, axis=0).max() <= limit * TIGHT
    assert norms.lipschitz <= norms.published * Fraction(1 + 1e-6)


def test_neurons_that_never_fire_cost_no_radius():
    w1, w2 = np.eye(2), 5 * np.eye(2)
    norms = feed_forward_norms(layer_of(w1, w2, np.array([-2.0, -2.0]), np.zeros(2)))
    assert float(upper(norms.output_limit(arb(1)))) == pytest.approx(1, rel=1e-9)
    empty = feed_forward_norms(
        layer_of(np.zeros((0, 2)), np.zeros((2, 0)), np.zeros(0), np.ones(2))
    )
    assert empty.lipschitz == 1
    assert float(upper(empty.output_limit(arb(1)))) == pytest.approx(1 + 2**0.5, rel=1e-9)
