"""Limits on norms, proved from the entries: the truth is let through, less than it never."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from flint import arb, arb_mat, ctx, fmpq
from hypothesis import given, seed
from hypothesis import strategies as st

from promptlimits.checker import matrices
from promptlimits.checker.matrices import (
    Floats,
    ball_precision,
    balls,
    proves_norm_at_most,
    row_norms,
    times_columns,
)

HAIR = Fraction(1, 10**12)


def hadamard(side: int) -> Floats:
    """Entries +-1, and every singular value exactly sqrt(side); `side` is a power of 2."""
    matrix = np.ones((1, 1))
    while len(matrix) < side:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


KNOWN = {
    "one entry": (np.array([[-3.0]]), Fraction(3)),
    "one row": (np.array([[3.0, 4.0]]), Fraction(5)),
    "one column": (np.array([[3.0], [4.0]]), Fraction(5)),
    "rank one": (np.outer([2.0, 3.0, 6.0], [1.0, 2.0, 2.0, 4.0]), Fraction(35)),
    "Hadamard": (hadamard(64), Fraction(8)),
    "wide Hadamard": (hadamard(64)[:20], Fraction(8)),
    "tall Hadamard": (hadamard(64)[:, :7], Fraction(8)),
    "diagonal": (np.diag(2.0 ** np.arange(0, -60, -1)), Fraction(1)),
    "all equal": (np.full((16, 9), 1 / 8), Fraction(3, 2)),
    "large": (np.array([[3e200, 4e200]]), 5 * Fraction(1e200)),
    "small": (hadamard(4) * 2.0**-1000, Fraction(1, 2**999)),
    "of single precision": (hadamard(16).astype(np.float32), Fraction(4)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_norms(name: str) -> None:
    matrix, norm = KNOWN[name]
    scale = norm * (1 + HAIR)
    for form in (matrix, matrix.T, -matrix):
        assert proves_norm_at_most(scale, form)
        assert proves_norm_at_most(2 * norm, form)
        assert proves_norm_at_most(norm * 10**300, form)
        assert not proves_norm_at_most(norm * (1 - HAIR), form)
        assert not proves_norm_at_most(norm * (1 - HAIR**5), form)
        assert not proves_norm_at_most(norm / 10**300, form)
        assert not proves_norm_at_most(0, form)
        assert not proves_norm_at_most(-norm, form)


@seed(0)
@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 1e-5, 1e8]),
)
def test_random_norms(rows: int, columns: int, number: int, spread: float) -> None:
    """Against arb's eigenvalues of the Gram matrix, which share nothing with the proof."""
    generator = np.random.default_rng(number)
    matrix = generator.standard_normal((rows, columns)) * spread ** generator.random(columns)
    norm = float(np.linalg.norm(matrix, 2))
    assert proves_norm_at_most(Fraction(norm) * (1 + HAIR), matrix)
    assert not proves_norm_at_most(Fraction(norm) * (1 - HAIR), matrix)


def test_nothing_below_the_norm_is_proved_however_close() -> None:
    """Limits float by float around the truth; those below it are never proved."""
    matrix = np.random.default_rng(5).standard_normal((6, 4))
    with ctx.workprec(400):
        balls = matrices.balls(matrix)
        eigenvalues = (balls.transpose() * balls).eig(nonstop=True)
        largest = max((value.real for value in eigenvalues), key=float)
        norm = float(largest.sqrt())
        proved = []
        for steps in range(-60, 61):
            limit = norm + steps * float(np.spacing(norm))
            if proves_norm_at_most(Fraction(limit), matrix):
                proved.append(steps)
                assert arb(limit) > largest.sqrt()
    assert proved  # a part in 10^14 is enough
    assert proved == list(range(proved[0], 61))


