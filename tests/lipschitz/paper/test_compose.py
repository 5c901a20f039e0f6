"""Composed bounds: they cover the composed map and its radii, and obey their laws."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from tests.reference.layers import attention_only
from tests.reference.lipschitz_twin import (
    attention_output,
    frobenius_operator_norm,
    jacobian,
    mlp_output,
    token_clouds,
    token_operator_norm,
    transformer_output,
)

from promptlimits.base.errors import UserError
from promptlimits.lipschitz.paper.attention import THEOREMS
from promptlimits.lipschitz.paper.compose import (
    METHODS,
    PROMPT_ONLY,
    SAME_RADIUS,
    composed_bound,
    tightest_bound,
)
from promptlimits.lipschitz.paper.feedforward import layer_norms, token_radii
from promptlimits.nets.paper.weights import TransformerWeights, random_weights

TIGHT = 1 + 1e-6


def random(seed, layers=2, masked=False, scale=0.8, dim=4):
    return random_weights(
        dim=dim,
        heads=2,
        head_dim=2,
        hidden=6,
        layers=layers,
        generator=np.random.default_rng(seed),
        masked=masked,
        scale=scale,
        biases=True,
    )


def value(found):
    return math.exp(found.bound.upper_nats())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("seed", "layers"), [(0, 1), (1, 1), (2, 2), (3, 3)])
def test_no_jacobian_of_a_transformer_exceeds_a_bound(seed, layers, masked):
    """n = 5 tokens, the last two of them the query; the exact Jacobian at every kind of point."""
    weights, generator = random(seed, layers, masked), np.random.default_rng(seed)
    limits = {
        method: value(composed_bound(weights, radius=1, method=method, tokens=5, queries=2))
        for method in ("token", "token-prompt", "frobenius")
    }
    whole = value(composed_bound(weights, radius=1, method="frobenius", tokens=5))
    castin = value(composed_bound(weights, radius=1, method="published-frobenius", tokens=5))
    for name, X in token_clouds(4, 5, 1.0, generator).items():
        J = jacobian(lambda Z: transformer_output(Z, weights), X)
        assert token_operator_norm(J, generator) <= limits["token"] * TIGHT, name
        prompt = token_operator_norm(J[:, 3:, :, :3], generator)
        assert prompt <= limits["token-prompt"] * TIGHT, name
        assert frobenius_operator_norm(J[:, 3:]) <= limits["frobenius"] * TIGHT, name
        assert frobenius_operator_norm(J) <= whole * TIGHT <= castin * TIGHT**2, name


@pytest.mark.parametrize("seed", range(3))
def test_tokens_stay_within_the_proved_radii(seed):
    weights, generator = random(seed, layers=3), np.random.default_rng(seed)
    radii = token_radii(layer_norms(weights), 2)
    assert radii[0] == 2
    assert composed_bound(weights, radius=2, method="token").radii == radii[:-1]
    for X in token_clouds(4, 6, 2.0, generator).values():
        for layer, radius in zip(weights.layers, radii[1:], strict=True):
            X = mlp_output(X + attention_output(X, layer.heads, False), layer)
            assert np.linalg.norm(X, axis=0).max() <= float(radius) * TIGHT


def test_identical_tokens_leave_at_the_radius_when_nothing_rotates():
    """W_v = I, no MLP: x goes to 2x, so radii double, exactly attained."""
    weights = random(0, layers=2)
    eye = np.eye(4)
    heads = [replace(layer.heads[0], value=eye, output=eye) for layer in weights.layers]
    layers = tuple(attention_only(head) for head in heads)
    radii = token_radii(layer_norms(TransformerWeights(layers=layers, masked=False)), 1)
    assert [float(r) for r in radii] == pytest.approx([1, 2, 4], rel=1e-6)
    assert radii[1] >= 2
    assert radii[2] >= 4


@pytest.mark.parametrize("method", METHODS)
def test_every_bound_grows_with_the_radius(method):
    weights = random(5)
    found = [
        composed_bound(weights, radius=Fraction(k, 3), method=method, tokens=4) for k in (1, 2, 5)
    ]
    logs = [item.bound.log for item in found]
    assert logs == sorted(logs)
    assert len({item.norm for item in found}) == 1


@pytest.mark.parametrize("method", ["token", "frobenius", "meanfield", "published-frobenius"])
def test_layers_multiply(method):
    found = composed_bound(random(6, layers=3), radius=1, method=method, tokens=4)
    total = sum(layer.upper_nats() for layer in found.layers)
    assert found.bound.upper_nats() == pytest.approx(total, abs=1e-9)
    assert found.bound.upper_nats() >= max(layer.upper_nats() for layer in found.layers)


def test_the_prompt_alone_costs_less_and_one_layer_has_no_residual():
    """One layer without scores or MLP: outputs of fixed queries move by the mean's share only."""
    for layers in (1, 2, 3):
        weights = random(7, layers)
        both = composed_bound(weights, radius=1, method="token")
        prompt = composed_bound(weights, radius=1, method="token-prompt")
        assert prompt.bound.log < both.bound.log
        assert PROMPT_ONLY in prompt.assumptions
        masked = replace(weights, masked=True)
        assert composed_bound(masked, radius=1, method="token-prompt").bound == prompt.bound


