"""Proved limits lie at or above the truth, close to it, and are exact numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from flint import arb, arb_mat, ctx

from promptlimits.lipschitz.balls.matrix import MatrixBall
from promptlimits.lipschitz.balls.spectral import (
    is_positive_semidefinite,
    largest_eigenvalue,
    row_norms,
    spectral_norm,
    vector_norm,
)


def certainly_at_least_the_norm(limit: Fraction, matrix: np.ndarray) -> bool:
    """Whether ball arithmetic proves limit >= ||matrix||: det(x I - G) has no root above."""
    with ctx.workprec(300):
        rows = arb_mat([[arb(float(x)) for x in row] for row in np.atleast_2d(matrix)])
        gram = rows * rows.transpose() if rows.nrows() <= rows.ncols() else rows.transpose() * rows
        square = (arb(limit.numerator) / arb(limit.denominator)) ** 2
        # All leading minors of (limit^2 I - G) positive: positive definite (Sylvester).
        size = gram.nrows()
        return all(
            bool(
                arb_mat(
                    [[square * (i == j) - gram[i, j] for j in range(minor)] for i in range(minor)]
                ).det()
                > 0
            )
            for minor in range(1, size + 1)
        )


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 1), (3, 3), (4, 7), (9, 5)])
@pytest.mark.parametrize("seed", range(5))
def test_a_norm_is_proved_and_tight(shape: tuple[int, int], seed: int) -> None:
    matrix = np.random.default_rng(seed).standard_normal(shape)
    limit = spectral_norm(matrix)
    assert isinstance(limit, Fraction)
    assert certainly_at_least_the_norm(limit * (1 + Fraction(1, 2**60)), matrix)
    assert float(limit) <= np.linalg.norm(matrix, 2) * (1 + 1e-12)


@pytest.mark.parametrize("size", [64, 300])
def test_a_wide_matrix_is_proved_tightly(size: int) -> None:
    matrix = np.random.default_rng(size).standard_normal((size, 2 * size))
    truth = np.linalg.svd(matrix, compute_uv=False)[0]
    assert truth * (1 - 1e-12) <= float(spectral_norm(matrix)) <= truth * (1 + 1e-8)


@pytest.mark.parametrize(
    ("matrix", "norm"),
    [
        (np.zeros((3, 2)), 0),
        (np.zeros((0, 4)), 0),
        (np.eye(5), 1),
        (np.diag([-7.0, 2.0, 1e-9]), 7),
        (np.ones((4, 9)), 6),
        (np.full((3, 3), 2.0**-1000), Fraction(3, 2**1000)),
        (np.full((3, 3), 2.0**900), 3 * 2**900),
        (np.array([[0.0, 1e8], [0.0, 0.0]]), 10**8),
    ],
)
def test_known_norms(matrix: np.ndarray, norm: Fraction | int) -> None:
    limit = spectral_norm(matrix)
    assert norm <= limit <= norm * (1 + Fraction(1, 10**11))


@pytest.mark.parametrize("power", [400, 1, -1, -400])
def test_scaling_by_powers_of_two_changes_nothing_else(power: int) -> None:
    matrix = np.random.default_rng(0).standard_normal((6, 4))
    ratio = spectral_norm(np.ldexp(matrix, power)) / spectral_norm(matrix) / Fraction(2) ** power
    assert abs(ratio - 1) <= Fraction(1, 2**50)


def test_entries_of_very_different_size_lose_nothing() -> None:
    matrix = np.array([[1e300, 0.0], [0.0, 5e-324]])
    assert spectral_norm(matrix) >= Fraction(1e300)
    tiny = np.full((2, 2), 5e-324)
    assert spectral_norm(tiny) >= 2 * Fraction(5e-324)


def test_the_radius_of_a_ball_is_added() -> None:
    ball = MatrixBall(center=np.eye(3), radius=0.25)
    assert Fraction(5, 4) <= spectral_norm(ball) <= Fraction(5, 4) + Fraction(1, 10**9)
    assert largest_eigenvalue(ball) >= Fraction(5, 4)
    assert spectral_norm(MatrixBall(center=np.zeros((2, 2)), radius=0.5)) == Fraction(1, 2)


def test_eigenvalues_may_be_negative() -> None:
    assert -1 <= largest_eigenvalue(np.diag([-1.0, -2.0])) <= -1 + Fraction(1, 10**9)
    generator = np.random.default_rng(4)
    for _ in range(20):
        matrix = generator.standard_normal((6, 6))
        symmetric = (matrix + matrix.T) / 2
        truth = np.linalg.eigvalsh(symmetric)[-1]
        assert truth - 1e-13 <= float(largest_eigenvalue(symmetric)) <= truth + 1e-10


def test_semidefinite_is_proved_only_where_it_is_so() -> None:
    generator = np.random.default_rng(5)
    for _ in range(30):
        factor = generator.standard_normal((8, 8))
        gram = factor @ factor.T
        least = np.linalg.eigvalsh(gram)[0]
        gap = 1e-9 * np.linalg.norm(gram)
        assert is_positive_semidefinite(gram - (least - gap) * np.eye(8))
        assert not is_positive_semidefinite(gram - (least + gap) * np.eye(8))
        # A ball that reaches over the edge is not proved, one that stays inside is.
        inside = gram - (least - 2 * gap) * np.eye(8)
        assert is_positive_semidefinite(MatrixBall(center=inside, radius=gap / 8))
        assert not is_positive_semidefinite(MatrixBall(center=inside, radius=4 * gap))


def test_degenerate_sizes() -> None:
    assert is_positive_semidefinite(np.zeros((0, 0)))
    assert is_positive_semidefinite(np.array([[1.0]]))
    assert not is_positive_semidefinite(np.array([[-1.0]]))
    assert 0 <= largest_eigenvalue(np.zeros((3, 3))) < Fraction(1, 10**300)
    for bad in (np.zeros((2, 3)), np.zeros((0, 0))):
        with pytest.raises(ValueError, match="square"):
            largest_eigenvalue(bad)
    with pytest.raises(ValueError, match="square"):
        is_positive_semidefinite(np.zeros((2, 3)))


def test_lengths_of_vectors_and_rows() -> None:
    matrix = np.array([[3.0, 4.0], [0.0, 0.0], [1.0, 1.0]])
    lengths = row_norms(matrix)
    assert [float(x) for x in lengths] == pytest.approx([5.0, 0.0, 2**0.5], rel=1e-13)
    assert lengths[0] >= 5
    assert lengths[2] ** 2 >= 2
    assert lengths[0] == vector_norm(matrix[0])
