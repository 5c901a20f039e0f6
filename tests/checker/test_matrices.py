"""Limits on norms, proved from the entries: the truth is let through, less than it never."""

import math
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
from tests.reference import norm_twin

from promptlimits.checker.matrices import (
    Near,
    frobenius,
    proves_norm_at_most,
    row_norms,
    scaled_columns,
)

Floats = NDArray[np.floating[Any]]
HAIR = Fraction(1, 10**12)
BILLIONTH = Fraction(1, 10**9)


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
    "subnormal": (hadamard(16) * 2.0**-1074, Fraction(1, 2**1072)),
    "largest": (hadamard(16) * 2.0**1019, Fraction(2**1021)),
    "graded": (np.diag(2.0 ** -np.arange(64)) @ hadamard(64), Fraction(8)),
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


@pytest.mark.parametrize("power", [-1074, -1070, -600, -540, -537, -500, 0, 500, 1022])
def test_lengths_at_all_sizes(power):
    for entries in ([1.0, 1.0], [1.25, -1.5, 1.75], [1.0, 2.0**-30, 0.0]):
        matrix = np.ldexp(np.array([entries]), power)
        square = sum(Fraction(value) ** 2 for value in matrix[0].tolist())
        length = Fraction(frobenius(matrix))
        step = length * Fraction(1, 2**46) + Fraction(2, 2**1074)
        assert length**2 >= square >= (length - step) ** 2


def test_rows_of_many_small_entries():
    """What is added to 1 in one sum, 2^-54 at a time, is lost."""
    row = np.r_[1.0, np.full(2**14, 2.0**-27)][None]
    length = row_norms(Near(row))[0]
    assert Fraction(float(length)) ** 2 >= 1 + 2**14 * Fraction(1, 2**54)


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
    assert found.radius <= size * 50 * 2.0**-53
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
    assert proves_norm_at_most(Fraction(1, 2**51), product(nilpotent, nilpotent))
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


def test_both_factors_of_a_product_move():
    one, two = Near(np.array([[2.0]]), 0.5), Near(np.array([[4.0]]), 0.25)
    for left, right in ((one, two), (two, one)):
        product = left @ right
        assert 2.625 <= product.radius <= 2.625 + 1e-10  # 2/4 + 4/2 + 1/8
    assert (Near(np.eye(2), 0.5) + Near(np.eye(2), 0.25)).radius >= 0.75
    assert (Near(np.eye(2)) + Near(np.eye(2))).radius >= math.sqrt(2) * 2.0**-52


def test_what_underflows_is_not_lost():
    small = np.array([[2.0**-600]])
    assert not proves_norm_at_most(Fraction(1, 2**1201), product(small, small))
    assert not proves_norm_at_most(Fraction(1, 2**1201), scaled_columns(small, small[0]))
    assert proves_norm_at_most(Fraction(1, 2**990), product(small, small))


def test_a_ball_wider_than_the_limit():
    for center in (0.5 * np.eye(3), np.zeros((3, 3)), hadamard(4)):
        assert not proves_norm_at_most(1, Near(center, 10.0))
        assert not proves_norm_at_most(-20, Near(center, 10.0))


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


SIDES = ((64, 576), (300, 200), (256, 1024))


@pytest.mark.parametrize("shape", SIDES)
def test_a_part_in_a_billion_above_is_proved_and_below_is_not(shape):
    matrix = np.random.default_rng(4).standard_normal(shape).astype(np.float32)
    norm = Fraction(float(np.linalg.norm(matrix.astype(np.float64), 2)))
    assert proves_norm_at_most(norm * (1 + BILLIONTH), matrix)
    assert not proves_norm_at_most(norm * (1 - BILLIONTH), matrix)


def graded(shape, by):
    """Entries that fall by factors, along both axes."""
    generator = np.random.default_rng(3)
    rows, columns = (by ** -np.arange(size, dtype=float) for size in shape)
    return generator.standard_normal(shape) * np.outer(rows, columns)


def spectrum(values, columns=40):
    """Random directions, given singular values."""
    generator = np.random.default_rng(2)
    left, right = (np.linalg.qr(generator.standard_normal((n, n)))[0] for n in (20, columns))
    return (left * values) @ right[:20]


ADVERSE = {
    "rank one": np.outer(np.arange(1.0, 31.0), np.arange(1.0, 51.0)),
    "nearly rank one": np.ones((30, 50)) + 1e-9 * graded((30, 50), 1.0),
    "one value, often": spectrum(np.ones(20)),
    "two close values": spectrum(np.r_[1, 1 - 1e-13, np.full(18, 0.5)]),
    "one large value": spectrum(np.r_[1e8, np.ones(19)]),
    "graded": graded((12, 30), 10.0),
    "steeply graded": graded((9, 9), 1e17),
    "cancelling": np.array([[1e8, 1.0, -1e8], [1e8, 1.0, 1e8], [1.0, 1e-8, 1.0]]),
    "small": graded((12, 30), 2.0) * 1e-300,
    "subnormal": np.rint(graded((12, 30), 1.0) * 1000) * 2.0**-1074,
    "large": graded((12, 30), 2.0) * 1e300,
}


