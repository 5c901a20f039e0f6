"""Cells in the shape of an ellipsoid: never worse than balls, and they do cover."""

import functools
import math
from fractions import Fraction

import numpy as np
import pytest
from tests.reference.ellipsoid_twin import forward, token_points

from promptlimits.base.errors import UserError
from promptlimits.lipschitz.ellipsoid.certificate import (
    effective_lipschitz,
    ellipsoid_bound,
)
from promptlimits.nets.paper.weights import random_weights


def model(dim=3, layers=2):
    return random_weights(
        dim=dim,
        heads=2,
        head_dim=2,
        hidden=4,
        layers=layers,
        generator=np.random.default_rng(5),
        masked=False,
    )


@functools.cache
def balls():
    return effective_lipschitz(model(), radius=1, shape=np.eye(3), effort="quick")


@functools.cache
def searched():
    return effective_lipschitz(model(), radius=1, effort="quick")


def test_the_unit_ball_as_a_cell_gives_the_lipschitz_constant():
    found = balls()
    plain = ellipsoid_bound(model(), radius=1, prompt_only=True, effort="quick")
    assert found.bound.upper_nats() == pytest.approx(plain.bound.upper_nats(), abs=1e-9)


def test_a_multiple_of_a_cell_changes_nothing():
    four = effective_lipschitz(model(), radius=1, shape=4 * np.eye(3), effort="quick")
    assert balls().bound.upper_nats() == pytest.approx(four.bound.upper_nats(), abs=1e-3)


def test_searched_cells_are_fewer():
    ball, free = balls(), searched()
    assert free.bound.upper_nats() < ball.bound.upper_nats()
    eps = Fraction(1, 1000)
    fewer, more = (e.cover(eps=eps, prompt_tokens=2).upper_nats() for e in (free, ball))
    assert fewer < more
    log_l = ball.bound.upper_nats()
    cells = 6 * (math.log(2 + 1e-3 / math.exp(log_l)) + log_l + math.log(1000))
    assert more == pytest.approx(cells, rel=1e-9)
    assert more >= cells * (1 - 1e-12)


def test_moves_are_within_the_bound_measured_by_the_cell():
    """|f(X)_q - f(X')_q| <= Lambda max_j |E^(-1)(X_j - X'_j)|, X and X' alike at the query."""
    found = searched()
    limit = math.exp(found.moves.bound.upper_nats())
    generator = np.random.default_rng(6)
    for point in token_points(3, 4, generator):
        other = point + 0.1 * generator.standard_normal(point.shape)
        other /= np.maximum(np.linalg.norm(other, axis=0), 1)
        other[:, 2:] = point[:, 2:]
        moved = (forward(model(), point) - forward(model(), other))[:, 2:]
        measured = np.linalg.norm(np.linalg.solve(found.shape, point - other), axis=0).max()
        assert np.linalg.norm(moved, axis=0).max() <= limit * measured * (1 + 1e-12)


def test_a_cell_that_covers_the_ball_is_one():
    found = balls()
    assert found.cover(eps=10**12, prompt_tokens=1).upper_nats() >= 0


def test_bad_requests():
    weights = model()
    for shape in (np.ones((3, 3)), -np.eye(3), np.eye(2), np.eye(3, dtype=np.float32)):
        with pytest.raises(UserError, match="lower triangular"):
            effective_lipschitz(weights, radius=1, shape=shape)
    with pytest.raises(UserError, match="radius must be an exact"):
        effective_lipschitz(weights, radius=0)
    found = balls()
    with pytest.raises(UserError, match="eps must be an exact"):
        found.cover(eps=0, prompt_tokens=1)
    with pytest.raises(UserError, match="prompt_tokens must be a whole number of at least 1"):
        found.cover(eps=1, prompt_tokens=0)
