"""Decimal intervals against flint's balls at high precision: they contain, and are narrow."""

import decimal
import subprocess
import sys
import threading
from decimal import Decimal
from fractions import Fraction

import pytest
from flint import arb, ctx, fmpq
from hypothesis import example, given, seed
from hypothesis import strategies as st

from promptlimits.checker import intervals
from promptlimits.checker.core import log1p_exp
from promptlimits.checker.intervals import (
    Interval,
    dyadic,
    exp,
    expm1,
    log,
    log1p,
    maximum,
    minimum,
    precision,
    real,
    sqrt,
)

TRUTH_BITS = 5000
NARROW = Fraction(1, 10**58)  # at 60 digits, as long as nothing else is asked for


def ball(value):
    return arb(fmpq(value.numerator, value.denominator))


def contains(found, value):
    return Fraction(found.low) <= value <= Fraction(found.high)


def assert_encloses(found, truth, width=NARROW):
    """It contains the truth, and is at most `width` wide, relative to it."""
    low, high = Fraction(found.low), Fraction(found.high)
    with ctx.workprec(TRUTH_BITS):
        true = truth()
        if low == high:
            assert ball(low).overlaps(true)
            assert float(true.rad()) == 0 or true.rel_accuracy_bits() > 1000
        else:
            assert ball(low) < true
            assert true < ball(high)
    assert high - low <= width * max(abs(low), abs(high))


NUMBERS = st.builds(
    lambda over, under, exponent: Fraction(over, under) * Fraction(10) ** exponent,
    st.integers(1, 10**40),
    st.integers(1, 10**40),
    st.integers(-90, 90),
)
SIGNED = st.builds(lambda value, sign: value * sign, NUMBERS, st.sampled_from([1, -1]))
TINY = st.builds(
    lambda value, exponent, sign: sign * value / Fraction(10) ** exponent,
    st.fractions(Fraction(1, 1000), 1),
    st.integers(0, 300),
    st.sampled_from([1, -1]),
)


@seed(0)
@given(SIGNED, SIGNED)
def test_the_four_operations(one, other):
    x, y = real(one), real(other)
    for found, truth in (
        (x + y, one + other),
        (x - y, one - other),
        (x * y, one * other),
        (x / y, one / other),
        (x + other, one + other),
        (one - y, one - other),
        (one * y, one * other),
        (one / y, one / other),
        (-x, -one),
        (maximum(x, y), max(one, other)),
        (minimum(x, other), min(one, other)),
    ):
        assert contains(found, truth)
        # Cancellation loses what the operands had lost, and nothing more.
        size = max(abs(one), abs(other), abs(truth))
        assert Fraction(found.high) - Fraction(found.low) <= NARROW * size


@seed(0)
@given(SIGNED, st.integers(-30, 30))
@example(Fraction(-2), 3)
@example(Fraction(-2), 2)
@example(Fraction(-2), -3)
def test_whole_powers(value, power):
    found = real(value) ** power
    assert contains(found, value**power)
    assert Fraction(found.high) - Fraction(found.low) <= 1000 * NARROW * abs(value**power)


@pytest.mark.parametrize(("low", "high"), [(-3, 2), (-2, 3), (-3, -2), (2, 3), (0, 2), (-2, 0)])
@pytest.mark.parametrize("power", [0, 1, 2, 3, 4, 5])
def test_powers_and_products_of_wide_intervals(low, high, power):
    """Products have the least and the greatest end exactly; powers where 0 is not inside."""
    interval = Interval(Decimal(low), Decimal(high))
    inside = [Fraction(low) + Fraction(high - low, 60) * step for step in range(61)]
    found = interval**power
    assert all(contains(found, value**power) for value in inside)
    if low * high >= 0:
        ends = low**power, high**power
        assert (found.low, found.high) == (min(ends), max(ends))
    other = Interval(Decimal(-1), Decimal(5))
    products = [x * y for x in (low, high) for y in (-1, 5)]
    assert ((interval * other).low, (interval * other).high) == (min(products), max(products))
    assert (interval - other).low == low - 5
    assert (interval - other).high == high + 1
    assert ((-interval).low, (-interval).high) == (-high, -low)
    away = Interval(Decimal(2), Decimal(4))
    quotients = [Fraction(x, y) for x in (low, high) for y in (2, 4)]
    assert ((interval / away).low, (interval / away).high) == (min(quotients), max(quotients))


@seed(0)
@given(NUMBERS)
@example(Fraction(1))
@example(Fraction(1, 2))
@example(Fraction(2))
@example(Fraction(4))
@example(Fraction(10**80 + 1, 10**80))
@example(Fraction(10**80 - 1, 10**80))
@example(Fraction(10**700 + 1, 10**700))
def test_logarithms_and_roots(value):
    assert_encloses(log(value), lambda: ball(value).log())
    assert_encloses(sqrt(real(value)), lambda: ball(value).sqrt())
    assert_encloses(log1p(real(value)), lambda: ball(1 + value).log())


@seed(0)
@given(st.fractions(-2000, 2000))
@example(Fraction(0))
@example(Fraction(1))
def test_exponentials(value):
    wide = 10_000 * NARROW  # an operand of 60 digits near 2000 is off by 2000 units of 10^-60
    assert_encloses(exp(real(value)), lambda: ball(value).exp(), wide)
    assert_encloses(expm1(real(value)), lambda: ball(value).expm1(), wide)


