"""The dimension of what prompts reach: the formula, the Jacobian's rank, and exact ranks."""

from __future__ import annotations

import numpy as np
import pytest
from tests.reference.layers import attention_only
from tests.reference.layers import draw as drawn

from promptlimits.lab.one_layer.reachable import (
    exact_rank,
    jacobian,
    reach,
    value_ranks,
)
from promptlimits.lab.one_layer.setting import Front, SharedQuery, attend
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


def jacobian_rank(setting: SharedQuery, prompt: np.ndarray) -> int:
    values = np.linalg.svd(jacobian(setting, prompt), compute_uv=False)
    return int((values > 1e-9 * values[0]).sum())


def draw(
    dim: int, heads: int, head_dim: int, queries: int, seed: int
) -> tuple[SharedQuery, np.random.Generator]:
    setting, _, generator = drawn(dim, heads, head_dim, queries, seed, hidden=8, scale=1.5)
    return setting, generator


@pytest.mark.parametrize(("dim", "heads", "head_dim"), LAYERS)
@pytest.mark.parametrize("queries", [1, 2, 3, 4])
def test_the_rank_of_the_jacobian_is_the_formula(
    dim: int, heads: int, head_dim: int, queries: int
) -> None:
    """176 cases with the four lengths below; never more, and here exactly it."""
    setting, generator = draw(dim, heads, head_dim, queries, 0)
    numbers = reach(setting)
    assert numbers.value_ranks == (min(head_dim, dim),) * heads
    for prompt_tokens in (1, 2, 3, 5):
        prompt = generator.standard_normal((dim, prompt_tokens))
        assert jacobian_rank(setting, prompt) == numbers.generic_rank(prompt_tokens)


def test_the_numbers_of_the_theorem() -> None:
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


def test_the_jacobian_is_the_derivative() -> None:
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


def test_the_closed_form_is_for_the_plain_layer() -> None:
    setting, generator = draw(4, 2, 2, 2, 2)
    turned = SharedQuery(layer=setting.layer, queries=setting.queries, rotary_base=10.0)
    front = Front(gamma=np.ones(4), beta=np.zeros(4), eps=1e-5)
    normalised = SharedQuery(layer=setting.layer, queries=setting.queries, front=front)
    for other in (turned, normalised):
        with pytest.raises(ValueError, match="plain layer"):
            jacobian(other, generator.standard_normal((4, 1)))


@pytest.mark.parametrize("rank", [0, 1, 2, 4])
def test_exact_ranks(rank: int) -> None:
    generator = np.random.default_rng(rank)
    # Small integers, so that the product has exactly this rank.
    left, right = generator.integers(-9, 9, (5, rank)), generator.integers(-9, 9, (rank, 6))
    assert exact_rank((left @ right) * 2.0**-30) == rank


def test_rounding_makes_a_rank_full_and_exact_rank_says_so() -> None:
    row = np.array([0.1, 0.2, 0.3])
    assert exact_rank(np.stack([row, 3 * row])) == 2  # 3 * 0.1 is not three times 0.1
    assert exact_rank(np.stack([row, 4 * row])) == 1
    assert exact_rank(np.zeros((0, 3))) == 0


def test_ranks_of_products_with_deficient_factors() -> None:
    zeros = np.zeros((2, 3))
    key = np.ones((1, 3))

    def head(value: np.ndarray, output: np.ndarray) -> HeadWeights:
        return HeadWeights(query=key, key=key, value=value, output=output)

    first, second = np.array([[1.0, 0, 0], [0, 0, 0]]), np.array([[0.0, 1], [0, 0], [0, 0]])
    heads = (
        head(np.eye(3), np.eye(3)),
        head(zeros, np.ones((3, 2))),
        head(first, second),  # both of rank 1, the product 0
        head(first, np.eye(3)[:, :2]),
    )
    assert value_ranks(attention_only(*heads)) == (3, 0, 0, 1)
