"""Upper ends: never below the truth, whatever the precision, and never from a float."""

import math
from fractions import Fraction

import pytest
from flint import arb, ctx

from promptlimits.base.bound import Source
from promptlimits.base.errors import UserError
from promptlimits.lipschitz.balls.rounding import ball, least, total, upper, upper_log_bound

SOURCE = Source(reference="promptlimits", statement="a test", form="proved here")


@pytest.mark.parametrize("bits", [10, 53, 128])
def test_the_upper_end_is_at_or_above_the_truth(bits):
    third = Fraction(1, 3)
    with ctx.workprec(bits):
        assert third < upper(ball(third)) < third * (1 + Fraction(8, 2**bits))
        assert upper(arb(3, 2)) >= 5
        assert upper(total([ball(third)] * 3)) >= 1
        assert upper(ball(Fraction(3, 8))) == Fraction(3, 8)
        assert upper(arb(2).sqrt()) ** 2 > 2


def test_the_least_limit_is_judged_by_its_upper_end():
    narrow, wide = arb(2), arb(1, 3)
    assert upper(least(wide, narrow)) == 2


@pytest.mark.parametrize("value", [0.5, True, "1", arb(1)])
def test_only_exact_numbers_become_balls(value):
    with pytest.raises(TypeError, match="must be an"):
        ball(value)


def test_zero_and_infinity_have_their_rules():
    zero = upper_log_bound(arb(0), quantity="nothing", source=SOURCE)
    assert zero.upper_nats() == pytest.approx(-4096 * math.log(2))
    with pytest.raises(UserError, match="keep the bound below"):
        upper_log_bound(arb("inf"), quantity="everything", source=SOURCE)
    with pytest.raises(ValueError, match="finite"):
        upper(arb("nan"))
