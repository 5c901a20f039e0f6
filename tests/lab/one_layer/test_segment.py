"""The segment: answers of actual prompts lie on it, within the part of their length."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from tests.reference.layers import attention_only
from tests.reference.layers import draw as drawn

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.lab.one_layer.realise import realise
from promptlimits.lab.one_layer.segment import segment
from promptlimits.lab.one_layer.setting import (
    SharedQuery,
    Statistics,
    attend,
    score_vectors,
    shared_query,
    statistics,
    value_maps,
)
from promptlimits.nets.paper.weights import HeadWeights


def draw(
    dim: int, heads: int, head_dim: int, seed: int, queries: int = 2
) -> tuple[SharedQuery, np.random.Generator]:
    setting, _, generator = drawn(dim, heads, head_dim, queries, seed, scale=1.5)
    return setting, generator


@pytest.mark.parametrize("head_dim", [4, 2])
def test_answers_of_prompts_lie_on_it_within_the_part_of_their_length(head_dim: int) -> None:
    several = 0
    for seed in range(100):
        setting, generator = draw(4, 1, head_dim, seed)
        length = int(generator.integers(1, 6))
        prompt = 10 ** generator.uniform(-1, 0.7) * generator.standard_normal((4, length))
        reached = attend(setting, prompt)
        found = segment(setting, reached[0])
        log_weight = float(statistics(setting, prompt).log_weight[0])
        mu = float(1 / (1 + np.exp(log_weight - found.log_second)))
        assert found.free == (head_dim == 2)
        assert found.point(mu) == pytest.approx(reached[1], abs=1e-9)
        assert found.log_weight(mu) == pytest.approx(log_weight, abs=1e-6)
        for tokens in (length, length + 3, None):
            parts = found.reached(tokens)
            assert any(left - 1e-9 <= mu <= right + 1e-9 for left, right in parts)
            several += len(parts) > 1
    assert several > 0 or head_dim == 2


def test_one_token_reaches_every_point_where_values_and_scores_are_independent() -> None:
    setting, generator = draw(5, 1, 3, 1)
    reached = attend(setting, generator.standard_normal((5, 2)))
    found = segment(setting, reached[0])
    assert found.reached(1) == ((0.0, 1.0),)
    for mu in (0.1, 0.5, 0.9):
        log_weight = found.log_weight(mu)
        # A from t_1: Z A = (Z_1 + Z) t_1 - Z_1 a_1.
        query = statistics(setting, setting.queries[0])
        ratio = np.exp(query.log_weight[0] - log_weight)
        mean = reached[0] + ratio * (reached[0] - query.mean[0])
        made = realise(setting, Statistics(mean=mean[None, :], log_weight=np.array([log_weight])))
        assert made.prompt.shape == (5, 1)
        both = attend(setting, made.prompt)
        assert both[0] == pytest.approx(reached[0], abs=1e-8)
        assert both[1] == pytest.approx(found.point(mu), abs=1e-8)


@pytest.mark.parametrize("big", [1.0, 250.0, 400.0, 720.0, 5000.0])
def test_large_scores_change_nothing(big: float) -> None:
    """Only differences of scores enter; here all are near `big`."""
    one = np.eye(3)
    head = HeadWeights(query=one, key=one, value=one, output=one)
    contexts = [np.array([big, 1.0, 0.0]), np.array([big + 0.5, 0.0, 1.0])]
    setting = shared_query(
        attention_only(head), one[0], contexts
    )  # a token's score is its first entry
    prompt = np.array([[big + 0.3, 0.5, 0.7], [big - 0.2, -1.0, 0.3]]).T
    reached = attend(setting, prompt)
    found = segment(setting, reached[0])
    log_weight = float(statistics(setting, prompt).log_weight[0])
    mu = float(1 / (1 + np.exp(log_weight - found.log_second)))
    assert found.point(mu) == pytest.approx(reached[1], abs=1e-11 * big)
    for tokens in (2, 5, None):
        assert any(left - 1e-9 <= mu <= right + 1e-9 for left, right in found.reached(tokens))
    single = attend(setting, prompt[:, :1])
    alone = segment(setting, single[0])
    expected = float(1 / (1 + np.exp(prompt[0, 0] - alone.log_second)))
    assert any(abs(left - expected) < 1e-9 for left, _ in alone.reached(1))


def test_a_query_that_outweighs_the_other_beyond_floats_is_refused() -> None:
    setting, _ = draw(4, 1, 4, 0)
    score = score_vectors(setting)[0]
    heavy = shared_query(
        setting.layer, setting.token, [1e3 * score / (score @ score), setting.queries[1][:, 0]]
    )
    with pytest.raises(RunFailed, match="beyond the range of floats"):
        segment(heavy, attend(heavy, np.ones((4, 1)))[0])
    light = shared_query(heavy.layer, heavy.token, [q[:, 0] for q in reversed(heavy.queries)])
    assert np.isfinite(segment(light, attend(light, np.ones((4, 1)))[0]).end).all()


def test_parts_grow_with_the_length() -> None:
    for seed in range(20):
        setting, generator = draw(4, 1, 4, seed)
        found = segment(setting, attend(setting, generator.standard_normal((4, 2)))[0])
        sizes = [
            sum(right - left for left, right in found.reached(tokens))
            for tokens in (1, 2, 8, 64, 10**9, 10**400, None)
        ]
        assert sizes[0] == 0
        assert all(a <= b + 1e-12 for a, b in itertools.pairwise(sizes))
        assert sizes[-1] <= 1


def test_nothing_more_is_reached_than_entropy_allows() -> None:
    """Gibbs' condition straight from q = V^-1 A, on a grid of the segment."""
    inside = outside = 0
    for seed in range(30):
        setting, generator = draw(4, 1, 4, seed)
        found = segment(setting, attend(setting, generator.standard_normal((4, 2)))[0])
        query = statistics(setting, setting.queries[0])
        value, score = value_maps(setting.layer)[0], score_vectors(setting)[0]
        for mu in np.linspace(0.01, 0.99, 50):
            log_weight = found.log_weight(mu)
            ratio = np.exp(query.log_weight[0] - log_weight)
            mean = found.first + ratio * (found.first - query.mean[0])
            mean_score = float(score @ np.linalg.solve(value, mean))
            if min(abs(log_weight - mean_score), abs(log_weight - mean_score - np.log(3))) < 1e-6:
                continue
            allowed = log_weight - np.log(3) <= mean_score < log_weight
            assert allowed == any(left <= mu <= right for left, right in found.reached(3))
            inside, outside = inside + allowed, outside + (not allowed)
    assert min(inside, outside) > 50


def test_bad_input() -> None:
    setting, generator = draw(5, 1, 3, 0)
    with pytest.raises(UserError, match="range of V"):
        segment(setting, generator.standard_normal(5))
    with pytest.raises(UserError, match="two"):
        segment(draw(5, 1, 3, 0, queries=3)[0], np.zeros(5))
    with pytest.raises(UserError, match="one head"):
        segment(draw(5, 2, 2, 0)[0], np.zeros(5))
    turned = SharedQuery(
        layer=draw(4, 1, 4, 0)[0].layer, queries=draw(4, 1, 4, 0)[0].queries, rotary_base=10.0
    )
    with pytest.raises(ValueError, match="plain"):
        segment(turned, np.zeros(4))
    with pytest.raises(UserError, match="prompt_tokens"):
        segment(setting, attend(setting, np.ones((5, 1)))[0]).reached(0)