@seed(0)
@given(TINY)
@example(Fraction(1, 10**60))
@example(Fraction(-1, 10**60))
@example(Fraction(1, 10**61))
@example(Fraction(-999, 1000))
@example(Fraction(0))
def test_small_arguments_keep_their_relative_precision(value):
    wide = 10_000 * NARROW  # 1 + value near 0 loses a few digits of value
    assert_encloses(expm1(real(value)), lambda: ball(value).expm1(), wide)
    if value > -1:
        assert_encloses(log1p(real(value)), lambda: ball(value).log1p(), wide)
        assert_encloses(log(1 + value), lambda: ball(value).log1p(), wide)


def decimals():
    near_one = [1 + sign * Decimal(10) ** -places for sign in (1, -1) for places in range(1, 59)]
    return [*near_one, *map(Decimal, ("2", "10", "1E+40", "3E-40", "9E+999999", "7E-999999"))]


@pytest.mark.parametrize("digits", [16, 60])
def test_decimal_rounds_ln_and_exp_correctly(digits):
    """What the enclosures rest on: the documented half unit in the last place, near 1 too."""
    context = decimal.Context(prec=digits, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX)
    for value in decimals():
        arguments = [(context.ln, value, arb.log)]
        if abs(value.adjusted()) < 100:
            arguments.append((context.exp, value.ln() if value > 100 else value, arb.exp))
        for rounded, argument, true in arguments:
            found = rounded(argument)
            unit = Fraction(10) ** (found.adjusted() - digits + 1)
            with ctx.workprec(TRUTH_BITS + 12 * abs(found.adjusted())):
                if abs(value.adjusted()) > 1000:
                    truth = (
                        arb(10).log() * value.adjusted()
                        + ball(Fraction(value.scaleb(-value.adjusted()))).log()
                    )
                else:
                    truth = true(ball(Fraction(argument)))
                error = abs(truth - ball(Fraction(found)))
                assert error <= ball(unit / 2), (argument, found)


def test_huge_numbers_by_their_leading_bits():
    long = 7 * 10**300_000 + 1
    found = log(Fraction(long, 3))
    assert_encloses(found, lambda: arb(10).log() * 300_000 + ball(Fraction(7, 3)).log())
    interval = real(long)
    assert contains(interval, long)
    assert Fraction(interval.high) - Fraction(interval.low) <= NARROW * long
    assert contains(-interval, -long)
    assert real(-long) == -interval
    assert log(Fraction(3, long)) == -found


def test_few_digits_are_exact():
    for value in (0, 1, -7, 10**59, Fraction(1, 8), Fraction(-3, 2**40), 2**400):
        found = real(value)
        assert contains(found, value)
        assert (found.low == found.high) is (value != 2**400)
    assert dyadic(-3, -2) == real(Fraction(-3, 4))
    assert dyadic(3, 5) == real(96)
    assert log(real(1)) == real(0) == log(1)
    assert exp(real(0)) == real(1)
    assert contains(sqrt(real(49)), 7)


def test_more_digits_are_narrower():
    with precision(20):
        third = real(Fraction(1, 3))
        with precision(200):
            finer = real(Fraction(1, 3))
            assert third.low < finer.low < finer.high < third.high
            assert exp(finer).high - exp(finer).low < Decimal("1E-195")
        assert real(Fraction(1, 3)) == third


@seed(0)
@given(st.fractions(-3000, 3000))
@example(Fraction(0))
@example(Fraction(-3000))
def test_log_of_one_and_an_exponential(value):

    assert_encloses(log1p_exp(real(value)), lambda: ball(value).exp().log1p(), 10**12 * NARROW)


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (lambda: real(0.5), TypeError),
        (lambda: real(True), TypeError),
        (lambda: real(1) + 0.5, TypeError),
        (lambda: Interval(Decimal(2), Decimal(1)), ValueError),
        (lambda: Interval(Decimal(1), Decimal("NaN")), ValueError),
        (lambda: Interval(Decimal(1), Decimal("Infinity")), ValueError),
        (lambda: log(real(0)), ValueError),
        (lambda: sqrt(real(-1)), ArithmeticError),
        (lambda: log1p(real(-1)), ValueError),
        (lambda: log(0), ValueError),
        (lambda: log(Fraction(-1, 2)), ValueError),
        (lambda: real(1) / 0, ArithmeticError),
        (lambda: real(1) / Interval(Decimal(-1), Decimal(1)), ArithmeticError),
        (lambda: exp(real(10**30)), ArithmeticError),
        (lambda: exp(real(-(10**30))), ArithmeticError),
    ],
)
def test_what_is_inexact_or_out_of_range_raises(broken, error):
    with pytest.raises(error):
        broken()


def test_the_global_context_is_neither_read_nor_changed():
    expected = log(Fraction(7, 3)) * Fraction(1, 3)
    with decimal.localcontext(decimal.Context(prec=3, rounding=decimal.ROUND_UP)) as context:
        assert log(Fraction(7, 3)) * Fraction(1, 3) == expected
        assert not any(context.flags.values())


def test_threads_share_nothing():
    def at(digits):
        with precision(digits):
            return log(Fraction(7, 3))

    expected = {digits: at(digits) for digits in (20, 40, 80)}
    wrong = []

    def work(digits):
        wrong.extend(digits for _ in range(30) if at(digits) != expected[digits])

    threads = [threading.Thread(target=work, args=(digits,)) for digits in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_nothing_but_the_standard_library():
    code = (
        "import sys, promptlimits.checker\n"
        "loaded = {'flint', 'numpy', 'torch', 'mpmath', 'promptlimits.base'} & set(sys.modules)\n"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("number", [2**1000 + 1, -(2**1000) - 1, 3**900, 5])
def test_leading_bits_enclose_the_number(number):
    with precision(20):
        leading, shift = intervals._leading(number)
    assert (leading.low < leading.high) is (number != 5)
    assert Fraction(leading.low) <= Fraction(number, 2**shift) <= Fraction(leading.high)