def test_prompt_sensitivity_by_hand():
    """p' = a p + b p, q' = a q + b p with a = Lambda (1 + kappa), b = Lambda M, per layer."""
    weights = random(8, layers=2)
    token = [math.exp(x.upper_nats()) for x in _layers(weights, "token")]
    first, second = (math.exp(x.upper_nats()) for x in _layers(weights, "token-prompt"))
    entering = token_radii(layer_norms(weights), 1)[1]
    alone = TransformerWeights(layers=weights.layers[1:], masked=False)
    mixing = math.exp(
        composed_bound(alone, radius=entering, method="token-prompt").bound.upper_nats()
    )
    own = token[1] - mixing
    assert second == pytest.approx(own * first + mixing * token[0], rel=1e-6)


def _layers(weights, method):
    return composed_bound(weights, radius=1, method=method).layers


def test_reading_fewer_columns_costs_less_in_the_last_layer_only():
    weights = random(9, layers=2)
    whole = composed_bound(weights, radius=1, method="frobenius", tokens=9)
    read = composed_bound(weights, radius=1, method="frobenius", tokens=9, queries=1)
    token = composed_bound(weights, radius=1, method="token")
    assert read.layers[0].log == whole.layers[0].log
    assert read.layers[1].log == token.layers[1].log < whole.layers[1].log


def test_the_tightest_is_the_least_of_its_norm():
    weights = random(10)
    for norm in ("token", "frobenius", "W_q"):
        best = tightest_bound(weights, radius=1, norm=norm, tokens=4, prompt_only=True)
        for method in METHODS:
            if THEOREMS[method].norm == norm:
                other = composed_bound(weights, radius=1, method=method, tokens=4)
                assert best.bound.log <= other.bound.log
    plain = tightest_bound(weights, radius=1, norm="token")
    assert plain.method == "token"


def test_one_radius_for_all_layers_is_exceeded():
    """E5: without MLP, x -> x + c x grows; the sharp layer two is steeper than at radius 1."""
    weights = random(11, layers=3)
    for method in ("published-frobenius", "published-meanfield"):
        used = composed_bound(weights, radius=1, method=method, tokens=4, same_radius=True)
        sound = composed_bound(weights, radius=1, method=method, tokens=4)
        assert SAME_RADIUS in used.assumptions
        assert SAME_RADIUS in used.bound.assumptions
        assert set(used.radii) == {Fraction(1)}
        assert used.bound.log < sound.bound.log


def test_a_constant_map_has_a_bound_of_almost_nothing():
    weights = random(12, layers=1)
    [layer] = weights.layers
    silent = replace(layer, heads=tuple(replace(h, value=0 * h.value) for h in layer.heads))
    zero = TransformerWeights(layers=(silent,), masked=False)
    found = composed_bound(zero, radius=1, method="token-prompt")
    assert found.bound.upper_log10() < -300


def test_bounds_beyond_every_float_are_finite():
    weights = random(13, layers=4, scale=4.0)
    found = composed_bound(weights, radius=100, method="meanfield")
    assert found.bound.upper_log10() > 1e6


def test_bad_requests_name_the_remedy():
    weights = random(0)
    masked = replace(weights, masked=True)
    with pytest.raises(UserError, match="the method must be one of"):
        composed_bound(weights, radius=1, method="best")
    with pytest.raises(UserError, match="tokens must be a whole number"):
        composed_bound(weights, radius=1, method="frobenius")
    with pytest.raises(UserError, match="queries must be at most 4"):
        composed_bound(weights, radius=1, method="frobenius", tokens=4, queries=5)
    with pytest.raises(UserError, match="without a mask"):
        composed_bound(masked, radius=1, method="published-meanfield")
    with pytest.raises(UserError, match="the norm must be one of"):
        tightest_bound(weights, radius=1, norm="sup")
    with pytest.raises(UserError, match="the radius must be an exact number"):
        composed_bound(weights, radius=0.5, method="token")
