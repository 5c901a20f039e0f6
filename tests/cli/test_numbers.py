"""Numbers on their way out: always rounded to the safe side."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptlimits.cli.numbers import recorded, rounded


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
