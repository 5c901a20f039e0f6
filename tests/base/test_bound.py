"""LogBound: exact in, one-sided out."""

import dataclasses
import math
import sys
import threading
from fractions import Fraction

import pytest
from flint import arb, ctx
from hypothesis import given, settings
from hypothesis import strategies as st

from promptlimits.base.bound import Assumption, LogBound, Source, product, tightest
from promptlimits.base.exact import working_precision

# The same examples on each run, and no deadline: machines are shared.
settings.register_profile("promptlimits", deadline=None, derandomize=True)
settings.load_profile("promptlimits")

SOURCE = Source(reference="promptlimits", statement="a lemma", form="proved here")
POSITIVE = st.fractions(min_value=Fraction(1, 10**40), max_value=10**40).filter(lambda q: q > 0)
DIRECTIONS = st.sampled_from(["upper", "lower"])


def bound(value, direction="upper", **more):
    return LogBound.of(value, direction=direction, quantity="q", source=SOURCE, **more)


def raw(log, direction="upper"):
    return LogBound(direction=direction, log=log, quantity="q", source=SOURCE)


def accessors(one):
    return {
        base: getattr(one, f"{one.direction}_{unit}")()
        for base, unit in ((None, "nats"), (10, "log10"))
    }


@pytest.mark.parametrize("value", [1.5, 1.0, float("nan"), "2", None, True, arb(2), 2j])
def test_a_float_is_refused(value):
    with pytest.raises(TypeError, match="must be an"):
        bound(value)


@pytest.mark.parametrize("log", [1.5, 2, "1", None, Fraction(1, 2)])
def test_the_logarithm_is_an_arb(log):
    with pytest.raises(TypeError, match="must be an arb"):
        raw(log)


@pytest.mark.parametrize("value", [0, -1, Fraction(-1, 2)])
def test_quantities_are_positive(value):
    with pytest.raises(ValueError, match="above 0"):
        bound(value)


@pytest.mark.parametrize("log", [arb("nan"), arb("inf"), arb("-inf"), arb(0).log(), arb(0, "inf")])
@pytest.mark.parametrize("direction", ["upper", "lower"])
def test_indeterminate_balls_raise(log, direction):
    with pytest.raises(ValueError, match="finite"):
        raw(log, direction)


def test_unknown_direction_raises():
    with pytest.raises(ValueError, match="direction"):
        raw(arb(1), "both")


@given(value=POSITIVE, direction=DIRECTIONS)
def test_floats_are_on_the_safe_side(value, direction):
    """Against the truth at 2,000 bits."""
    one = bound(value, direction)
    with working_precision(2000):
        truth = arb(value.numerator).log() - arb(value.denominator).log()
        for base, number in accessors(one).items():
            true = truth if base is None else truth / arb(base).log()
            if value == 1:
                true = arb(0)
            assert arb(number) >= true if direction == "upper" else arb(number) <= true


@given(value=POSITIVE, direction=DIRECTIONS)
def test_floats_are_tight(value, direction):
    for base, number in accessors(bound(value, direction)).items():
        expected = math.log(value.numerator) - math.log(value.denominator)
        expected /= 1 if base is None else math.log(base)
        assert math.isclose(number, expected, rel_tol=1e-12, abs_tol=1e-12)


def test_nearest_float_may_lie_below():
    """Why the accessors exist: rounding to nearest goes below about half of the time."""
    below = 0
    for value in range(2, 202):
        one = bound(value)
        nearest = float(one.log)
        assert one.upper_nats() >= nearest
        below += one.upper_nats() > nearest
        if one.upper_nats() > nearest:
            assert one.upper_nats() == math.nextafter(nearest, math.inf)
    assert 50 < below < 150


def test_huge_and_tiny_logarithms():
    huge = arb((1, 5000))  # the quantity is exp(2^5000)
    assert raw(huge).upper_nats() == math.inf
    assert raw(huge, "lower").lower_nats() == sys.float_info.max
    assert raw(-huge, "lower").lower_nats() == -math.inf
    assert raw(-huge).upper_nats() == -sys.float_info.max
    tiny = arb((1, -5000))
    assert raw(tiny).upper_nats() == math.nextafter(0, 1)
    assert raw(tiny, "lower").lower_nats() == 0


