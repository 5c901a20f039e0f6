"""D*: closed forms, laws, and that it is the edge of what is proved."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from tests.lipschitz.invertibility_cases import linear_layer, random_case, stack

from promptlimits.base.errors import UserError
from promptlimits.lipschitz.paper import prompt_norm_limit as module
from promptlimits.lipschitz.paper.feedforward import layer_norms
from promptlimits.lipschitz.paper.head_norms import HeadNorms
from promptlimits.lipschitz.paper.invertibility import certify_invertible
from promptlimits.lipschitz.paper.prompt_norm_limit import (
    prompt_norm_limit,
    spectral_prompt_norm_limit,
)


def test_closed_form_of_one_head():
    value, score = 0.3, 0.7
    found = prompt_norm_limit(stack(linear_layer(value * np.eye(3), score))).value
    # v (b + (1 + b^2)^(1/2)) = 1 at b = (1/v - v)/2.
    expected = math.sqrt((1 / value - value) / 2 / score)
    assert found is not None
    assert float(found) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(("masked", "share"), [(False, 1), (True, 2)])
def test_closed_form_of_the_spectral_norm(masked, share):
    value, score, tokens = 0.3, 0.7, 5
    weights = stack(linear_layer(value * np.eye(3), score), masked=masked)
    found = spectral_prompt_norm_limit(weights, tokens=tokens).value
    expected = math.sqrt((1 / value - share) / (score * (1 + math.sqrt(3) / 2)))
    assert found is not None
    assert float(found) == pytest.approx(expected, rel=1e-7)
    assert float(found) <= expected


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("layers", [1, 2])
def test_it_is_the_edge_of_what_is_proved(seed, layers):
    weights = random_case(seed, layers=layers, scale=0.25)
    found = prompt_norm_limit(weights).value
    assert found is not None
    assert found > 0
    assert certify_invertible(weights, radius=found).one_to_one
    assert not certify_invertible(weights, radius=found * Fraction(10001, 10000)).one_to_one


def test_it_falls_as_weights_grow_and_scales_with_the_scores():
    limits = [
        prompt_norm_limit(random_case(1, layers=1, scale=s)).value or 0 for s in (0.1, 0.25, 0.4)
    ]
    assert limits == sorted(limits, reverse=True)
    assert len(set(limits)) == 3
    layer = linear_layer(0.4 * np.eye(2), 1.0)
    head = replace(layer.heads[0], query=4 * layer.heads[0].query)
    plain = prompt_norm_limit(stack(layer)).value
    steep = prompt_norm_limit(stack(replace(layer, heads=(head,)))).value
    assert plain == pytest.approx(2 * (steep or 0), rel=1e-7)


def test_a_transformer_that_is_one_to_one_at_every_norm_or_at_none():
    assert prompt_norm_limit(stack(linear_layer(0.5 * np.eye(2)))).value is None
    assert spectral_prompt_norm_limit(stack(linear_layer(0.5 * np.eye(2))), tokens=3).value is None
    assert prompt_norm_limit(stack(linear_layer(-np.eye(2)))).value == 0
    assert spectral_prompt_norm_limit(stack(linear_layer(-np.eye(2))), tokens=3).value == 0


def test_tiny_scores_give_a_huge_limit():
    found = prompt_norm_limit(stack(linear_layer(0.5 * np.eye(2), 1e-200))).value
    assert found is not None
    assert float(found) == pytest.approx(math.sqrt(0.75) * 1e100, rel=1e-6)


def test_large_layers_use_their_mixing_limits_again(monkeypatch):
    """Some percent below the fine D*, never above it, with a fifth of the work or less."""
    weights = random_case(0, layers=2, scale=0.25)
    counted = []
    plain = HeadNorms.mixing

    def mixing(self, costs):
        counted.append(1)
        return plain(self, costs)

    monkeypatch.setattr(HeadNorms, "mixing", mixing)
    fine = prompt_norm_limit(weights).value
    many = len(counted)
    monkeypatch.setattr(module, "_LARGE", 1)
    coarse = prompt_norm_limit(weights, norms=layer_norms(weights)).value
    assert fine is not None
    assert coarse is not None
    assert fine * Fraction(9, 10) < coarse <= fine
    assert certify_invertible(weights, radius=coarse).one_to_one
    assert 2 * (len(counted) - many) < many < 150


def test_bad_input():
    with pytest.raises(UserError, match="one layer"):
        spectral_prompt_norm_limit(random_case(0), tokens=3)
    with pytest.raises(UserError, match="tokens"):
        spectral_prompt_norm_limit(random_case(0, layers=1), tokens=0)
    with pytest.raises(UserError, match="tokens"):
        prompt_norm_limit(random_case(0), norm="frobenius")