@pytest.mark.parametrize("name", ADVERSE)
def test_the_slow_twin_says_the_same(name):
    """Products of integers against rounded ones with a limit on the rounding."""
    matrix = ADVERSE[name]
    top = np.abs(matrix).max()
    exponent = math.frexp(top)[1]
    norm = Fraction(float(np.linalg.norm(np.ldexp(matrix, -exponent), 2))) * Fraction(2) ** exponent
    for form in (matrix, matrix.T):
        for by, proved in ((BILLIONTH, True), (-BILLIONTH, False)):
            assert norm_twin.proves_norm_at_most(norm * (1 + by), form) is proved
            assert proves_norm_at_most(norm * (1 + by), form) is proved


@seed(0)
@given(st.integers(0, 2**32 - 1), st.integers(-60, 60))
def test_what_is_proved_the_slow_twin_does_not_refute(number, steps):
    """Limits within some roundings of the norm; the twin knows it to fewer."""
    matrix = np.random.default_rng(number).standard_normal((5, 9))
    norm = float(np.linalg.norm(matrix, 2))
    limit = Fraction(norm + steps * float(np.spacing(norm)))
    slack = 1 + Fraction(40, 2**53)
    if proves_norm_at_most(limit, matrix):
        assert norm_twin.proves_norm_at_most(limit * slack, matrix)


class Skewed(np.ndarray):
    """Floats whose products are as wrong as any order of adding makes them: all too low."""

    def __matmul__(self, other):
        one, two = np.asarray(self), np.asarray(other)
        terms = one.shape[-1] * 2.0**-53
        return (one @ two - terms / (1 - terms) * (np.abs(one) @ np.abs(two))).view(Skewed)


MANY = np.full((2, 2**20), 0.25).view(Skewed)
EXACT = Fraction(1, 16) * MANY.size


def test_lengths_are_not_too_low_when_sums_are():
    length = frobenius(MANY)
    assert EXACT <= Fraction(length) ** 2 <= EXACT * (1 + 3 * Fraction(MANY.size, 2**53))


def test_products_are_near_when_sums_are_as_wrong_as_they_may_be():
    product = Near(MANY) @ Near(MANY.T)
    truth = np.full((2, 2), 2.0**16)
    apart = np.linalg.norm(np.asarray(product.center) - truth)
    assert apart <= product.radius <= 1.01 * apart


@pytest.mark.parametrize("shape", [(4, 2**16), (256, 256)])
def test_norms_when_sums_are_as_wrong_as_they_may_be(shape):
    """Of ones, in one row more: no limit on a norm below is proved."""
    side, terms = shape
    matrix = np.vstack([np.ones(shape), np.full(terms, 1e-3)]).view(Skewed)
    norm = Fraction(math.sqrt(side * terms + terms * 1e-6))
    assert proves_norm_at_most(norm * (1 + BILLIONTH), matrix)
    assert not proves_norm_at_most(norm * (1 - Fraction(1, 2**50)), matrix)


@pytest.mark.parametrize("shape", [(2, 2**20), (256, 256)])
@pytest.mark.parametrize(("share", "proved"), [(0.95, True), (1.05, False)])
def test_what_remains_and_what_is_rounded_are_held_against_the_shift(
    shape, share, proved, monkeypatch
):
    """A guess whose R R^T lies beside tau I - G by what the limits on rounding leave, and a share.

    A has orthogonal rows of length 1/2: all that is computed of it is a multiple of I.
    """
    side, terms = shape
    matrix = np.kron(np.eye(side), np.full((1, terms // side), 0.5 / math.sqrt(terms // side)))
    square = Fraction(9, 25)
    guesses = []

    def guess(given):
        tau = given[0, 0] + 1 / 4
        left = square - Fraction(tau)
        left -= side * Fraction(1, 4) * Fraction(terms, 2**53)
        left -= side * Fraction(given[0, 0]) * Fraction(side + 1, 2**53)
        guesses.append(left)
        return np.eye(side) * math.sqrt(given[0, 0] - share * float(left) / math.sqrt(side))

    monkeypatch.setattr(np.linalg, "cholesky", guess)
    assert proves_norm_at_most(Fraction(3, 5), matrix) is proved
    assert guesses[0] > 0
