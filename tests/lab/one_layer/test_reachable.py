"""The dimension of what prompts reach: the formula, the Jacobian's rank, and exact ranks.

The segment: answers of actual prompts lie on it, within the part of their length.
"""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from tests.reference.layers import attention_only
from tests.reference.layers import draw as drawn

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.lab.one_layer.reachable import exact_rank, jacobian, reach, segment, value_ranks
from promptlimits.lab.one_layer.realise import realise
from promptlimits.lab.one_layer.setting import (
    Front,
    SharedQuery,
    Statistics,
    attend,
    score_vectors,
    shared_query,
    statistics,
    value_maps,
)
from promptlimits.nets.paper.weights import HeadWeights

# (d, h, s): widths, heads and head sizes; ranks that add up to less, as much and more than d.
LAYERS = [
    (4, 1, 4),
    (4, 1, 2),
    (4, 2, 2),
    (6, 2, 3),
    (6, 2, 6),
    (8, 3, 2),
    (8, 2, 4),
    (5, 1, 5),
    (16, 4, 4),
    (7, 3, 3),
    (12, 3, 4),
]


def jacobian_rank(setting, prompt):
    values = np.linalg.svd(jacobian(setting, prompt), compute_uv=False)
    return int((values > 1e-9 * values[0]).sum())


def draw(dim, heads, head_dim, queries, seed):
    setting, _, generator = drawn(dim, heads, head_dim, queries, seed, hidden=8, scale=1.5)
    return setting, generator


@pytest.mark.parametrize(("dim", "heads", "head_dim"), LAYERS)
@pytest.mark.parametrize("queries", [1, 2, 3, 4])
def test_the_rank_of_the_jacobian_is_the_formula(dim, heads, head_dim, queries):
    """176 cases with the four lengths below; never more, and here exactly it."""
    setting, generator = draw(dim, heads, head_dim, queries, 0)
    numbers = reach(setting)
    assert numbers.value_ranks == (min(head_dim, dim),) * heads
    for prompt_tokens in (1, 2, 3, 5):
        prompt = generator.standard_normal((dim, prompt_tokens))
        assert jacobian_rank(setting, prompt) == numbers.generic_rank(prompt_tokens)


def test_the_numbers_of_the_theorem():
    setting, _ = draw(6, 2, 3, 2, 0)
    numbers = reach(setting)
    assert (numbers.reachable, numbers.ambient) == (3 + 3 + 2, 12)
    assert numbers.out_of_reach
    assert numbers.fewest_queries == 2
    # Full-rank heads: R = h d + h, so h + 1 queries are too many as soon as d > h.
    full, _ = draw(6, 2, 6, 2, 0)
    assert not reach(full).out_of_reach
    assert reach(full).fewest_queries == 3
    # Exactly R = k d is not out of reach.
    even, _ = draw(4, 2, 1, 1, 0)
    assert reach(even).reachable == reach(even).ambient == 4
    assert not reach(even).out_of_reach


def test_the_jacobian_is_the_derivative():
    setting, generator = draw(5, 2, 3, 2, 1)
    prompt = generator.standard_normal((5, 3))
    found = jacobian(setting, prompt)
    step = 1e-6
    for column in range(15):
        move = np.zeros(15)
        move[column] = step
        moved = move.reshape(3, 5).T
        slope = (attend(setting, prompt + moved) - attend(setting, prompt - moved)) / (2 * step)
        assert found[:, column] == pytest.approx(slope.ravel(), abs=1e-8)


def test_the_closed_form_is_for_the_plain_layer():
    setting, generator = draw(4, 2, 2, 2, 2)
    turned = SharedQuery(layer=setting.layer, queries=setting.queries, rotary_base=10.0)
    front = Front(gamma=np.ones(4), beta=np.zeros(4), eps=1e-5)
    normalised = SharedQuery(layer=setting.layer, queries=setting.queries, front=front)
    for other in (turned, normalised):
        with pytest.raises(ValueError, match="plain layer"):
            jacobian(other, generator.standard_normal((4, 1)))


