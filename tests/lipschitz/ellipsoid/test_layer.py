"""The ellipsoid bound: sound against Jacobians, its laws, closed forms and edge cases."""

import dataclasses
import functools
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from tests.reference.ellipsoid_twin import (
    forward,
    jacobian,
    token_points,
    twin_log_bound,
)
from tests.reference.layers import attention_only, rotated

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.lipschitz.ellipsoid.certificate import (
    certify_choices,
    ellipsoid_bound,
)
from promptlimits.lipschitz.ellipsoid.layer import LayerChoice, StepChoice, pass_layer, start
from promptlimits.lipschitz.ellipsoid.search import search_choices
from promptlimits.lipschitz.paper.compose import composed_bound
from promptlimits.nets.paper.weights import (
    HeadWeights,
    TransformerWeights,
    random_weights,
)

CASES = {
    "one layer": {"layers": 1},
    "two layers": {"layers": 2},
    "masked": {"layers": 2, "masked": True},
    "biases": {"layers": 2, "biases": True},
    "no MLP": {"layers": 2, "hidden": 0},
    "flat heads": {"layers": 2, "heads": 1, "head_dim": 1},
    "one number a token": {"layers": 2, "dim": 1, "head_dim": 1},
    "large scores": {"layers": 1, "scale": 2.5},
    "four layers": {"layers": 4, "dim": 3, "hidden": 5},
}
TOKENS = 4


@functools.cache
def model(case, seed=0):
    shape = {"dim": 4, "heads": 2, "head_dim": 2, "hidden": 6, "masked": False}
    return random_weights(**(shape | CASES[case]), generator=np.random.default_rng(seed))


@functools.cache
def bound(case, prompt_only=False):
    return ellipsoid_bound(model(case), radius=1, prompt_only=prompt_only, effort="quick")


def token_norm(block, generator):
    """A lower limit on the token norm of a Jacobian (d, n, d, p), by alternating directions."""
    best = 0.0
    for row in range(block.shape[1]):
        linear = block[:, row]  # (d, d, p)
        for _ in range(3):
            out = generator.standard_normal(block.shape[0])
            for _ in range(8):
                out = out / np.linalg.norm(out)
                pulled = np.einsum("a,abp->bp", out, linear)
                norms = np.linalg.norm(pulled, axis=0)
                out = np.einsum("abp,bp->a", linear, pulled / np.where(norms > 0, norms, 1))
            best = max(best, float(norms.sum()))
    return best


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("prompt_only", [False, True])
def test_no_jacobian_exceeds_the_bound(case, prompt_only):
    generator = np.random.default_rng(1)
    limit = math.exp(bound(case, prompt_only).bound.upper_nats())
    weights = model(case)
    for point in token_points(weights.dim, TOKENS, generator):
        whole = jacobian(weights, point)
        block = whole[:, 2:, :, :2] if prompt_only else whole
        assert token_norm(block, generator) <= limit


@pytest.mark.parametrize("case", CASES)
def test_climbing_the_jacobian_norm_stays_under_the_bound(case):
    """Random steps uphill from the best of a few points, tokens kept in the ball."""
    generator = np.random.default_rng(2)
    weights, limit = model(case), math.exp(bound(case).bound.upper_nats())
    point = next(iter(token_points(weights.dim, TOKENS, generator)))
    best = token_norm(jacobian(weights, point), generator)
    for step in range(15):
        other = point + generator.standard_normal(point.shape) * 0.5 / (1 + step / 10)
        other /= np.maximum(np.linalg.norm(other, axis=0), 1)
        if (value := token_norm(jacobian(weights, other), generator)) > best:
            best, point = value, other
    assert best <= limit


@pytest.mark.parametrize("case", CASES)
def test_tokens_stay_in_their_ellipsoids(case):
    """Every token after l layers is within the proved radius, and finite moves obey the bound."""
    generator = np.random.default_rng(3)
    weights, found = model(case), bound(case)
    limit = math.exp(found.bound.upper_nats())
    points = list(token_points(weights.dim, TOKENS, generator))
    for point, other in itertools.pairwise(points):
        moved = np.linalg.norm(forward(weights, point) - forward(weights, other), axis=0).max()
        assert moved <= limit * np.linalg.norm(point - other, axis=0).max() * (1 + 1e-12)
        for depth in range(len(weights.layers)):
            part = dataclasses.replace(weights, layers=weights.layers[:depth]) if depth else None
            inner = point if part is None else forward(part, point)
            assert np.linalg.norm(inner, axis=0).max() <= float(found.radii[depth]) * (1 + 1e-12)


