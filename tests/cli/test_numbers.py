"""Numbers on their way out: always rounded to the safe side."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptlimits.base.errors import UserError
from promptlimits.cli.options import non_negative, positive, rounded


@given(value=st.floats(-1e9, 1e9), up=st.booleans(), digits=st.integers(2, 9))
def test_signed_numbers_are_rounded_to_the_safe_side(value, up, digits):
    shown = Decimal(rounded(value, up=up, digits=digits))
    assert shown >= Decimal(value) if up else shown <= Decimal(value)


@pytest.mark.parametrize(
    ("value", "up", "shown"),
    [(-0.921567, True, "-0.9215"), (0.3, True, "0.3"), (0.25, False, "0.25"), (0.0, True, "0")],
)
def test_shown(value, up, shown):
    assert rounded(value, up=up, digits=4) == shown


def test_only_one_option_takes_0():
    for text in ("0", "0.0", "+0", "00."):
        assert non_negative("--least-deviation", text) == 0
        with pytest.raises(UserError, match="--radius must be a finite number above 0"):
            positive("--radius", text)


@pytest.mark.parametrize("text", ["-1", "-0.5", "nan", "inf", "1e2001", "1_0", "", "1/0", "\uff19"])
def test_what_is_no_number_is_refused_by_both(text):
    for read in (positive, non_negative):
        with pytest.raises(UserError, match="--eps must be"):
            read("--eps", text)
