"""What every checker asks of a certificate: one form for each thing, and nothing else."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from flint import arb
from hypothesis import given, seed
from hypothesis import strategies as st
from tests.checking.altered import alterations, assert_all_refused, sealed_again

from promptlimits.base.bound import (
    PRECISION_BITS,
    Assumption,
    Certificate,
    LogBound,
    Source,
    working_precision,
)
from promptlimits.base.errors import RunFailed, UserError
from promptlimits.checking import record as reader
from promptlimits.checking.intervals import Interval, log_of
from promptlimits.checking.record import (
    dyadic,
    exact_fraction,
    fraction_text,
    long_integer,
    number_text,
    open_certificate,
    reading,
    recorded_bound,
    refuted,
    require_assumptions,
    require_log,
    require_same,
    require_source,
    whole,
)

SOURCE = Source(reference="promptlimits", statement="Lemma 1", form="proved here")
WORDS = ("Nothing else is known.", "The world is flat.")


def certificate() -> dict[str, Any]:
    """A made-up claim: 7^(3/2) is at most this."""
    seven = LogBound.of(7, direction="upper", quantity="seven", source=SOURCE)
    with working_precision(PRECISION_BITS):
        log = seven.log * 3 / 2
    bound = LogBound(
        direction="upper",
        log=log,
        quantity="seven to the 3/2",
        source=SOURCE,
        assumptions=(Assumption(text=WORDS[0]), Assumption(text=WORDS[1], holds=False)),
        factors=(seven,),
    )
    made = Certificate(kind="toy", bound=bound, inputs={"base": "7", "power": "3/2", "count": 2})
    return made.to_json()


def check(record: Any) -> str:
    """A checker in the form that the summary of `record` gives."""
    with reading("toy"):
        inputs, bound = open_certificate(record, kind="toy", inputs={"base", "power", "count"})
        base, count = long_integer(inputs["base"], 1), whole(inputs["count"], 1)
        power = exact_fraction(inputs["power"], above=0)
        (factor,) = bound.factors
    require_same((bound.direction, factor.direction), ("upper", "upper"), "a direction")
    require_same(bound.quantity, f"seven to the {power}", "the quantity")
    require_same((factor.quantity, factor.factors), ("seven", ()), "the factor")
    for part in (bound, factor):
        require_source(part, reference="promptlimits", statement="Lemma 1", form="proved here")
    require_assumptions(bound, WORDS, holds=(None, False))
    require_assumptions(factor, ())
    require_log(factor.log, lambda digits: log_of(base, digits), direction="upper", what="base")
    require_log(bound.log, lambda n: log_of(base, n) * power, direction="upper", what="power")
    if count != len(bound.assumptions):
        raise refuted(f"there are not {count} assumptions")
    return "so it is"


def test_no_alteration_passes() -> None:
    assert_all_refused(check, certificate())


def test_alterations_alter_everything() -> None:
    record = certificate()
    changes = list(alterations(record))
    paths = {".".join(map(str, change.path)) for change in changes}
    for path in (
        "",
        "schema",
        "kind",
        "digest",
        "inputs.power",
        "inputs.count",
        "bound.log.mantissa",
        "bound.assumptions.1.holds",
        "bound.assumptions.0.text",
        "bound.factors",
        "bound.factors.0.log.exponent",
        "bound.source.form",
    ):
        assert path in paths
    assert all(change.record != record for change in changes)
    assert record == certificate(), "alterations leave the record alone"
    assert all(
        change.record["digest"] == sealed_again(change.record)["digest"]
        for change in alterations(record, sealed=True)
    )


def test_a_checker_that_looks_at_nothing_is_found_out() -> None:
    with pytest.raises(AssertionError, match="passed although the digest differs"):
        assert_all_refused(lambda record: None, certificate())

    def only_the_digest(record: Any) -> None:
        if record != sealed_again(record):
            raise refuted("altered")

    with pytest.raises(AssertionError, match="a forger gets through"):
        assert_all_refused(only_the_digest, certificate())


def test_digest_is_that_of_the_writer() -> None:
    record = certificate()
    assert reader.digest(record) == record["digest"]
    with pytest.raises(RunFailed, match="altered"):
        reader.check_digest(record | {"digest": "0"})


@seed(0)
@given(st.fractions())
def test_fractions_have_one_form(value: Fraction) -> None:
    text = fraction_text(value)
    assert exact_fraction(text) == value
    assert text == str(value)
    for other in (f"{text} ", f"+{text}", f"0{text}", f"{value.numerator}/{value.denominator}/1"):
        with pytest.raises(ValueError):  # noqa: PT011 - any reason will do
            exact_fraction(other)


@pytest.mark.parametrize(
    "value", ["2/4", "3/1", "0/1", "1/0", "1/-2", "-0", "1e3", "0.5", "1_0", "0x10", "", "/", "1/"]
)
def test_other_forms_of_fractions_are_refused(value: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any reason will do
        exact_fraction(value)


def test_ranges() -> None:
    assert exact_fraction("1/2", above=0) == Fraction(1, 2)
    assert exact_fraction("0", least=0) == 0
    assert exact_fraction("-1/3") == Fraction(-1, 3)
    for value, limits in (("0", {"above": 0}), ("-1/3", {"least": 0}), ("1/2", {"least": 1})):
        with pytest.raises(ValueError, match="out of range"):
            exact_fraction(value, **limits)


def test_long_integers_are_hexadecimal() -> None:
    for number in (0, -5, 10**1000, 10**2000, -(10**2000)):
        assert long_integer(number_text(number), -(10**3000)) == number
    assert number_text(10**2000).startswith("0x")
    assert fraction_text(Fraction(1, 3**4000)).startswith("1/0x")
    assert exact_fraction(fraction_text(Fraction(5**4000, 3**4000))) == Fraction(5, 3) ** 4000
    for text in (hex(10), "10 ", "1_000", "010", "9" * 5000, hex(10**2000).upper()):
        with pytest.raises(ValueError):  # noqa: PT011 - any reason will do
            long_integer(text, 0)
    for value in (10, None, 1.0):
        with pytest.raises(TypeError):
            long_integer(value, 0)


@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_whole_numbers_are_integers(value: Any) -> None:
    with pytest.raises(TypeError):
        whole(value, 0)


@pytest.mark.parametrize(
    ("mantissa", "exponent"),
    [("2", "0"), ("0", "1"), ("-4", "3"), ("1", "9999"), ("01", "0"), ("1", "+1"), ("1", "")],
)
def test_dyadics_have_one_form(mantissa: str, exponent: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any reason will do
        dyadic({"mantissa": mantissa, "exponent": exponent})


def test_dyadics() -> None:
    assert dyadic({"mantissa": "-3", "exponent": "-2"}) == Fraction(-3, 4)
    assert dyadic({"mantissa": "5", "exponent": "100"}) == 5 * 2**100
    assert dyadic({"mantissa": "0", "exponent": "0"}) == 0
    with pytest.raises(TypeError):
        dyadic({"mantissa": 3, "exponent": "1"})


def test_a_bound_is_read_as_it_was_written() -> None:
    made = recorded_bound(certificate()["bound"])
    assert made.holds == (None, False)
    assert made.assumptions == WORDS
    assert made.factors[0].quantity == "seven"
    with working_precision(400):
        assert (arb(7).log() * 3 / 2 - arb(made.log.numerator) / made.log.denominator) < 0


def test_factors_without_end() -> None:
    record = certificate()["bound"]
    for _ in range(40):
        record = record | {"factors": [record]}
    with pytest.raises(ValueError, match="without end"):
        recorded_bound(record)


@pytest.mark.parametrize("record", [None, 1, [], {}, {"schema": 1}, {"schema": 1, "kind": "toy"}])
def test_what_is_no_certificate(record: Any) -> None:
    with pytest.raises(UserError, match="must be a toy certificate"):
        check(record)


def test_other_kinds_and_schemas() -> None:
    for change in ({"kind": "counting"}, {"schema": 2}, {"schema": True}, {"schema": 1.0}):
        with pytest.raises(UserError):
            check(sealed_again(certificate() | change))


LOG_7 = log_of(7, 200)
STEP = Fraction(1, 2**101)


@pytest.mark.parametrize("sign", [1, -1])
def test_logarithms_on_the_safe_side_and_tight(sign: int) -> None:
    """For a lower limit everything is the other way round."""
    direction = "upper" if sign > 0 else "lower"
    truth = Fraction(LOG_7.low)

    def ask(recorded: Fraction, **more: Any) -> None:
        require_log(
            recorded, lambda digits: log_of(7, digits), direction=direction, what="it", **more
        )

    ask(truth * (1 + sign * STEP))
    ask(truth * (1 + sign * STEP / 2**50))
    ask(truth * (1 + sign * Fraction(1, 10**70)))  # needs more digits than the first try has
    with pytest.raises(RunFailed, match="too low" if sign > 0 else "too high"):
        ask(truth * (1 - sign * STEP / 2**90))
    with pytest.raises(RunFailed, match="too high" if sign > 0 else "too low"):
        ask(truth * (1 + sign * 3 * STEP))
    ask(truth * (1 + sign * 3 * STEP), tight_bits=98)
    ask(truth * (1 + sign * 3 * STEP), scale=1000)
    with pytest.raises(RunFailed):
        ask(truth * (1 + sign * STEP), tight_bits=112)


def test_a_logarithm_that_is_exact() -> None:
    """log 1 = 0, and a recorded dyadic that is the truth itself."""
    long = Fraction(3**80, 2**100)
    require_log(Fraction(0), lambda n: log_of(1, n), direction="upper", what="one")
    require_log(long, lambda n: Interval.of(long, n), direction="upper", what="itself")
    for wrong in (-Fraction(1, 2**300), Fraction(1, 2**300)):
        with pytest.raises(RunFailed):
            require_log(wrong, lambda n: log_of(1, n), direction="upper", what="one")
    with pytest.raises(RunFailed, match="cannot be told"):
        require_log(
            Fraction(1, 3), lambda n: Interval.of(Fraction(1, 3), n), direction="upper", what="it"
        )


def test_a_type_matters() -> None:
    require_same((1, "a"), (1, "a"), "it")
    with pytest.raises(RunFailed, match="it is not the one that belongs to its inputs"):
        require_same(True, 1, "it")
