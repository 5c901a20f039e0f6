"""Slopes proved by ball arithmetic; feed-forward blocks against exact Jacobians."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from flint import arb, ctx

from promptlimits.lipschitz.balls.rounding import ball, upper
from promptlimits.lipschitz.paper.feedforward import (
    GELU,
    GELU_TANH,
    RELU,
    SILU,
    Slopes,
    branch_lipschitz,
    feed_forward_norms,
    gated_norms,
    residual_lipschitz,
)
from promptlimits.nets.paper.weights import HeadWeights, LayerWeights

TIGHT = 1 + 1e-6


def proved_below(function: Callable[[arb], arb], low: float, high: float, limit: Fraction) -> bool:
    """Whether function < limit on [low, high], by halving; ends are exact floats."""
    waiting = [(low, high)]
    for _ in range(100_000):
        if not waiting:
            return True
        a, b = waiting.pop()
        middle = (a + b) / 2
        if function(arb(middle, (b - a) / 2)) < ball(limit):
            continue
        waiting += [(a, middle), (middle, b)]
    return False


def test_gelu_slope_is_at_its_inflection() -> None:
    """g'' = (2 - x^2) phi(x): the maximum is Phi(2^(1/2)) + 2^(1/2) phi(2^(1/2))."""
    root = arb(2).sqrt()
    top = (1 + (root / arb(2).sqrt()).erf()) / 2 + root * (-arb(1)).exp() / (2 * arb.pi()).sqrt()
    assert top < ball(GELU.greatest)
    assert top > ball(GELU.greatest) - arb("1e-5")
    assert GELU.least == 1 - GELU.greatest


def test_silu_slope_is_where_x_tanh_half_x_is_two() -> None:
    """g'' = s'(2 - x tanh(x/2)): one root on x > 0, as x tanh(x/2) increases."""
    low, high = arb("2.39935728"), arb("2.39935729")
    assert low * (low / 2).tanh() < 2 < high * (high / 2).tanh()
    x = low.union(high)
    s = 1 / (1 + (-x).exp())
    top = s * (1 + x * (1 - s))
    assert top < ball(SILU.greatest)
    assert top > ball(SILU.greatest) - arb("2e-5")
    assert SILU.least == 1 - SILU.greatest


def test_gelu_tanh_slope_by_subdivision() -> None:
    """On [0, 8] by intervals; beyond, t > 1 - 1e-30 leaves the second term next to nothing."""

    def slope(x: arb) -> arb:
        k, c = (2 / arb.pi()).sqrt(), arb("0.044715")
        inner = k * (x + c * x**3)
        sech = 1 / inner.cosh()
        return (1 + inner.tanh()) / 2 + x * sech**2 * k * (1 + 3 * c * x**2) / 2

    with ctx.workprec(53):
        assert proved_below(slope, 0.0, 8.0, GELU_TANH.greatest)
        assert not slope(arb(1.4185)) < ball(GELU_TANH.greatest - Fraction(2, 10000))
    # x >= 8: inner >= k c x^3 >= x^2/4, sech^2 <= 4 exp(-x^2/2), all falling in x.
    x = arb(8)
    tail = x * 4 * (-(x**2) / 2).exp() * (1 + x**2)
    assert 1 + tail < ball(GELU_TANH.greatest)
    assert GELU_TANH.least == 1 - GELU_TANH.greatest


def layer_of(w1: np.ndarray, w2: np.ndarray, b1: np.ndarray, b2: np.ndarray) -> LayerWeights:
    d = w2.shape[0]
    head = HeadWeights(
        query=np.zeros((1, d)), key=np.zeros((1, d)), value=np.zeros((1, d)),
        output=np.zeros((d, 1)),
    )  # fmt: skip
    return LayerWeights(heads=(head,), w1=w1, b1=b1, w2=w2, b2=b2)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("slopes", [RELU, GELU, SILU])
