"""Decimal intervals against flint's balls at high precision: they contain, and are narrow."""

from __future__ import annotations

import decimal
import subprocess
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import pytest
from flint import arb, ctx, fmpq
from hypothesis import example, given, seed
from hypothesis import strategies as st

from promptlimits.checking import intervals
from promptlimits.checking.intervals import DIGITS, Interval, log_of

TRUTH_BITS = 5000
NARROW = Fraction(1, 10 ** (DIGITS - 2))


def ball(value: Fraction) -> arb:
    return arb(fmpq(value.numerator, value.denominator))


def assert_encloses(found: Interval, truth: Callable[[], arb], width: Fraction = NARROW) -> None:
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
def test_the_four_operations(one: Fraction, other: Fraction) -> None:
    x, y = Interval.of(one), Interval.of(other)
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
        (x.maximum(y), max(one, other)),
        (x.minimum(other), min(one, other)),
    ):
        assert found.contains(truth)
        # Cancellation loses what the operands had lost, and nothing more.
        size = max(abs(one), abs(other), abs(truth))
        assert Fraction(found.high) - Fraction(found.low) <= NARROW * size


@seed(0)
@given(SIGNED, st.integers(-30, 30))
@example(Fraction(-2), 3)
@example(Fraction(-2), 2)
@example(Fraction(-2), -3)
def test_whole_powers(value: Fraction, power: int) -> None:
    found = Interval.of(value) ** power
    assert found.contains(value**power)
    assert Fraction(found.high) - Fraction(found.low) <= 1000 * NARROW * abs(value**power)


@pytest.mark.parametrize(("low", "high"), [(-3, 2), (-2, 3), (-3, -2), (2, 3), (0, 2), (-2, 0)])
@pytest.mark.parametrize("power", [0, 1, 2, 3, 4, 5])
def test_powers_and_products_of_wide_intervals(low: int, high: int, power: int) -> None:
    """The ends are the least and the greatest that numbers inside give: exact for small ones."""
    interval = Interval(Decimal(low), Decimal(high))
    inside = [Fraction(low) + Fraction(high - low, 60) * step for step in range(61)]
    found = interval**power
    assert all(found.contains(value**power) for value in inside)
    least = 0 if low < 0 < high and power % 2 == 0 < power else min(low**power, high**power)
    assert (found.low, found.high) == (least, max(low**power, high**power))
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
@given(NUMBERS, st.fractions(-5, 5, max_denominator=50))
def test_fractional_powers(value: Fraction, power: Fraction) -> None:
    found = Interval.of(value) ** power
    assert_encloses(found, lambda: ball(value) ** ball(power), 2000 * NARROW)


def test_powers_of_zero() -> None:
    zero = Interval.of(0)
    assert zero ** Fraction(1, 3) == zero
    assert (Interval(Decimal(0), Decimal(8)) ** Fraction(1, 3)).contains(2)
    assert (zero**0).contains(1)
    with pytest.raises(ValueError, match="no logarithm"):
        zero ** Fraction(-1, 3)
    with pytest.raises(ZeroDivisionError):
        zero**-1


@seed(0)
@given(NUMBERS)
@example(Fraction(1))
@example(Fraction(1, 2))
@example(Fraction(2))
@example(Fraction(4))
@example(Fraction(10**80 + 1, 10**80))
@example(Fraction(10**80 - 1, 10**80))
@example(Fraction(10**700 + 1, 10**700))
def test_logarithms_and_roots(value: Fraction) -> None:
    assert_encloses(log_of(value), lambda: ball(value).log())
    assert_encloses(Interval.of(value).sqrt(), lambda: ball(value).sqrt())
    assert_encloses(Interval.of(value).log1p(), lambda: ball(1 + value).log())


@seed(0)
@given(st.fractions(-2000, 2000))
@example(Fraction(0))
@example(Fraction(1))
def test_exponentials(value: Fraction) -> None:
    wide = 10_000 * NARROW  # an operand of 60 digits near 2000 is off by 2000 units of 10^-60
    assert_encloses(Interval.of(value).exp(), lambda: ball(value).exp(), wide)
    assert_encloses(Interval.of(value).expm1(), lambda: ball(value).expm1(), wide)


@seed(0)
@given(TINY)
@example(Fraction(1, 10**60))
@example(Fraction(-1, 10**60))
@example(Fraction(1, 10**61))
@example(Fraction(-999, 1000))
@example(Fraction(0))
def test_small_arguments_keep_their_relative_precision(value: Fraction) -> None:
    wide = 10_000 * NARROW  # 1 + value near 0 loses a few digits of value
    assert_encloses(Interval.of(value).expm1(), lambda: ball(value).expm1(), wide)
    if value > -1:
        assert_encloses(Interval.of(value).log1p(), lambda: ball(value).log1p(), wide)
        assert_encloses(log_of(1 + value), lambda: ball(value).log1p(), wide)


def decimals() -> list[Decimal]:
    near_one = [1 + sign * Decimal(10) ** -places for sign in (1, -1) for places in range(1, 59)]
    return [*near_one, *map(Decimal, ("2", "10", "1E+40", "3E-40", "9E+999999", "7E-999999"))]