@pytest.mark.parametrize("direction", ["upper", "lower"])
def test_exact_ends_are_not_moved(direction):
    for number in (0, 1, -3, 2**60):
        assert accessors(raw(arb(number), direction))[None] == number
    assert set(accessors(bound(1, direction)).values()) == {0.0}


def test_values_do_not_change():
    for one in (bound(2), SOURCE, Assumption(text="a")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(one, dataclasses.fields(one)[0].name, "other")


def test_wrong_end_raises():
    with pytest.raises(TypeError, match="no lower one"):
        bound(3).lower_nats()
    with pytest.raises(TypeError, match="no upper one"):
        bound(3, "lower").upper_log10()


def test_the_safe_end_of_a_ball_is_kept():
    ball = arb(1, "0.25")
    assert raw(ball).log >= arb("1.25")
    assert raw(ball, "lower").log <= arb("0.75")
    assert raw(ball).log.is_exact()
    assert raw(ball).log < arb("1.2500001")


def multiplied(*bounds):
    return product(bounds, quantity="q", source=SOURCE)


@given(one=POSITIVE, two=POSITIVE, direction=DIRECTIONS)
def test_products_cover(one, two, direction):
    both = multiplied(bound(one, direction), bound(two, direction))
    assert both.direction == direction
    with working_precision(2000):
        truth = arb((one * two).numerator).log() - arb((one * two).denominator).log()
        assert both.log >= truth if direction == "upper" else both.log <= truth
        assert abs(both.log - truth) < 1e-30


def test_many_factors_still_cover():
    upper, lower = (multiplied(*[bound(3, end)] * 50).log for end in ("upper", "lower"))
    with working_precision(1000):
        assert lower < 50 * arb(3).log() < upper


def test_opposite_directions_do_not_multiply():
    with pytest.raises(ValueError, match="one direction, got lower and upper"):
        multiplied(bound(2), bound(2, "lower"))
    with pytest.raises(ValueError, match="got none"):
        multiplied()
    with pytest.raises(ValueError, match="one direction"):
        tightest([bound(2), bound(3, "lower")])


def test_tightest():
    assert tightest([bound(5), bound(3), bound(4)]) == bound(3)
    assert tightest([bound(5, "lower"), bound(3, "lower")]) == bound(5, "lower")
    other = LogBound.of(3, direction="upper", quantity="the same by another way", source=SOURCE)
    assert tightest([bound(3), other]) == bound(3)
    with pytest.raises(ValueError, match="at least one"):
        tightest([])


def test_assumptions_add_up_once():
    a, b = Assumption(text="a"), Assumption(text="b", holds=True)
    both = multiplied(bound(2, assumptions=(a, b)), bound(3, assumptions=(b,)))
    assert both.assumptions == (a, b)


@given(
    mantissa=st.integers(-(2**400), 2**400), exponent=st.integers(-3000, 3000), direction=DIRECTIONS
)
def test_the_limit_is_kept_exactly(mantissa, exponent, direction):
    with ctx.workprec(20):  # it must not depend on the precision of the day
        one, again = (
            dataclasses.replace(bound(2, direction), log=arb((mantissa, exponent))) for _ in "ab"
        )
    assert again == one
    assert hash(again) == hash(one)
    found, power = (int(part) for part in one.log.man_exp())
    assert found * Fraction(2) ** power == mantissa * Fraction(2) ** exponent


def test_equality_sees_every_field():
    one = bound(2)
    others = {
        "direction": "lower",
        "quantity": "r",
        "log": arb(1),
        "source": dataclasses.replace(SOURCE, statement="y"),
        "assumptions": (Assumption(text="t"),),
    }
    assert others.keys() == {field.name for field in dataclasses.fields(LogBound)}
    for field, other in others.items():
        assert dataclasses.replace(one, **{field: other}) != one
    assert one != 2


def test_precision_is_put_back():
    before = ctx.prec
    bound(3)
    assert ctx.prec == before
    with working_precision(500):
        assert ctx.prec == 500
        with pytest.raises(TypeError):
            bound(1.5)
        assert ctx.prec == 500
    assert ctx.prec == before


def test_threads_take_turns():
    wrong = []

    def work(bits):
        for _ in range(300):
            with working_precision(bits):
                if ctx.prec != bits:
                    wrong.append(bits)

    threads = [threading.Thread(target=work, args=(bits,)) for bits in (64, 128, 256, 512)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
