"""Limits on norms, proved from the entries: the truth is let through, less than it never."""

from fractions import Fraction
from functools import reduce
from operator import matmul
from typing import Any

import numpy as np
import pytest
from flint import arb, arb_mat, ctx
from hypothesis import given, seed
from hypothesis import strategies as st
from numpy.typing import NDArray

from promptlimits.checker import matrices
from promptlimits.checker.matrices import (
    Near,
    frobenius,
    proves_norm_at_most,
    row_norms,
    scaled_columns,
)

Floats = NDArray[np.floating[Any]]
HAIR = Fraction(1, 10**12)


def hadamard(side):
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
def test_known_norms(name):
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
def test_random_norms(rows, columns, number, spread):
    """Against arb's eigenvalues of the Gram matrix, which share nothing with the proof."""
    generator = np.random.default_rng(number)
    matrix = generator.standard_normal((rows, columns)) * spread ** generator.random(columns)
    norm = float(np.linalg.norm(matrix, 2))
    assert proves_norm_at_most(Fraction(norm) * (1 + HAIR), matrix)
    assert not proves_norm_at_most(Fraction(norm) * (1 - HAIR), matrix)


def test_nothing_below_the_norm_is_proved_however_close():
    """Limits float by float around the truth; those below it are never proved."""
    matrix = np.random.default_rng(5).standard_normal((6, 4))
    with ctx.workprec(400):
        balls = arb_mat(6, 4, [arb(value) for value in matrix.ravel().tolist()])
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


def product(*factors):
    return reduce(matmul, map(Near, factors))


def exactly(*factors):
    """The product of matrices as it is."""
    found = [[Fraction(float(value)) for value in row] for row in factors[0]]
    for factor in factors[1:]:
        columns = [[Fraction(float(value)) for value in column] for column in factor.T]
        found = [
            [sum(x * y for x, y in zip(row, column, strict=True)) for column in columns]
            for row in found
        ]
    return found


def distance(near, truth):
    """The square of a Frobenius distance."""
    return sum(
        (Fraction(float(value)) - right) ** 2
        for row, rights in zip(near.center, truth, strict=True)
        for value, right in zip(row, rights, strict=True)
    )


@pytest.mark.parametrize("spread", [1.0, 1e-6, 1e6])
def test_a_product_is_near_what_it_is_said_to_be_near(spread):
    generator = np.random.default_rng(1)
    one, two, three = (
        generator.standard_normal(shape) * spread ** generator.random(shape)
        for shape in ((5, 40), (40, 7), (7, 3))
    )
    found = product(one, two, three)
    size = frobenius(one) * frobenius(two) * frobenius(three)
    assert distance(found, exactly(one, two, three)) <= Fraction(found.radius) ** 2
    assert found.radius <= size * 2.0**-49
    norm = Fraction(float(np.linalg.norm(one @ two @ three, 2)))
    assert proves_norm_at_most(norm * (1 + HAIR), found)
    assert not proves_norm_at_most(norm * (1 - HAIR), found)
    assert proves_norm_at_most(norm * (1 + HAIR), found.transposed())


def test_products_whose_terms_cancel():
    # 1 + 2^-60 is no float: what a rounded product would prove is false.
    sums = product(np.array([[1.0, 2.0**-60]]), np.array([[1.0], [1.0]]))
    assert not proves_norm_at_most(1, sums)
    assert proves_norm_at_most(1 + HAIR, sums)
    large = 2.0**10
    cancelling = product(np.array([[1.0, 1.0, 1.0]]), np.array([[large], [1.0], [-large]]))
    assert not proves_norm_at_most(1 - HAIR, cancelling)
    assert proves_norm_at_most(1 + HAIR, cancelling)
    nilpotent = np.array([[0.0, 1.0], [0.0, 0.0]])
    assert proves_norm_at_most(Fraction(1, 2**60), product(nilpotent, nilpotent))
    assert not proves_norm_at_most(0, product(nilpotent, nilpotent))
    with np.errstate(all="ignore"):
        huge = product(np.eye(3) * 1e200, np.eye(3) * 1e200)
        assert not proves_norm_at_most(10**500, huge)


def test_an_orthogonal_product():
    side = product(hadamard(32), hadamard(32).T)
    assert proves_norm_at_most(32 * (1 + HAIR), side)
    assert not proves_norm_at_most(32 * (1 - HAIR), side)


def test_a_nearly_dependent_product():
    """What the rest of slices hides is not proved; what is too low never is."""
    one = np.ones((9, 2))
    one[0, 1] += 2.0**-40
    two = np.array([[1.0, -2.0, 3.0, 4.0], [-1.0, 2.0, -3.0, -4.0]])
    norm = Fraction(2) ** -40 * Fraction(float(np.sqrt(30)))
    assert proves_norm_at_most(norm * Fraction(65, 64), product(one, two))
    assert not proves_norm_at_most(norm * (1 - HAIR), product(one, two))


def test_zeros_and_nothing():
    for matrix in (np.zeros((3, 2)), np.zeros((0, 4)), np.zeros((4, 0))):
        assert proves_norm_at_most(0, matrix)
        assert not proves_norm_at_most(-1, matrix)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_proves_nothing(bad):
    matrix = np.array([[1.0, bad], [0.0, 0.0]])
    assert not proves_norm_at_most(10**9, matrix)
    assert not proves_norm_at_most(10**9, Near(np.eye(2), bad))


