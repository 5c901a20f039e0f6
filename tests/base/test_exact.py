"""Exact numbers and what is decided of real ones, against integers that are multiplied out."""

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from flint import arb, ctx
from hypothesis import example, given
from hypothesis import strategies as st

from promptlimits.base.exact import (
    Rule,
    dyadic_value,
    exact,
    exceeds_one,
    grid_up,
    grid_value,
    is_negative,
    is_one,
    largest,
    last_float,
    log10_up,
    number_text,
    outward_float,
    recorded,
    shown,
    sign,
)

TERMS = st.lists(st.tuples(st.integers(1, 60), st.integers(-12, 12)), max_size=6)


def multiplied_out(terms):
    return math.prod((Fraction(base) ** power for base, power in terms), start=Fraction(1))


@given(terms=TERMS)
@example(terms=[])
@example(terms=[(6, 2), (4, -1), (9, -1)])
@example(terms=[(12, 1), (18, 1), (6, -3)])
@example(terms=[(1, 5), (7, 0)])
@example(terms=[(2, 3), (2, -3)])
def test_products_against_fractions(terms):
    value = multiplied_out(terms)
    assert is_one(terms) is (value == 1)
    assert exceeds_one(terms) is (value > 1)


@given(
    primes=st.lists(st.sampled_from([2, 3, 5, 7]), min_size=1, max_size=8),
    cut=st.integers(0, 8),
    power=st.integers(1, 9),
)
def test_exact_ties(primes, cut, power):
    """A product over itself, cut into two factors: always one."""
    first, second = math.prod(primes[:cut]), math.prod(primes[cut:])
    terms = [(first * second, power), (first, -power), (second, -power)]
    assert is_one(terms)
    assert not exceeds_one(terms)
    assert exceeds_one([*terms, (2, 1)])
    assert not exceeds_one([*terms, (2, -1)])


def test_near_ties_need_more_precision():
    """(B + 1)/B exceeds one by 2^-700: far below the first precisions."""
    base = 2**700
    assert exceeds_one([(base + 1, 1), (base, -1)])
    assert not exceeds_one([(base - 1, 1), (base, -1)])


def test_powers_too_long_to_multiply_out():
    many = 10**30
    assert not exceeds_one([(4, many), (2, -2 * many)])
    assert exceeds_one([(4, many), (2, 1 - 2 * many)])
    assert not exceeds_one([(4, many), (2, -1 - 2 * many)])


def test_signs_of_what_no_precision_tells():
    assert sign(lambda: arb(2).sqrt() ** 2 - 2) == 0
    assert not is_negative(lambda: arb(2).sqrt() ** 2 - 2)
    assert is_negative(lambda: arb(2).sqrt() ** 2 - 2 - arb((1, -3000)))


def test_grid_points():
    for whole in (3, 0, -7):
        assert grid_value(grid_up(lambda: arb(whole))) == whole  # noqa: B023
    point = grid_up(lambda: arb(2).log())
    with ctx.workprec(256):
        assert 0 < arb((point, -96)) - arb(2).log() < arb((1, -96))
    assert grid_up(lambda: arb(1) + (-arb(10**6)).exp()) == 2**96 + 1


@given(number=st.fractions(Fraction(1, 10**9), 10**9), bits=st.integers(2, 80))
def test_the_last_float_at_most_a_number(number, bits):
    def holds(found):
        mantissa, exponent = (int(part) for part in found.man_exp())
        return dyadic_value([mantissa, exponent]) <= number

    mantissa, exponent = last_float(bits, holds, lambda: arb(number.numerator) / number.denominator)
    assert mantissa.bit_length() == bits
    assert dyadic_value([mantissa, exponent]) <= number < dyadic_value([mantissa + 1, exponent])


@given(most=st.integers(0, 10**30))
def test_the_end_of_a_segment(most):
    assert largest(lambda k: k <= most) == most


@given(number=st.fractions(-(10**9), 10**9), power=st.integers(-40, 40), up=st.booleans())
def test_outward_floats_are_next_to_the_number(number, power, up):
    value = number * Fraction(10) ** power
    found = outward_float(lambda: arb(value.numerator) / value.denominator, up=up)
    beyond = math.nextafter(found, -math.inf if up else math.inf)
    assert Fraction(found) >= value if up else Fraction(found) <= value
    # 128 bits tell a float from its neighbours unless the number is one.
    assert abs(Fraction(found) - value) <= abs(Fraction(beyond) - Fraction(found))
    assert recorded(value, up=up) == found or value == found


def test_decades_are_rounded_up():
    found = log10_up(grid_up(lambda: arb(1000).log()))
    assert 3 <= found <= 3 + 1e-15


@given(
    value=st.fractions(Fraction(1, 10**6), 10**6),
    power=st.integers(-700, 700),
    up=st.booleans(),
)
def test_recorded_numbers_are_on_the_safe_side(value, power, up):
    true = max(value, Fraction(1, 10**6)) * Fraction(10) ** power
    one = recorded(true, up=up)
    found = Fraction(Decimal(one))
    assert found >= true if up else found <= true
    assert abs(found - true) <= true / 10**15
    assert isinstance(one, float) is (Fraction(1, 10**300) < true < 10**300)


def test_negative_and_no_numbers_are_recorded_as_floats():
    assert recorded(Fraction(0), up=True) == 0.0
    assert recorded(Fraction(-1, 3), up=True) == -(1 / 3)
    assert recorded(Fraction(-10, 3), up=False) <= Fraction(-10, 3)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e1500", Fraction(10) ** 1500),
        ("1e-2000", Fraction(1, 10**2000)),
        (" 0.1 ", Fraction(1, 10)),
        ("+.5E+1", Fraction(5)),
        ("10/3", Fraction(10, 3)),
        ("007", Fraction(7)),
        ("-3/6", Fraction(-1, 2)),
        ("0e999999999", Fraction(0)),
        ("0x10/0x3", Fraction(16, 3)),
    ],
)
def test_numbers_are_read_exactly(text, value):
    assert exact(text) == value


@pytest.mark.parametrize(
    "given_value",
    [
        *("nan", "inf", "1e2001", "1e-999999999", "1_0", "", ".", "1/0", "\uff11", "9" * 5000),
        *("0." + "1" * 300, 0.5, True, None, b"1", [1]),
    ],
)
def test_what_is_no_exact_number(given_value):
    with pytest.raises(Rule, match="; "):
        exact(given_value)


@given(number=st.fractions())
def test_numbers_have_one_form_as_text(number):
    assert exact(number_text(number)) == number
    assert number_text(number) == str(number)


@given(number=st.integers(-(2**5000), 2**20000))
def test_long_integers_are_written_in_hexadecimal(number):
    assert int(number_text(number), 0) == number
    assert exact(number_text(number)) == number


def test_shown():
    assert [shown(n) for n in (Fraction(1, 3), 20000, 2**200)] == ["1/3", "20,000", "about 2^200"]
    assert shown(Fraction(1, 3 * 2**200)) == "about 2^-201"