def test_products_are_not_rounded() -> None:
    generator = np.random.default_rng(1)
    one, two, three = (generator.standard_normal(shape) for shape in ((5, 40), (40, 7), (7, 30)))
    norm = Fraction(float(np.linalg.norm(one @ two @ three, 2)))
    for parts in ([one, two, three], [three.T, two.T, one.T]):
        assert proves_norm_at_most(norm * (1 + HAIR), *parts)
        assert not proves_norm_at_most(norm * (1 - HAIR), *parts)
    # 1 + 2^-60 is no float: what a rounded product would prove is false.
    sums = [np.array([[1.0, 2.0**-60]]), np.array([[1.0], [1.0]])]
    assert not proves_norm_at_most(1, *sums)
    assert proves_norm_at_most(1 + HAIR, *sums)
    cancelling = [np.array([[1.0, 1.0, 1.0]]), np.array([[2.0**60], [1.0], [-(2.0**60)]])]
    assert not proves_norm_at_most(1 - HAIR, *cancelling)
    assert proves_norm_at_most(10**401, np.eye(3) * 1e200, np.eye(3) * 1e200)
    assert proves_norm_at_most(0, np.eye(3), np.zeros((3, 2)))
    nilpotent = np.array([[0.0, 1.0], [0.0, 0.0]])
    assert proves_norm_at_most(0, nilpotent, nilpotent)


def test_an_orthogonal_product() -> None:
    side = hadamard(32)
    assert proves_norm_at_most(32 * (1 + HAIR), side, side.T)
    assert not proves_norm_at_most(32 * (1 - HAIR), side, side.T)


@pytest.mark.parametrize("dependent", [False, True])
def test_a_product_with_a_narrow_middle(dependent: bool) -> None:
    """Such as the keys' weights times the queries': its norm is that of a small matrix."""
    generator = np.random.default_rng(6)
    one, two = generator.standard_normal((30, 4)), generator.standard_normal((4, 20))
    if dependent:  # then the product itself is taken
        one[:, 3] = one[:, 2]
    norm = Fraction(float(np.linalg.norm(one @ two, 2)))
    small = matrices._gram([matrices.balls(one), matrices.balls(two)])
    assert small.nrows() == (20 if dependent else 4)
    for parts in ([one, two], [two.T, one.T], [np.eye(30), one, two, 2 * np.eye(20) / 2]):
        assert proves_norm_at_most(norm * (1 + HAIR), *parts)
        assert not proves_norm_at_most(norm * (1 - HAIR), *parts)


def test_a_narrow_middle_that_is_nearly_dependent() -> None:
    one = np.ones((9, 2))
    one[0, 1] += 2.0**-40
    two = np.array([[1.0, -2.0, 3.0, 4.0], [-1.0, 2.0, -3.0, -4.0]])
    norm = Fraction(2) ** -40 * Fraction(float(np.sqrt(30)))
    assert proves_norm_at_most(norm * (1 + HAIR), one, two)
    assert not proves_norm_at_most(norm * (1 - HAIR), one, two)


def test_zeros_and_nothing() -> None:
    for matrix in (np.zeros((3, 2)), np.zeros((0, 4)), np.zeros((4, 0))):
        assert proves_norm_at_most(0, matrix)
        assert not proves_norm_at_most(-1, matrix)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_proves_nothing(bad: float) -> None:
    matrix = np.array([[1.0, bad], [0.0, 0.0]])
    assert not proves_norm_at_most(10**9, matrix)
    assert not proves_norm_at_most(10**9, np.zeros((2, 2)), matrix)


def test_wrong_arguments() -> None:
    square = np.eye(2)
    with pytest.raises(ValueError, match="2 axes"):
        proves_norm_at_most(1, square[0])
    with pytest.raises(ValueError, match="fit"):
        proves_norm_at_most(1, square, np.eye(3))
    with pytest.raises(TypeError, match="64 bits"):
        proves_norm_at_most(1, np.eye(2, dtype=np.longdouble))
    with pytest.raises(TypeError, match="64 bits"):
        proves_norm_at_most(1, np.eye(2, dtype=np.int64))  # type: ignore[arg-type]
    for limit in (1.0, True, "1"):
        with pytest.raises(TypeError, match="int or a Fraction"):
            proves_norm_at_most(limit, square)  # type: ignore[arg-type]