def test_wrong_arguments():
    square = np.eye(2)
    with pytest.raises(ValueError, match="2 axes"):
        proves_norm_at_most(1, square[0])
    with pytest.raises(TypeError, match="64 bits"):
        proves_norm_at_most(1, np.eye(2, dtype=np.longdouble))
    with pytest.raises(TypeError, match="64 bits"):
        proves_norm_at_most(1, np.eye(2, dtype=np.int64))
    for limit in (1.0, True, "1"):
        with pytest.raises(TypeError, match="int or a Fraction"):
            proves_norm_at_most(limit, square)


def test_a_wrong_guess_proves_nothing(monkeypatch):
    """The guess is not believed: with another factor, even true limits are left unproved."""
    right = np.linalg.cholesky
    matrix = np.random.default_rng(2).standard_normal((5, 5))
    limit = Fraction(float(np.linalg.norm(matrix, 2))) * Fraction(101, 100)
    assert proves_norm_at_most(limit, matrix)
    monkeypatch.setattr(np.linalg, "cholesky", lambda given: right(given) * (1 + 1e-9))
    assert not proves_norm_at_most(limit, matrix)
    monkeypatch.setattr(np.linalg, "cholesky", lambda given: np.full_like(given, np.nan))
    assert not proves_norm_at_most(limit, matrix)


finite = st.floats(-1e70, 1e70, width=64)


@seed(0)
@given(
    st.lists(finite, min_size=6, max_size=6),
    st.lists(finite, min_size=3, max_size=3),
    st.sampled_from([0, 1]),
)
def test_scaled_columns_and_their_norms(entries, factors, offset):
    matrix, gain = np.array(entries).reshape(2, 3), np.array(factors)
    truth = [
        [Fraction(value) * (offset + Fraction(by)) for value, by in zip(row, factors, strict=True)]
        for row in matrix.tolist()
    ]
    scaled = scaled_columns(matrix, gain, offset=offset)
    assert distance(scaled, truth) <= Fraction(scaled.radius) ** 2
    squares = [sum(value**2 for value in row) for row in truth]
    for length, square in zip(row_norms(scaled), squares, strict=True):
        assert Fraction(float(length)) ** 2 >= square
    assert (Fraction(frobenius(scaled.center)) + Fraction(scaled.radius)) ** 2 >= sum(squares)


def test_norms_are_those_of_all_matrices_that_are_near():
    far = Near(np.diag([0.5, 1.0]), 0.25)
    assert not proves_norm_at_most(Fraction(5, 4) * (1 - HAIR), far)
    assert proves_norm_at_most(Fraction(5, 4) * (1 + HAIR), far)
    wide = far @ Near(hadamard(2))
    assert wide.radius >= 0.25 * np.sqrt(2)
    both = far + Near(np.eye(2), 0.5)
    assert both.radius >= 0.75
    assert proves_norm_at_most(Fraction(11, 4) * (1 + HAIR), both)
    assert not proves_norm_at_most(Fraction(11, 4) * (1 - HAIR), both)


@pytest.mark.parametrize("terms", [1, 100, 1536, 40_000, 10**6])
def test_sums_of_products_of_slices_are_exact(terms):
    bits = matrices._slice_bits(terms)
    slices = -(-matrices._SLICED // bits)
    assert slices * terms * 4**bits <= 2**52 < slices * terms * 4 ** (bits + 1) * 2
    value = np.array([[1 - 2.0**-53]])
    parts = matrices._slices(value, bits)
    assert all(float(part[0, 0]).is_integer() and abs(part[0, 0]) <= 2**bits for part in parts)
    found = sum(Fraction(float(p[0, 0])) / 2 ** (bits * k) for k, p in enumerate(parts, start=1))
    assert found == Fraction(float(value[0, 0]))


def test_a_large_matrix_in_seconds():
    matrix = np.random.default_rng(4).standard_normal((200, 300)).astype(np.float32)
    norm = Fraction(float(np.linalg.norm(matrix.astype(np.float64), 2)))
    assert proves_norm_at_most(norm * (1 + HAIR), matrix)
    assert not proves_norm_at_most(norm * (1 - HAIR), matrix)


@pytest.mark.parametrize(
    ("share", "proved"), [(-0.72, False), (-0.69, True), (0.69, True), (0.72, False)]
)
def test_the_residual_is_held_against_the_shift(share, proved, monkeypatch):
    """I/2, t = 0.6: the guess R R^T may differ from (tau - 1/4) I by t^2 - tau over sqrt 2."""
    square = 0.6**2
    tau = square * (1 - 2.0**-21)
    guess = np.sqrt(tau - 0.25 + share * (square - tau)) * np.eye(2)
    monkeypatch.setattr(np.linalg, "cholesky", lambda given: guess)
    monkeypatch.setattr(matrices, "_SHIFTS", (2**31,))
    assert proves_norm_at_most(Fraction(0.6), np.eye(2) / 2) is proved
