"""Numbers on their way out: always rounded to the safe side."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptlimits.base.errors import UserError
from promptlimits.cli.numbers import non_negative, positive, recorded, rounded


@given(
    value=st.fractions(Fraction(1, 10**6), 10**6),
    power=st.integers(-700, 700),
    up=st.booleans(),
)
def test_recorded_and_rounded_are_on_the_safe_side(value: Fraction, power: int, up: bool) -> None:
    exact = max(value, Fraction(1, 10**6)) * Fraction(10) ** power
    one = recorded(exact, up=up)
    shown = rounded(one, up=up)
    for text, digits in ((one, 15), (shown, 3)):
        found = Fraction(Decimal(text))
        assert found >= exact if up else found <= exact
        assert abs(found - exact) <= exact / 10**digits
    assert isinstance(one, float) is (Fraction(1, 10**300) < exact < 10**300)


@given(value=st.floats(-1e9, 1e9), up=st.booleans(), digits=st.integers(2, 9))
def test_signed_numbers_are_rounded_to_the_safe_side(value: float, up: bool, digits: int) -> None:
    shown = Decimal(rounded(value, up=up, digits=digits))
    assert shown >= Decimal(value) if up else shown <= Decimal(value)


@pytest.mark.parametrize(
    ("value", "up", "shown"),
    [(-0.921567, True, "-0.9215"), (0.3, True, "0.3"), (0.25, False, "0.25"), (0.0, True, "0")],
)
def test_shown(value: float, up: bool, shown: str) -> None:
    assert rounded(value, up=up, digits=4) == shown


def test_negative_and_no_numbers_are_recorded_as_floats() -> None:
    assert recorded(Fraction(0), up=True) == 0.0
    assert recorded(Fraction(-1, 3), up=True) == -(1 / 3)
    assert recorded(Fraction(-10, 3), up=False) <= Fraction(-10, 3)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e1500", Fraction(10) ** 1500),
        ("1e-2000", Fraction(1, 10**2000)),
        (" 0.1 ", Fraction(1, 10)),
        ("10/3", Fraction(10, 3)),
    ],
)
def test_numbers_are_read_exactly(text: str, value: Fraction) -> None:
    assert positive("--radius", text) == non_negative("--radius", text) == value


def test_only_one_option_takes_0() -> None:
    for text in ("0", "0.0", "+0", "00."):
        assert non_negative("--least-deviation", text) == 0
        with pytest.raises(UserError, match="--radius must be a finite number above 0"):
            positive("--radius", text)


@pytest.mark.parametrize("text", ["-1", "-0.5", "nan", "inf", "1e2001", "1_0", "", "1/0", "\uff19"])
def test_what_is_no_number_is_refused_by_both(text: str) -> None:
    for read in (positive, non_negative):
        with pytest.raises(UserError, match="--eps must be"):
            read("--eps", text)