@pytest.mark.parametrize("digits", [16, 60])
def test_decimal_rounds_ln_and_exp_correctly(digits: int) -> None:
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


def test_huge_numbers_by_their_leading_bits() -> None:
    long = 7 * 10**300_000 + 1
    found = log_of(Fraction(long, 3))
    assert_encloses(found, lambda: arb(10).log() * 300_000 + ball(Fraction(7, 3)).log())
    interval = Interval.of(long)
    assert interval.contains(long)
    assert Fraction(interval.high) - Fraction(interval.low) <= NARROW * long
    assert (-interval).contains(-long)
    assert Interval.of(-long) == -interval
    assert log_of(Fraction(3, long)) == -found


def test_few_digits_are_exact() -> None:
    for value in (0, 1, -7, 10**59, Fraction(1, 8), Fraction(-3, 2**40), 2**400):
        found = Interval.of(value)
        assert found.contains(value)
        assert (found.low == found.high) is (value != 2**400)
    assert Interval.from_dyadic(-3, -2) == Interval.of(Fraction(-3, 4))
    assert Interval.from_dyadic(3, 5) == Interval.of(96)
    assert Interval.of(1).log() == Interval.of(0) == log_of(1)
    assert Interval.of(0).exp() == Interval.of(1)
    assert Interval.of(49).sqrt() == Interval.of(7)


def test_more_digits_are_narrower_and_the_greater_number_of_digits_counts() -> None:
    third, finer = Interval.of(Fraction(1, 3), 20), Interval.of(Fraction(1, 3), 200)
    assert third.low < finer.low < finer.high < third.high
    assert (third + finer).digits == 200
    assert finer.to_digits(20) == third
    assert (2 * finer.log()).digits == 200
    assert finer.exp().high - finer.exp().low < Decimal("1E-195")


def test_comparisons_answer_only_what_is_certain() -> None:
    third = Interval.of(Fraction(1, 3))
    assert third.certainly_less(Fraction(1, 2))
    assert third.certainly_at_most(1)
    assert not third.certainly_less(third)
    assert not third.certainly_at_most(Fraction(1, 3))
    assert not Interval.of(1).certainly_less(1)
    assert Interval.of(1).certainly_at_most(1)
    assert not Interval.of(2).certainly_at_most(third)


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (lambda: Interval.of(0.5), TypeError),  # type: ignore[arg-type]
        (lambda: Interval.of(True), TypeError),
        (lambda: Interval.of(1) + 0.5, TypeError),  # type: ignore[operator]
        (lambda: Interval.of(2) ** 0.5, TypeError),  # type: ignore[operator]
        (lambda: Interval(Decimal(2), Decimal(1)), ValueError),
        (lambda: Interval(Decimal(1), Decimal("NaN")), ValueError),
        (lambda: Interval(Decimal(1), Decimal("Infinity")), ValueError),
        (lambda: Interval(Decimal(1), Decimal(1), 1), ValueError),
        (lambda: Interval.of(0).log(), ValueError),
        (lambda: Interval.of(-1).sqrt(), ValueError),
        (lambda: Interval.of(-1).log1p(), ValueError),
        (lambda: log_of(0), ValueError),
        (lambda: log_of(Fraction(-1, 2)), ValueError),
        (lambda: Interval.of(1) / 0, ArithmeticError),
        (lambda: Interval.of(1) / Interval(Decimal(-1), Decimal(1)), ArithmeticError),
        (lambda: Interval.of(10**30).exp(), ArithmeticError),
        (lambda: Interval.of(-(10**30)).exp(), ArithmeticError),
    ],
)
def test_what_is_inexact_or_out_of_range_raises(
    broken: Callable[[], Interval], error: type[Exception]
) -> None:
    with pytest.raises(error):
        broken()


def test_the_global_context_is_neither_read_nor_changed() -> None:
    expected = log_of(Fraction(7, 3)) * Fraction(1, 3)
    with decimal.localcontext(decimal.Context(prec=3, rounding=decimal.ROUND_UP)) as context:
        assert log_of(Fraction(7, 3)) * Fraction(1, 3) == expected
        assert not any(context.flags.values())


def test_threads_share_nothing() -> None:
    expected = {digits: log_of(Fraction(7, 3), digits) for digits in (20, 40, 80)}
    wrong: list[int] = []

    def work(digits: int) -> None:
        wrong.extend(
            digits for _ in range(30) if log_of(Fraction(7, 3), digits) != expected[digits]
        )

    threads = [threading.Thread(target=work, args=(digits,)) for digits in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_nothing_but_the_standard_library() -> None:
    code = (
        "import sys, promptlimits.checking.intervals, promptlimits.checking.record\n"
        "loaded = {'flint', 'numpy', 'torch', 'promptlimits.base.bound'} & set(sys.modules)\n"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("number", [2**1000 + 1, -(2**1000) - 1, 3**900, 5])
def test_leading_bits_enclose_the_number(number: int) -> None:
    leading, shift = intervals._leading(number, 20)
    assert (leading.low < leading.high) is (number != 5)
    assert Fraction(leading.low) <= Fraction(number, 2**shift) <= Fraction(leading.high)
