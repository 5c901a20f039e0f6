"""One head of full rank: entropy closes the bracket, for every length and for each."""

from dataclasses import replace

import numpy as np
import pytest
from tests.reference.layers import draw as drawn

from promptlimits.base.errors import UserError
from promptlimits.lab.one_layer.oracle.certificate import certify_oracle
from promptlimits.lab.one_layer.oracle.inputs import exact_inputs
from promptlimits.lab.one_layer.oracle.length import best_of_length, bound_by_entropy, slab_of
from promptlimits.lab.one_layer.oracle.value import certify_value, oracle_value
from promptlimits.lab.one_layer.realise import train_prompt
from promptlimits.lab.one_layer.setting import (
    query_statistics,
    score_vectors,
    shared_query,
    statistics,
    value_maps,
)
from promptlimits.nets.paper.weights import random_weights

SHAPES = [(4, 3, 2), (4, 2, 0), (6, 3, 1), (3, 4, 5), (8, 3, 3), (2, 2, 7)]
"""Width, queries, seed."""


def draw(dim, queries, seed, head_dim=None):
    setting, targets, generator = drawn(
        dim, 1, head_dim or dim, queries, dim, queries, seed, scale=1.5
    )
    return setting, 2 * targets, generator


def twin(setting, targets, tokens):
    """The least error by the formula of the papers: project on the slab, for each v of a grid."""
    own = query_statistics(setting)
    value, score = value_maps(setting.layer)[0], score_vectors(setting)[0]
    eta = np.linalg.solve(value.T, score)
    least = np.inf
    for log_weight in np.linspace(-25, 60, 17001):
        share = 1 / (1 + np.exp(log_weight - own.log_weight[:, 0]))
        rest = 1 / (1 + np.exp(own.log_weight[:, 0] - log_weight))  # 1 - share loses digits
        wanted = targets - share[:, None] * own.mean[:, 0]
        mean = (rest @ wanted) / (rest @ rest)
        top = log_weight
        bottom = -np.inf if tokens is None else log_weight - np.log(tokens)
        mean = mean + (np.clip(eta @ mean, bottom, top) - eta @ mean) / (eta @ eta) * eta
        least = min(least, float(((wanted - rest[:, None] * mean) ** 2).sum()))
    return least


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tokens", [None, 1, 2, 4, 16])
def test_the_bracket_closes(shape, tokens):
    setting, targets, _ = draw(*shape)
    best = best_of_length(setting, targets, tokens=tokens)
    found = best.found if best.achieved is None else best.achieved
    proof = certify_oracle(setting, targets, found=found, aim_squares=best.found, tokens=tokens)
    assert proof.arithmetic == "arb"
    assert float(proof.lower) <= found * (1 + 1e-12)
    assert proof.gap < 1e-5
    other = twin(setting, targets, tokens)
    assert float(proof.lower) <= other * (1 + 1e-12)
    assert float(proof.lower) >= other * (1 - 1e-4)


def test_entropy_is_what_closes_it():
    setting, targets, _ = draw(*SHAPES[1])
    limits = [
        float(
            certify_oracle(
                setting, targets, found=1e3, aim_squares=60, tokens=m, most_boxes=400
            ).lower
        )
        for m in (None, 64, 8, 2, 1)
    ]
    assert limits == sorted(limits)
    assert limits[-1] > 1.15 * limits[0]


@pytest.mark.parametrize("shape", SHAPES[:4])
@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_no_trained_prompt_is_below(shape, tokens):
    setting, targets, generator = draw(*shape)
    trained = train_prompt(setting, targets, tokens, generator, starts=5, steps=100)
    proof = certify_oracle(setting, targets, found=trained.squares, tokens=tokens)
    assert trained.squares >= float(proof.lower) * (1 - 1e-12)


@pytest.mark.parametrize("scale", [1e-3, 0.3, 1.0, 3.0, 30.0])
def test_no_random_prompt_leaves_the_slab_or_goes_below(scale):
    setting, targets, generator = draw(3, 2, 11)
    slab = slab_of(setting, exact_inputs(setting, targets), None)
    value, score = value_maps(setting.layer)[0], score_vectors(setting)[0]
    eta = np.linalg.solve(value.T, score)
    assert float(slab.size) == pytest.approx(eta @ eta)
    for tokens in (1, 2, 5):
        prompt = scale * generator.standard_normal((3, tokens))
        summed = statistics(setting, prompt)
        entropy = float(summed.log_weight[0] - eta @ summed.mean[0])
        assert -1e-9 * (1 + scale) <= entropy <= np.log(tokens) + 1e-9 * (1 + scale)


