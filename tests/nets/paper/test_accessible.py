"""Definitions 4.1, 4.2, 4.4 and 4.5: distances of outputs from targets."""

import numpy as np
import pytest
import torch

from promptlimits.base.errors import UserError
from promptlimits.nets.paper.accessible import (
    distribution_distance,
    measure_distance,
    output_distance,
    sequence_distance,
)
from promptlimits.nets.paper.mean_field import mean_field, token_measure
from promptlimits.nets.paper.transformer import from_weights
from promptlimits.nets.paper.weights import random_weights


def model(*, masked=False):
    sizes = {"dim": 3, "heads": 2, "head_dim": 2, "hidden": 4, "layers": 2}
    return from_weights(random_weights(**sizes, masked=masked, generator=np.random.default_rng(0)))


def tokens(*shape):
    seeded = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=seeded, dtype=torch.float64)


@pytest.mark.parametrize("norm", ["token", "matrix"])
def test_lists_are_as_far_apart_as_their_furthest_outputs(norm):
    first, second = tokens(4, 3, 2), tokens(4, 3, 2)
    second[2] += torch.tensor([[3.0, 0], [4, 0], [0, 12]], dtype=torch.float64)
    expected = {"token": 12.0, "matrix": 13.0}[norm]
    assert sequence_distance(first, second, norm=norm) == pytest.approx(expected)
    assert sequence_distance(first, first, norm=norm) == 0


def test_a_prompt_reaches_what_it_makes_of_every_query():
    prompt, queries = tokens(3, 2), tokens(5, 3, 2)
    targets = model().with_prompt(prompt, queries)
    assert output_distance(model(), prompt, queries, targets) == 0
    targets[3, :, 1] += torch.tensor([0, 0.3, 0.4], dtype=torch.float64)
    assert output_distance(model(), prompt, queries, targets) == pytest.approx(0.5)


@pytest.mark.parametrize("masked", [False, True])
def test_a_measure_is_reached_from_the_furthest_query(masked):
    prompt, queries = tokens(3, 2), tokens(2, 3, 2)
    outputs = [
        mean_field(
            model(masked=masked), token_measure(torch.cat([prompt, q], dim=-1), timed=masked)
        )
        for q in queries
    ]
    gap = measure_distance(*outputs)
    assert 0 < gap < float("inf")
    found = distribution_distance(model(masked=masked), prompt, queries, outputs[0])
    assert found == pytest.approx(gap)
    alone = distribution_distance(model(masked=masked), prompt, queries[:1], outputs[0])
    assert alone == pytest.approx(0, abs=1e-9)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(UserError, match="one shape"):
        sequence_distance(tokens(2, 3, 2), tokens(2, 3, 1))
    with pytest.raises(UserError, match="norm must be one of token, matrix"):
        sequence_distance(tokens(2, 3, 2), tokens(2, 3, 2), norm="max")
    with pytest.raises(UserError, match="times"):
        measure_distance(token_measure(tokens(3, 2)), token_measure(tokens(3, 2), timed=True))
