"""Every operation on matrix balls contains the exact result, computed here with fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptlimits.base.errors import UserError
from promptlimits.lipschitz.balls.matrix import (
    MatrixBall,
    add_up,
    float_down,
    float_up,
    frobenius_up,
    gamma,
    multiply_up,
    sqrt_up,
)

Exact = list[list[Fraction]]
positive = st.floats(min_value=0.0, max_value=1e150, allow_subnormal=True)


def exactly(array):
    return [[Fraction(float(x)) for x in row] for row in array]


def times(a, b):
    return [
        [
            sum((x * y for x, y in zip(row, column, strict=True)), Fraction(0))
            for column in zip(*b, strict=True)
        ]
        for row in a
    ]


def plus(a, b, sign=1):
    return [[x + sign * y for x, y in zip(p, q, strict=True)] for p, q in zip(a, b, strict=True)]


def distance_squared(a, b):
    """Squared Frobenius distance, which is at least the squared spectral one."""
    return sum(
        ((x - y) ** 2 for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)),
        Fraction(0),
    )


def draw(seed, rows, columns, spread):
    generator = np.random.default_rng(seed)
    size = 10.0 ** generator.uniform(-spread, spread, (rows, columns))
    return np.asarray(generator.standard_normal((rows, columns)) * size)


def assert_holds(ball, exact):
    """The error is in the radius, measured in the Frobenius norm, which is not less."""
    assert distance_squared(exactly(ball.center), exact) <= Fraction(ball.radius) ** 2


@given(positive, positive)
def test_scalars_are_rounded_up_and_by_little(a, b):
    for rounded, exact in (
        (add_up(a, b), Fraction(a) + Fraction(b)),
        (multiply_up(a, b), Fraction(a) * Fraction(b)),
    ):
        assert Fraction(rounded) >= exact
        assert Fraction(rounded) <= exact * (1 + Fraction(1, 2**50)) + Fraction(3, 2**1074)
    assert Fraction(sqrt_up(a)) ** 2 >= Fraction(a)


@given(st.fractions(min_value=0, max_value=10**300))
def test_a_fraction_becomes_the_least_float_above_it(value):
    number = float_up(value)
    assert Fraction(number) >= value
    assert number == 0.0 or Fraction(math.nextafter(number, -math.inf)) < value


@given(st.fractions(min_value=0, max_value=10**300))
def test_a_fraction_becomes_the_largest_float_below_it(value):
    number = float_down(value)
    assert Fraction(number) <= value < Fraction(math.nextafter(number, math.inf))


def test_a_limit_of_0_is_not_minus_0():
    assert str(float_down(Fraction(0))) == str(float_up(Fraction(0))) == "0.0"


def test_gamma_is_the_one_of_the_textbook():
    unit = Fraction(1, 2**53)
    for terms in (1, 10, 10**6):
        assert Fraction(gamma(terms)) >= terms * unit / (1 - terms * unit)
        assert gamma(terms) < 1.0001 * terms * 2.0**-53


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200, 5e-324])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (20, 2)])
def test_the_frobenius_norm_is_not_below_the_exact_one(shape, scale):
    array = draw(1, *shape, 0.5) * scale
    exact = sum(Fraction(float(x)) ** 2 for x in array.flat)
    found = Fraction(frobenius_up(array))
    assert found**2 >= exact
    if scale > 1e-300:
        assert found**2 <= exact * (1 + Fraction(1, 10**12))


def test_the_frobenius_norm_of_nothing_and_of_zeros_is_zero():
    assert frobenius_up(np.zeros((0, 3))) == frobenius_up(np.zeros((2, 3))) == 0.0


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.0, 3.0, 60.0])
)
def test_sums_and_products_contain_the_exact_ones(seed, rows, inner, spread):
    a, b = draw(seed, rows, inner, spread), draw(seed + 1, inner, rows, spread)
    left, right = MatrixBall.exact(a), MatrixBall.exact(b)
    assert_holds(left @ right, times(exactly(a), exactly(b)))
    assert_holds(left + right.T, plus(exactly(a), exactly(b.T)))
    assert_holds(left - right.T, plus(exactly(a), exactly(b.T), -1))
    third = Fraction(1, 3)
    assert_holds(left.scaled(third), [[third * x for x in row] for row in exactly(a)])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6))
def test_errors_travel_through_every_operation(seed):
    """Members of balls, taken at the balls' surface, give members of the result's ball."""
    generator = np.random.default_rng(seed)
    a, b = generator.standard_normal((3, 4)), generator.standard_normal((4, 3))
    errors = [generator.standard_normal(m.shape) for m in (a, b)]
    # Powers of two, so that the members are close to what floats can say; a little inside.
    moved = [
        m + e * (2.0**-20 / np.linalg.norm(e, 2) * (1 - 1e-9))
        for m, e in zip((a, b), errors, strict=True)
    ]
    left, right = (MatrixBall(center=m, radius=2.0**-20) for m in (a, b))
    p, q = (exactly(m) for m in moved)
    for ball, exact in (
        (left @ right, times(p, q)),
        (left + right.T, plus(p, exactly(moved[1].T))),
        (left - right.T, plus(p, exactly(moved[1].T), -1)),
        (left.scaled(-2.5), [[Fraction(-5, 2) * x for x in row] for row in p]),
        (MatrixBall.concatenate([left, right.T], axis=0), p + exactly(moved[1].T)),
    ):
        gap = np.array(
            [
                [float(x - y) for x, y in zip(*rows, strict=True)]
                for rows in zip(exact, exactly(ball.center), strict=True)
            ]
        )
        assert np.linalg.norm(gap, 2) <= ball.radius * (1 + 1e-9)
        assert np.linalg.norm(gap, "fro") <= np.sqrt(6) * ball.radius
    member = np.array([[float(x) for x in row] for row in p])
    assert np.linalg.norm(member) <= left.frobenius_upper()


def test_blocks_and_symmetric_parts():
    a, b = draw(3, 2, 2, 0.0), draw(4, 2, 3, 0.0)
    whole = MatrixBall.block(
        [
            [MatrixBall.exact(a), MatrixBall.exact(b)],
            [MatrixBall.exact(b).T, MatrixBall.identity(3)],
        ]
    )
    assert whole.radius == 0.0
    assert np.array_equal(whole.center, np.block([[a, b], [b.T, np.eye(3)]]))
    symmetric = MatrixBall(center=a, radius=0.5).symmetrised()
    assert np.array_equal(symmetric.center, symmetric.center.T)
    assert symmetric.radius >= 0.5
    with pytest.raises(ValueError, match="do not add"):
        MatrixBall.exact(a) + MatrixBall.exact(b)


@pytest.mark.parametrize(
    ("center", "radius"),
    [(np.array([[np.inf]]), 0.0), (np.eye(2), -1.0), (np.eye(2), math.nan), (np.ones(3), 0.0)],
)
def test_what_is_no_ball_is_refused(center, radius):
    with pytest.raises((ValueError, UserError), match=r"ball|radius"):
        MatrixBall(center=center, radius=radius)


def test_an_overflow_is_refused_and_not_proved_with():
    huge = MatrixBall.exact(np.full((2, 2), 1e200))
    huger = MatrixBall.exact(np.full((2, 2), 1.5e308))
    for overflow in (lambda: huge @ huge, lambda: huger + huger, lambda: huge.scaled(2**900)):
        with pytest.raises(UserError, match=r"the weights must be so small .* below 1.8e308"):
            overflow()
