"""The sign of a sum of logarithms, against integers that are multiplied out."""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from promptlimits.theory.exact_products import product_exceeds_one, product_is_one

TERMS = st.lists(st.tuples(st.integers(1, 60), st.integers(-12, 12)), max_size=6)


def multiplied_out(terms: list[tuple[int, int]]) -> Fraction:
    return math.prod((Fraction(base) ** power for base, power in terms), start=Fraction(1))


@given(terms=TERMS)
@example(terms=[])
@example(terms=[(6, 2), (4, -1), (9, -1)])
@example(terms=[(12, 1), (18, 1), (6, -3)])
@example(terms=[(1, 5), (7, 0)])
@example(terms=[(2, 3), (2, -3)])
def test_against_fractions(terms: list[tuple[int, int]]) -> None:
    value = multiplied_out(terms)
    assert product_is_one(terms) is (value == 1)
    assert product_exceeds_one(terms) is (value > 1)


@given(
    primes=st.lists(st.sampled_from([2, 3, 5, 7]), min_size=1, max_size=8),
    cut=st.integers(0, 8),
    power=st.integers(1, 9),
)
def test_exact_ties(primes: list[int], cut: int, power: int) -> None:
    """A product over itself, cut into two factors: always one."""
    first, second = math.prod(primes[:cut]), math.prod(primes[cut:])
    terms = [(first * second, power), (first, -power), (second, -power)]
    assert product_is_one(terms)
    assert not product_exceeds_one(terms)
    assert product_exceeds_one([*terms, (2, 1)])
    assert not product_exceeds_one([*terms, (2, -1)])


def test_near_ties_need_more_precision() -> None:
    """(B + 1)/B exceeds one by 2^-700: far below the first precisions."""
    base = 2**700
    assert product_exceeds_one([(base + 1, 1), (base, -1)])
    assert not product_exceeds_one([(base - 1, 1), (base, -1)])


def test_powers_too_long_to_multiply_out() -> None:
    many = 10**30
    assert not product_exceeds_one([(4, many), (2, -2 * many)])
    assert product_exceeds_one([(4, many), (2, 1 - 2 * many)])
    assert not product_exceeds_one([(4, many), (2, -1 - 2 * many)])