def test_no_diagonal_of_slopes_exceeds_the_constant(seed: int, slopes: Slopes) -> None:
    generator = np.random.default_rng(seed)
    d, f = 4, int(generator.integers(1, 9))
    w1, w2 = generator.standard_normal((f, d)), generator.standard_normal((d, f))
    w1 *= np.exp(generator.standard_normal((f, 1)))
    limit = float(residual_lipschitz(w1, w2, slopes))
    branch = float(branch_lipschitz(w1, w2, slopes))
    assert limit <= TIGHT * (
        1 + float(slopes.greatest) * np.linalg.norm(w1, 2) * np.linalg.norm(w2, 2)
    )
    ends = np.array([float(slopes.least), float(slopes.greatest)])
    for _ in range(200):
        J = w2 @ (generator.choice(ends, f)[:, None] * w1)
        assert np.linalg.norm(np.eye(d) + J, 2) <= limit * TIGHT
        assert np.linalg.norm(J, 2) <= branch * TIGHT


def test_one_neuron_attains_and_an_opposing_one_is_seen() -> None:
    w1, w2 = np.array([[0.0, 3.0]]), np.array([[0.0], [2.0]])
    assert float(residual_lipschitz(w1, w2, RELU)) == pytest.approx(7, rel=1e-7)
    # I - D on one axis: slopes 0..1 keep the norm at 1, where 1 + ||W_1|| ||W_2|| says 2.
    opposed = float(residual_lipschitz(np.eye(2), -np.eye(2), RELU))
    assert opposed == pytest.approx(1, rel=1e-7)


def test_badly_scaled_neurons_are_balanced_exactly() -> None:
    """Neuron i is w_i = 4^i e_i, column 4^-i e_i: the map is 1-Lipschitz beside the identity."""
    scales = 4.0 ** np.arange(5)
    w1, w2 = np.diag(scales), np.diag(1 / scales)
    assert float(branch_lipschitz(w1, w2, RELU)) == pytest.approx(1, rel=1e-6)
    assert float(residual_lipschitz(w1, w2, RELU)) == pytest.approx(2, rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_outputs_stay_in_the_ball(seed: int) -> None:
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


def test_neurons_that_never_fire_cost_no_radius() -> None:
    w1, w2 = np.eye(2), 5 * np.eye(2)
    norms = feed_forward_norms(layer_of(w1, w2, np.array([-2.0, -2.0]), np.zeros(2)))
    assert float(upper(norms.output_limit(arb(1)))) == pytest.approx(1, rel=1e-9)
    empty = feed_forward_norms(
        layer_of(np.zeros((0, 2)), np.zeros((2, 0)), np.zeros(0), np.ones(2))
    )
    assert empty.lipschitz == 1
    assert float(upper(empty.output_limit(arb(1)))) == pytest.approx(1 + 2**0.5, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_gated_blocks_stay_under_their_constant_and_radius(seed: int) -> None:
    generator = np.random.default_rng(seed)
    gate, up = generator.standard_normal((2, 6, 3))
    down = generator.standard_normal((3, 6))
    norms = gated_norms(gate, up, down, radius=Fraction(2), slopes=SILU)
    for scale in (2.0, 1.9, 1.0):
        X = generator.standard_normal((200, 3))
        for x in scale * X / np.linalg.norm(X, axis=1, keepdims=True):
            g, u = gate @ x, up @ x
            s = 1 / (1 + np.exp(-g))
            value, slope = g * s, s * (1 + g * (1 - s))
            J = down @ ((u * slope)[:, None] * gate + value[:, None] * up)
            assert np.linalg.norm(J, 2) <= float(norms.lipschitz) * TIGHT
            assert np.linalg.norm(down @ (value * u)) <= float(norms.output) * TIGHT
    # One neuron, all aligned, far out: silu(g) u is nearly g u, whose slope is 2 r.
    one = np.array([[1.0]])
    far = gated_norms(one, one, one, radius=Fraction(100), slopes=SILU)
    assert 200 <= float(far.lipschitz) <= 211
    assert math.isclose(float(far.output), 1e4, rel_tol=1e-6)