@pytest.mark.parametrize("case", ["two layers", "biases", "no MLP", "flat heads"])
@pytest.mark.parametrize("prompt_only", [False, True])
def test_the_proved_bound_is_the_formula_and_on_its_upper_side(case, prompt_only):
    found = search_choices(model(case), radius=1.0, prompt_only=prompt_only, effort="quick")
    proved = certify_choices(
        model(case), radius=1, prompt_only=prompt_only, choices=found.choices
    ).bound.upper_nats()
    twin = twin_log_bound(model(case), 1, found.choices, prompt_only=prompt_only)
    assert twin <= proved
    assert proved == pytest.approx(twin, abs=1e-6)
    assert found.estimate_log == pytest.approx(twin, abs=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_never_worse_than_balls(case):
    balls = composed_bound(model(case), radius=1, method="token", tokens=None)
    assert bound(case).bound.upper_nats() <= balls.bound.upper_nats()


def test_grows_with_the_radius():
    weights = model("one layer")
    found = [
        ellipsoid_bound(weights, radius=radius, effort="quick").bound.upper_nats()
        for radius in (Fraction(1, 10), Fraction(1, 2), 1, 3)
    ]
    assert found == sorted(found)


def test_turning_the_coordinates_changes_nothing():
    weights = model("two layers")
    turn, _ = np.linalg.qr(np.random.default_rng(4).standard_normal((4, 4)))
    layers = tuple(rotated(layer, turn) for layer in weights.layers)
    found = ellipsoid_bound(
        TransformerWeights(layers=layers, masked=False), radius=1, effort="quick"
    )
    assert found.bound.upper_nats() == pytest.approx(
        bound("two layers").bound.upper_nats(), abs=1e-4
    )


def one_number(query_key, value):
    """One head on tokens of one number, without MLP."""
    head = HeadWeights(
        query=np.array([[query_key]]),
        key=np.array([[1.0]]),
        value=np.array([[value]]),
        output=np.array([[1.0]]),
    )
    return TransformerWeights(layers=(attention_only(head),), masked=False)


def test_without_scores_attention_is_a_mean_and_the_bound_exact():
    """A = 0: x_i + w mean(x) has constant 1 + |w|."""
    found = ellipsoid_bound(one_number(0.0, 3.0), radius=1)
    assert found.bound.upper_nats() == pytest.approx(math.log(4), abs=1e-3)
    assert found.bound.upper_nats() >= math.log(4)


def test_one_number_in_closed_form():
    """d = 1, A = a, W = w, r = 1: 1 + |w a| + |w| sqrt(1 + a^2), for w a >= 0.

    K = 1 + w a/2 and the reflected part is at most |w a|/2.
    """
    found = ellipsoid_bound(one_number(0.75, 2.0), radius=1).bound.upper_nats()
    exact = math.log(1 + 1.5 + 2 * 1.25)
    assert exact <= found <= exact + 1e-3


def test_the_prompt_alone_in_closed_form():
    """What the query's own token adds is gone: |w| sqrt(1 + a^2)."""
    found = ellipsoid_bound(one_number(0.75, 2.0), radius=1, prompt_only=True).bound.upper_nats()
    exact = math.log(2 * 1.25)
    assert exact <= found <= exact + 1e-2


def test_opposite_signs_cancel():
    """W A = -a w < 0: residual and covariance term partly cancel, |1 - C w a| <= 1."""
    found = ellipsoid_bound(one_number(0.75, -1.0), radius=1).bound.upper_nats()
    exact = math.log(1 + 1.25)
    assert exact <= found <= exact + 1e-3


def choice(**changes):
    step = StepChoice(own=0.5, heads=(0.25,), turns=(0.1,), reaches=())
    return LayerChoice(
        tokens=dataclasses.replace(step, turns=()),
        change=dataclasses.replace(step, **changes),
        query=None,
    )


def test_weights_may_not_exceed_one():
    layer = one_number(0.75, 2.0).layers[0]
    known = start(1, Fraction(1), prompt_only=False)
    with pytest.raises(ValueError, match="at most 1"):
        pass_layer(layer, known, choice(own=0.9))
    with pytest.raises(ValueError, match="positive weight"):
        pass_layer(layer, known, choice(own=0.0))
    with pytest.raises(RunFailed, match="indefinite"):
        pass_layer(layer, known, choice(turns=(1e6,)))
    assert float(pass_layer(layer, known, choice()).change[0, 0]) > 0


@pytest.mark.parametrize("radius", [0, -1, 0.5, True])
def test_a_radius_is_exact_and_above_0(radius):
    with pytest.raises(UserError, match="radius must be an exact number above 0"):
        ellipsoid_bound(model("one layer"), radius=radius)


def test_bad_requests():
    with pytest.raises(UserError, match="effort must be one of"):
        ellipsoid_bound(model("one layer"), radius=1, effort="some")
    with pytest.raises(UserError, match="one for each layer"):
        certify_choices(model("one layer"), radius=1, prompt_only=False, choices=())
    for radius in (10**200, 10**400):
        with pytest.raises(RunFailed, match="overflow"):
            ellipsoid_bound(model("one layer"), radius=radius)
