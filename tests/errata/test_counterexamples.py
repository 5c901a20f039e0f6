"""E3, E8, E9, E10, E11, E12."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from promptlimits.errata.arithmetic import covering, dimension, monotone_cover, published_dimension
from promptlimits.errata.constant_map import constant_layer, reachable_zero, share_of_volume
from promptlimits.errata.measures import (
    prompt_written_twice,
    rademacher_pattern,
    rademacher_prompts,
)
from promptlimits.errors import UserError


@pytest.mark.parametrize("seed", [0, 1])
def test_the_share_of_the_constant_map_is_a_ratio_of_volumes(seed: int) -> None:
    found = share_of_volume(seed).numbers
    assert found["spread_of_outputs"] == 0
    assert found["true_share"] == pytest.approx(0.2**3)
    assert isinstance(found["sampled_share"], float)
    assert isinstance(found["standard_error"], float)
    assert abs(found["sampled_share"] - 0.008) < 5 * found["standard_error"]
    rows = found["rows"]
    assert isinstance(rows, list)
    for row in rows:
        assert isinstance(row, dict)
        constant = row["lipschitz"]
        assert isinstance(constant, float)
        # [(3 L r/eps)^m_p / (r/(3 eps))^(mk)]^d at r = m = m_p = k = 1, d = 3.
        printed = ((3 * constant / 0.2) / (1 / (3 * 0.2))) ** 3
        assert row["published"] == pytest.approx(printed)
        assert row["published"] < 0.008 < row["corrected"]


def test_the_constant_layer_is_exactly_zero() -> None:
    tau = constant_layer(dim=4, heads=2, seed=0)
    x = 1e3 * torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(tau(x).abs().max()) == 0
    assert any(float(head.value.abs().max()) > 0 for head in tau.layers[0].heads)


@pytest.mark.parametrize("heads", [1, 3, 8])
def test_zero_is_reached_by_every_prompt(heads: int) -> None:
    found = reachable_zero(heads, 1).numbers
    assert found["errors"] == [0.0] * 3 * (heads + 1)
    assert isinstance(found["least_offset"], float)
    assert found["least_offset"] > 0
    assert found["dim"] == heads**2 + 2 * heads + 1


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_the_monotone_cover_is_counted_right(columns: int) -> None:
    heights = itertools.product(range(columns + 1), repeat=columns)
    rising = sum(all(a <= b for a, b in itertools.pairwise(one)) for one in heights)
    assert monotone_cover(columns) == rising


def test_the_monotone_cover_covers() -> None:
    """Each measure on [-1, 1] is within 2/M of the step function that the proof names."""
    generator = np.random.default_rng(0)
    fine = (np.arange(20_000) + 0.5) / 10_000 - 1
    for case in range(60):
        columns, atoms = generator.integers(1, 9, size=2)
        at = np.sort(generator.uniform(-1, 1, atoms))
        if case % 3 == 0:  # atoms on the edges of columns
            at = np.sort(generator.choice(np.linspace(-1, 1, 2 * columns + 1), atoms))
        edges = np.linspace(-1, 1, columns + 1)
        ends = np.searchsorted(at, edges[:-1], "right") + np.searchsorted(at, edges[1:], "left")
        heights = np.round(columns * ends / (2 * atoms)) / columns
        assert (np.diff(heights) >= 0).all()
        steps = heights[np.minimum((fine + 1) / 2 * columns, columns - 1).astype(int)]
        true = np.searchsorted(at, fine, "right") / atoms
        assert 2 * np.mean(np.abs(true - steps)) <= 2 / columns + 1e-3


def test_the_claimed_covering_number_is_more_than_there_are() -> None:
    found = covering().numbers
    assert isinstance(found["eps"], float)
    columns = round(0.2 / found["eps"])
    assert found["log_cover"] == pytest.approx(math.log(math.comb(2 * columns + 2, columns + 1)))
    assert found["log_published"] == pytest.approx(1 / found["eps"] - 100)


def test_a_prompt_written_twice_is_no_other_measure_but_another_prompt() -> None:
    for seed in range(4):
        found = prompt_written_twice(seed).numbers
        assert found["prompt_distance"] == 0
        assert isinstance(found["output_distance"], float)
        assert isinstance(found["last_token_distance"], float)
        assert found["output_distance"] > 0.05
        assert found["last_token_distance"] > 1e-4


def test_rademacher_patterns_differ_on_half_of_the_positions() -> None:
    patterns = [rademacher_pattern(number, 16) for number in range(1, 5)]
    assert patterns[0] == [False] * 8 + [True] * 8
    for one, other in itertools.combinations(patterns, 2):
        assert sum(a != b for a, b in zip(one, other, strict=True)) == 8
    found = rademacher_prompts().numbers
    assert found["distances"] == pytest.approx([5 / math.sqrt(2)] * 10, rel=1e-12)


def test_the_claimed_dimension_is_a_product() -> None:
    factorials = math.factorial(768 - 144 - 12) // math.factorial(768 - 144 - 24 - 1)
    assert published_dimension(768, 12) == factorials
    found = dimension().numbers
    assert found["published_dimension"] == 1486060510153306400957649114869760000
    assert found["ambient_dimension"] == 9984
    assert found["corrected_dimension"] == 9203
    assert found["first_dim_of_one_head"] == 7
    assert [published_dimension(d, 1) > 2 * d for d in range(4, 9)] == [False] * 3 + [True] * 2
    with pytest.raises(UserError, match="as Theorem 5"):
        published_dimension(3, 1)