def test_a_wrong_guess_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guess is not believed: with another factor, even true limits are left unproved."""
    right = np.linalg.cholesky
    matrix = np.random.default_rng(2).standard_normal((5, 5))
    limit = 2 * Fraction(float(np.linalg.norm(matrix, 2)))
    assert proves_norm_at_most(limit, matrix)
    monkeypatch.setattr(np.linalg, "cholesky", lambda given: right(given) * (1 + 1e-9))
    assert not proves_norm_at_most(limit, matrix)
    monkeypatch.setattr(np.linalg, "cholesky", lambda given: np.full_like(given, np.nan))
    assert not proves_norm_at_most(limit, matrix)


@seed(0)
@given(
    st.lists(st.floats(-1e300, 1e300, width=64), min_size=2, max_size=2),
    st.lists(st.floats(-1e300, 1e300, width=64), min_size=2, max_size=2),
)
def test_scaled_columns_and_their_norms_are_not_rounded(
    row: list[float], factors: list[float]
) -> None:
    exact = [Fraction(value) * Fraction(factor) for value, factor in zip(row, factors, strict=True)]
    square = exact[0] ** 2 + exact[1] ** 2
    with ball_precision():
        scaled = times_columns(np.array([row]), [arb(factor) for factor in factors])
        assert all(
            entry == arb(fmpq(value.numerator, value.denominator))
            for entry, value in zip(scaled.entries(), exact, strict=True)
        )
        (norm,) = row_norms(scaled)
        assert (norm * norm).contains(arb(fmpq(square.numerator, square.denominator)))


def test_norms_of_balls_are_those_of_all_that_they_hold() -> None:
    with ball_precision():
        near = times_columns(np.eye(2), [arb(1, 2**-60), arb(1)])
        far = times_columns(np.eye(2), [arb(1, 0.25), arb(1)])
        assert [float(norm.abs_upper()) for norm in row_norms(far)] == pytest.approx([1.25, 1])
        assert not proves_norm_at_most(Fraction(5, 4) * (1 - HAIR), far)
        for one, norm in (
            (near, 1),
            (balls(hadamard(2)) * near, Fraction(14142135623730951, 10**16)),
        ):
            assert proves_norm_at_most(norm * (1 + HAIR), one)
            assert not proves_norm_at_most(norm * (1 - HAIR), one)
        assert proves_norm_at_most(1 + HAIR, near, near)
        assert not proves_norm_at_most(1 + HAIR, np.eye(2), far)
        assert proves_norm_at_most(0, arb_mat(2, 2))


def test_a_large_matrix_in_seconds() -> None:
    matrix = np.random.default_rng(4).standard_normal((200, 300)).astype(np.float32)
    norm = Fraction(float(np.linalg.norm(matrix.astype(np.float64), 2)))
    assert proves_norm_at_most(norm * (1 + HAIR), matrix)
    assert not proves_norm_at_most(norm * (1 - HAIR), matrix)


@pytest.mark.parametrize(
    ("share", "proved"), [(-1.1, False), (-0.9, True), (0.9, True), (1.1, False)]
)
def test_the_residual_is_held_against_the_shift(
    share: float, proved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 x 1, no Gram matrix, t = 1, s = 2^-33: the guess R^2 may differ from 1 - s by s."""
    shift = 2.0**-33
    guess = np.array([[np.sqrt(1 - shift + share * shift)]])
    monkeypatch.setattr(np.linalg, "cholesky", lambda given: guess)
    with ctx.workprec(160):
        assert matrices._residual_is_small(arb_mat(1, 1), arb(1), 2**20) is proved