@pytest.mark.parametrize("rank", [0, 1, 2, 4])
def test_exact_ranks(rank):
    generator = np.random.default_rng(rank)
    # Small integers, so that the product has exactly this rank.
    left, right = generator.integers(-9, 9, (5, rank)), generator.integers(-9, 9, (rank, 6))
    assert exact_rank((left @ right) * 2.0**-30) == rank


def test_rounding_makes_a_rank_full_and_exact_rank_says_so():
    row = np.array([0.1, 0.2, 0.3])
    assert exact_rank(np.stack([row, 3 * row])) == 2  # 3 * 0.1 is not three times 0.1
    assert exact_rank(np.stack([row, 4 * row])) == 1
    assert exact_rank(np.zeros((0, 3))) == 0


def test_ranks_of_products_with_deficient_factors():
    zeros = np.zeros((2, 3))
    key = np.ones((1, 3))

    def head(value, output):
        return HeadWeights(query=key, key=key, value=value, output=output)

    first, second = np.array([[1.0, 0, 0], [0, 0, 0]]), np.array([[0.0, 1], [0, 0], [0, 0]])
    heads = (
        head(np.eye(3), np.eye(3)),
        head(zeros, np.ones((3, 2))),
        head(first, second),  # both of rank 1, the product 0
        head(first, np.eye(3)[:, :2]),
    )
    assert value_ranks(attention_only(*heads)) == (3, 0, 0, 1)


def two_queries(dim, heads, head_dim, seed, queries=2):
    setting, _, generator = drawn(dim, heads, head_dim, queries, seed, scale=1.5)
    return setting, generator


@pytest.mark.parametrize("head_dim", [4, 2])
def test_answers_of_prompts_lie_on_it_within_the_part_of_their_length(head_dim):
    several = 0
    for seed in range(100):
        setting, generator = two_queries(4, 1, head_dim, seed)
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


def test_one_token_reaches_every_point_where_values_and_scores_are_independent():
    setting, generator = two_queries(5, 1, 3, 1)
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
def test_large_scores_change_nothing(big):
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


def test_a_query_that_outweighs_the_other_beyond_floats_is_refused():
    setting, _ = two_queries(4, 1, 4, 0)
    score = score_vectors(setting)[0]
    heavy = shared_query(
        setting.layer, setting.token, [1e3 * score / (score @ score), setting.queries[1][:, 0]]
    )
    with pytest.raises(RunFailed, match="beyond the range of floats"):
        segment(heavy, attend(heavy, np.ones((4, 1)))[0])
    light = shared_query(heavy.layer, heavy.token, [q[:, 0] for q in reversed(heavy.queries)])
    assert np.isfinite(segment(light, attend(light, np.ones((4, 1)))[0]).end).all()


def test_parts_grow_with_the_length():
    for seed in range(20):
        setting, generator = two_queries(4, 1, 4, seed)
        found = segment(setting, attend(setting, generator.standard_normal((4, 2)))[0])
        sizes = [
            sum(right - left for left, right in found.reached(tokens))
            for tokens in (1, 2, 8, 64, 10**9, 10**400, None)
        ]
        assert sizes[0] == 0
        assert all(a <= b + 1e-12 for a, b in itertools.pairwise(sizes))
        assert sizes[-1] <= 1


def test_nothing_more_is_reached_than_entropy_allows():
    """Gibbs' condition straight from q = V^-1 A, on a grid of the segment."""
    inside = outside = 0
    for seed in range(30):
        setting, generator = two_queries(4, 1, 4, seed)
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


def test_bad_input():
    setting, generator = two_queries(5, 1, 3, 0)
    with pytest.raises(UserError, match="range of V"):
        segment(setting, generator.standard_normal(5))
    with pytest.raises(UserError, match="two"):
        segment(two_queries(5, 1, 3, 0, queries=3)[0], np.zeros(5))
    with pytest.raises(UserError, match="one head"):
        segment(two_queries(5, 2, 2, 0)[0], np.zeros(5))
    turned = replace(two_queries(4, 1, 4, 0)[0], rotary_base=10.0)
    with pytest.raises(ValueError, match="plain"):
        segment(turned, np.zeros(4))
    with pytest.raises(UserError, match="prompt_tokens"):
        segment(setting, attend(setting, np.ones((5, 1)))[0]).reached(0)