def test_a_far_optimum_is_found_and_proved():
    """One token with a score of 170 is best here, beyond any grid about 0."""
    generator = np.random.default_rng(2)
    layer = random_weights(
        dim=4, heads=1, head_dim=4, hidden=0, layers=1, generator=generator, masked=False
    ).layers[0]
    draws = np.random.default_rng([0, 3, 4])
    tokens = draws.standard_normal((4, 4))
    setting = shared_query(layer, tokens[0], list(tokens[1:]))
    targets = draws.standard_normal((3, 4))
    best = best_of_length(setting, targets, tokens=1)
    assert best.log_weight > 100
    assert best.achieved == pytest.approx(best.found, rel=1e-9)
    value = oracle_value(setting, targets, generator=draws)
    assert value.prompt is not None
    assert value.attained
    assert certify_value(setting, targets, value).gap < 1e-5


@pytest.mark.parametrize("size", [100.0, 1000.0, 1e4])
@pytest.mark.parametrize("tokens", [1, 3])
def test_one_token_of_an_enormous_score_is_found(size, tokens):
    """Targets far away and alike: the best token scores hundreds of thousands, v is 0."""
    generator = np.random.default_rng(3)
    layer = random_weights(
        dim=3, heads=1, head_dim=3, hidden=0, layers=1, generator=generator, masked=False
    ).layers[0]
    drawn = generator.standard_normal((4, 3))
    setting = shared_query(layer, drawn[0], list(drawn[1:]))
    for sign in (1.0, -1.0):
        targets = sign * size * (1 + 0.1 * generator.standard_normal((3, 3)))
        best = best_of_length(setting, targets, tokens=tokens)
        assert best.achieved is not None
        proof = certify_oracle(setting, targets, found=best.achieved, tokens=tokens)
        assert float(proof.lower) <= best.achieved * (1 + 1e-12)
        whole = best_of_length(setting, targets)
        assert whole.found <= best.found * (1 + 1e-9)
        score = score_vectors(setting)[0] @ np.linalg.solve(
            value_maps(layer)[0], targets.mean(axis=0)
        )
        if score > 800:
            alone = float(((targets - targets.mean(axis=0)) ** 2).sum())
            assert best.achieved == pytest.approx(alone, rel=1e-9)
            assert proof.gap < 1e-5


def test_the_least_of_all_lengths_may_need_ever_longer_prompts():
    """Then what is proved is the infimum, and every prompt shown is above it."""
    setting, targets, generator = draw(*SHAPES[3])
    value = oracle_value(setting, targets, generator=generator)
    proof = certify_value(setting, targets, value)
    least = best_of_length(setting, targets).found
    assert float(proof.lower) == pytest.approx(least, rel=1e-5)
    errors = [best_of_length(setting, targets, tokens=m).achieved or 0.0 for m in (1, 4, 64, 4096)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] > least
    assert value.found == pytest.approx(errors[2], rel=1e-6)
    assert not value.attained


def test_who_is_bound():
    setting, targets, _ = draw(4, 2, 0)
    assert bound_by_entropy(setting)
    free, _, _ = draw(4, 2, 0, head_dim=2)
    assert not bound_by_entropy(free)
    assert slab_of(free, exact_inputs(free, targets), None) is None
    turned = replace(setting, rotary_base=100.0)
    assert not bound_by_entropy(turned)
    head = setting.layer.heads[0]
    silent = replace(setting.layer, heads=(replace(head, query=np.zeros((4, 4))),))
    assert not bound_by_entropy(replace(setting, layer=silent))


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_weights_beyond_use_are_one_line(scale):
    setting, targets, _ = draw(3, 2, 11)
    with pytest.raises(UserError, match="from 1e-100 to 1e100"):
        certify_oracle(setting, targets, found=1.0, scale=np.full(2, scale))
