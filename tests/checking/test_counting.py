"""The independent checker: right certificates pass, any wrong number in one does not."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest
from flint import arb, ctx
from hypothesis import given
from hypothesis import strategies as st

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.checking import counting as checker
from promptlimits.checking.counting import check_counting, log_enclosure
from promptlimits.theory.number_formats import _FINITE_VALUES, NumberFormat, number_format
from promptlimits.theory.token_capacity import counting_ceiling


def certificate(**change: Any) -> dict[str, Any]:
    sizes: dict[str, Any] = {
        "number": number_format("float32"),
        "dim": 32,
        "prompt_tokens": 2,
        "answer_set_size": 50,
        "pool": 400,
        "environments_log2": 0,
    } | change
    record: dict[str, Any] = counting_ceiling(**sizes).certificate.to_json()
    return record


def sealed(record: dict[str, Any]) -> dict[str, Any]:
    """The record as a forger would leave it: with a digest that fits."""
    rest = {field: value for field, value in record.items() if field != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return rest | {"digest": hashlib.sha256(text.encode()).hexdigest()}


def with_input(record: dict[str, Any], **change: Any) -> dict[str, Any]:
    return sealed(record | {"inputs": record["inputs"] | change})


def with_log(record: dict[str, Any], mantissa: int, exponent: str) -> dict[str, Any]:
    return with_bound(record, log={"mantissa": str(mantissa), "exponent": exponent})


def with_bound(record: dict[str, Any], **change: Any) -> dict[str, Any]:
    return sealed(record | {"bound": record["bound"] | change})


@given(
    values=st.integers(2, 400),
    dim=st.integers(1, 50),
    prompt_tokens=st.integers(0, 5),
    answers=st.integers(1, 100),
    pool=st.none() | st.integers(1, 200),
    share=st.fractions(Fraction(1, 2**30), Fraction(99, 100)),
    log2=st.integers(0, 99),
)
def test_right_certificates_pass(
    values: int,
    dim: int,
    prompt_tokens: int,
    answers: int,
    pool: int | None,
    share: Fraction,
    log2: int,
) -> None:
    check_counting(
        certificate(
            number=NumberFormat(name="t", values=values),
            dim=dim,
            prompt_tokens=prompt_tokens,
            answer_set_size=answers,
            pool=pool,
            share=share,
            environments_log2=log2,
        )
    )


@pytest.mark.parametrize(
    "change",
    [
        {"pairs": 384},
        {"pairs": 382},
        {"pairs": None},
        {"pairs": 0},
        {"every_list_pairs": None},
        {"every_list_pairs": 361},
        {"every_list_pairs": 363},
        {"pairs": None, "every_list_pairs": None},
        {"pool": 900},
        {"number_format": "bfloat16"},
        {"number_format": "float32 stored, float32 computed with"},
        {"number_format": "float32 computed with"},
        {"number_format": "float32 stored, float36 computed with"},
        {"number_format": "float36"},
        {"number_format": "float36: 4278190081 values"},
        {"answer_set": "a set of 51 answers"},
        {"answer_set": "the 49 distinct values of the list"},
        {"answer_set": "all sequences of 2 tokens out of 8 plain tokens"},
        {"answer_set": "a set of at least 2^6 answers"},
        {"answer_set": "a set of a single answer"},
        {"values_per_number": "4278190081"},
        {"values_per_number": "2"},
        {"dim": 33},
        {"dim": 31},
        {"prompt_tokens": 3},
        {"prompt_tokens": 1},
        {"answer_set_size": "49"},
        {"answer_set_size": "51"},
        {"answer_set_size": "1"},
        {"share_denominator": "1"},
        {"share_denominator": str(2**40)},
        {"environments_log2": 1},
        {"environments_log2": 64},
    ],
)
def test_wrong_numbers_do_not_pass(change: dict[str, Any]) -> None:
    record = certificate()
    assert record["inputs"]["pairs"] == 383
    with pytest.raises((RunFailed, UserError)):
        check_counting(with_input(record, **change))


def test_limits_are_tight_on_both_sides() -> None:
    """The recorded logarithm is within 2^-115 of the truth, and 2^-112 are let through."""
    record = certificate()
    log = record["bound"]["log"]
    mantissa, exponent = int(log["mantissa"]), log["exponent"]
    hair = (mantissa >> 115) & ~1
    check_counting(with_log(record, mantissa + hair, exponent))
    with pytest.raises(RunFailed, match="prompts is too low"):
        check_counting(with_log(record, mantissa - hair, exponent))
    with pytest.raises(RunFailed, match="prompts is too high"):
        check_counting(with_log(record, mantissa + 16 * hair, exponent))


def test_environments_are_counted_and_named() -> None:
    """64 bits more, at log2 50 bits an answer; one pair more or less is not the exact ceiling."""
    alone, record = certificate(pool=None), certificate(pool=None, environments_log2=64)
    for name in ("pairs", "every_list_pairs"):
        gain = record["inputs"][name] - alone["inputs"][name]
        assert abs(gain - 64 / math.log2(50)) < 1
    said = check_counting(record)
    assert "in any of 2^64 decoding environments" in said
    pairs = record["inputs"]["pairs"]
    for wrong, word in ((pairs - 1, "higher"), (pairs + 1, "lower")):
        with pytest.raises(RunFailed, match=f"the ceiling is {word}"):
            check_counting(with_input(record, pairs=wrong))
    for log2 in (0, 63, 65):
        with pytest.raises(RunFailed, match="its assumptions"):
            check_counting(with_input(record, environments_log2=log2))


def test_environments_altered_in_words_and_number_alike() -> None:
    """A forger who also changes the words meets the arithmetic."""
    record = certificate(pool=None, environments_log2=64)
    forged = json.loads(json.dumps(record).replace("2^64 decoding", "2^32 decoding"))
    with pytest.raises(RunFailed, match="the ceiling is lower"):
        check_counting(with_input(forged, environments_log2=32))


def test_no_prompt() -> None:
    record = certificate(prompt_tokens=0)
    check_counting(record)
    for mantissa, word in ((-1, "low"), (1, "high")):
        with pytest.raises(RunFailed, match=f"prompts is too {word}"):
            check_counting(with_log(record, mantissa, "-300"))


def test_a_total_that_is_not_the_power_of_its_factor() -> None:
    """Each limit alone is true and tight."""
    record = certificate()
    factor = record["bound"]["factors"][0]
    loose = factor["log"] | {"mantissa": str(int(factor["log"]["mantissa"]) + 2**40)}
    bound = record["bound"] | {"factors": [factor | {"log": loose}]}
    with pytest.raises(RunFailed, match="below the power of its factor"):
        check_counting(sealed(record | {"bound": bound}))


def test_a_pool_that_changes_nothing_is_another_true_claim() -> None:
    record = certificate(pool=None)
    pairs = record["inputs"]["pairs"]
    assert f"more than {pairs} answers" in check_counting(with_input(record, pool=pairs))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in items:
            yield from leaves(item, (*path, name))
    elif isinstance(value, str | int) and not isinstance(value, bool):
        yield path, value


def altered(record: dict[str, Any]) -> Iterator[tuple[tuple[Any, ...], int, dict[str, Any]]]:
    """Every certificate that differs from this one in one digit, be it in a number or in words."""
    for path, value in leaves(record):
        text = str(value)
        for place, digit in enumerate(text):
            if not digit.isdigit():
                continue
            for other in sorted(set("0123456789") - {digit}):
                changed: Any = text[:place] + other + text[place + 1 :]
                if isinstance(value, int):
                    changed = int(changed)
                forged = copy.deepcopy(record)
                holder = forged
                for name in path[:-1]:
                    holder = holder[name]
                holder[path[-1]] = changed
                yield path, place, forged


ATTACKED = [
    certificate(answer_set="the 50 distinct values of the list"),
    certificate(number=number_format("float32", "bfloat16"), pool=None, dim=3, prompt_tokens=1),
    certificate(number=NumberFormat(name="small", values=7), share=Fraction(3, 7)),
    certificate(
        answer_set_size=10**4, answer_set="all sequences of 4 tokens out of 10 plain tokens"
    ),
    certificate(answer_set_size=1),
    certificate(environments_log2=64),
]


@pytest.mark.parametrize("record", ATTACKED)
def test_any_altered_digit_fails(record: dict[str, Any]) -> None:
    check_counting(record)
    for path, _, forged in altered(record):
        with pytest.raises((RunFailed, UserError)) as refusal:
            check_counting(forged)
        if path != ("schema",):
            assert "the certificate was altered" in str(refusal.value)


@pytest.mark.parametrize("record", [*ATTACKED[:4], ATTACKED[5]])
def test_a_forger_with_a_digest_gets_only_true_claims_through(record: dict[str, Any]) -> None:
    """What passes is what the module's docstring lists, each a claim that is true again."""
    inputs = record["inputs"]
    for path, place, forged in altered(record):
        if path == ("digest",):
            continue
        try:
            check_counting(sealed(forged))
        except (RunFailed, UserError):
            continue
        if path[-1] == "mantissa":
            assert place >= 33
        else:
            assert path[0] == "inputs", path
            assert path[1] in {"pool", "share_numerator", "share_denominator"}
            again = counting_ceiling(
                number=NumberFormat(name="t", values=int(inputs["values_per_number"])),
                dim=inputs["dim"],
                prompt_tokens=inputs["prompt_tokens"],
                answer_set_size=int(inputs["answer_set_size"]),
                environments_log2=inputs["environments_log2"],
                pool=forged["inputs"]["pool"] or None,
                share=Fraction(
                    int(forged["inputs"]["share_numerator"]),
                    int(forged["inputs"]["share_denominator"]),
                ),
            )
            assert again.pairs == inputs["pairs"]


@pytest.mark.parametrize("part", ["assumptions", "source", "quantity", "factors"])
def test_words_belong_to_the_numbers(part: str) -> None:
    record = certificate()
    factor = record["bound"]["factors"][0]
    other = {
        "assumptions": record["bound"]["assumptions"][:-1],
        "source": record["bound"]["source"] | {"form": "as published"},
        "quantity": "different prompts of 2 tokens of 33 numbers",
        "factors": [factor | {"quantity": "values of one number (float64)"}],
    }
    with pytest.raises(RunFailed, match="does not hold"):
        check_counting(sealed(record | {"bound": record["bound"] | {part: other[part]}}))


def test_the_claim_in_words_has_the_verified_numbers() -> None:
    assert check_counting(certificate(prompt_tokens=1)) == (
        "of all lists of 400 answers, each drawn at random from 50 answers (a set of 50 answers), "
        "at most 1 in 1,048,576 have more than 251 answered right by any prompt of 1 token of 32 "
        "numbers (float32) in any of 1 decoding environment; lists of more than 181 include some "
        "that none answers in full; under the assumptions that it states"
    )
    assert "there is no ceiling" in check_counting(certificate(answer_set_size=1))


def test_the_formats_are_those_that_ceilings_are_computed_for() -> None:
    assert checker._FINITE_VALUES == _FINITE_VALUES
    for stored in _FINITE_VALUES:
        for computed in _FINITE_VALUES:
            check_counting(certificate(number=number_format(stored, computed)))


def test_ties_are_multiplied_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of comparing agree, also on an exact tie, where only integers decide."""
    for limit in (0, 2**22):
        monkeypatch.setattr(checker, "_EXACT_BITS", limit)
        record = certificate(
            number=NumberFormat(name="t", values=2**8), dim=4, answer_set_size=16, pool=None
        )
        assert record["inputs"]["pairs"] == 20  # 64 + 20 = 4 * 21 exactly
        check_counting(record)
        for wrong in (19, 21):
            with pytest.raises(RunFailed):
                check_counting(with_input(record, pairs=wrong))


@given(values=st.integers(2, 50), answers=st.integers(2, 50), pairs=st.integers(0, 40))
def test_logarithms_and_integers_agree(values: int, answers: int, pairs: int) -> None:
    claim = checker._Claim(
        values=values,
        format="t",
        dim=3,
        tokens=3,
        environments_log2=7,
        answers=answers,
        answer_set="t",
        pool=20,
        share=Fraction(1, 100),
        pairs=pairs,
        every_list=0,
    )
    by_integers = checker._exceeds_share(claim, pairs)
    original = checker._EXACT_BITS
    try:
        checker._EXACT_BITS = 0  # type: ignore[misc]
        assert checker._exceeds_share(claim, pairs) is by_integers
    finally:
        checker._EXACT_BITS = original  # type: ignore[misc]


def test_large_prompts_are_checked_without_multiplying_out() -> None:
    check_counting(certificate(dim=8192, prompt_tokens=4096))


@given(number=st.integers(1, 2**3000), bits=st.integers(8, 400))
def test_log_enclosure(number: int, bits: int) -> None:
    low, high = log_enclosure(number, bits)
    with ctx.workprec(4000):
        truth = arb(number).log() * arb(2) ** bits
        assert arb(low) <= truth if number > 1 else low == 0
        assert arb(high) >= truth if number > 1 else high == 0
    assert high - low <= 100 * bits * (number.bit_length() + 2)


def test_log_enclosure_is_tight() -> None:
    low, high = log_enclosure(10, 400)
    assert Fraction(high - low, 2**400) < Fraction(1, 2**380)
    assert math.isclose(low / 2**400, math.log(10), rel_tol=1e-15)


@pytest.mark.parametrize(
    "record",
    [
        None,
        {},
        certificate() | {"schema": 2},
        certificate() | {"kind": "covering"},
        sealed(certificate() | {"inputs": {}}),
        with_input(certificate(), pairs=-1),
        with_input(certificate(), pairs=1.5),
        with_input(certificate(), pairs=True),
        with_input(certificate(), dim=0),
        with_input(certificate(), values_per_number="1"),
        with_input(certificate(), values_per_number="x"),
        with_input(certificate(), share_numerator="0"),
        with_input(certificate(), share_denominator="1"),
        with_input(certificate(), pool=-1),
        with_input(certificate(), environments_log2=-1),
        with_input(certificate(), environments_log2=True),
        with_input(certificate(), share_numerator="2"),
        with_input(certificate(), values_per_number="04278190080"),
        with_input(certificate(), values_per_number=4278190080),
        with_input(certificate(), answer_set=["a"]),
        with_input(certificate(), more=1),
        certificate() | {"more": 1},
        with_log(certificate(), 2, "0"),
        with_log(certificate(), 1, "00"),
        with_log(certificate(), 1, "99999999"),
        with_bound(certificate(), direction="lower"),
        with_bound(certificate(), factors=[]),
        with_bound(certificate(), factors=[certificate()["bound"]]),
        with_bound(certificate(), assumptions=[]),
        with_bound(certificate(), assumptions=[None]),
        with_bound(certificate(), assumptions=[{"text": "", "holds": 1}]),
    ],
)
def test_what_is_no_counting_certificate(record: Any) -> None:
    with pytest.raises(UserError, match="must be a counting certificate"):
        check_counting(record)


def test_the_checker_shares_no_arithmetic_with_the_theorem() -> None:
    code = (
        "import sys, promptlimits.checking.counting\n"
        "loaded = {'flint', 'numpy', 'torch', 'promptlimits.base.bound',\n"
        "          'promptlimits.theory.token_capacity'} & set(sys.modules)\n"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["float32", "any real numbers whatsoever, float64", "Float 16"])
def test_the_name_of_a_known_format_is_not_lent(name: str) -> None:
    own = certificate(number=NumberFormat(name="mine", values=2), answer_set_size=100)
    assert own["bound"]["factors"][0]["quantity"] == "values of one number (mine: 2 values)"
    text = json.dumps(own)
    check_counting(sealed(json.loads(text.replace("mine: 2", "a bit: 2"))))
    with pytest.raises(RunFailed, match="another number of values"):
        check_counting(sealed(json.loads(text.replace("mine: 2", f"{name}: 2"))))


@pytest.mark.parametrize(
    "change",
    [
        {"pool": 10**9, "pairs": 4 * 10**8},
        {"pool": 10**4000, "pairs": 10**5},
        {"pool": 2 * 10**6, "pairs": 10**6},
    ],
)
def test_hostile_numbers_are_refused_at_once(change: dict[str, int]) -> None:
    record = with_input(certificate(), **change)
    # Multiplied out, these would take longer than anyone waits: that the test ends is the test.
    with pytest.raises(RunFailed):
        check_counting(record)


def test_a_tie_of_astronomical_powers_is_decided() -> None:
    record = certificate(
        number=NumberFormat(name="t", values=2**8),
        dim=10**12,
        prompt_tokens=1,
        answer_set_size=2**4,
        pool=None,
    )
    assert record["inputs"]["every_list_pairs"] == 2 * 10**12
    check_counting(record)
    with pytest.raises(RunFailed):
        check_counting(with_input(record, every_list_pairs=2 * 10**12 + 1))


def test_long_selections_are_compared_by_their_logarithms() -> None:
    record = certificate(dim=64, prompt_tokens=100, answer_set_size=2, pool=4 * 10**5)
    check_counting(record)
    for step in (-1, 1):
        with pytest.raises(RunFailed, match="the ceiling is"):
            check_counting(with_input(record, pairs=record["inputs"]["pairs"] + step))


@given(keys=st.integers(2, 5000), data=st.data())
def test_log_choices(keys: int, data: st.DataObject) -> None:
    pairs = data.draw(st.integers(1, keys - 1))
    low, high = checker.log_choices(keys, pairs)
    least, most = log_enclosure(math.comb(keys, pairs), checker._LOG_BITS)
    assert low <= most
    assert least <= high
    fewer = min(pairs, keys - pairs)
    assert Fraction(high - low, 2**checker._LOG_BITS) < Fraction(1, 60 * fewer**2)


@given(
    factors=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 12)), min_size=1, max_size=4),
    others=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 12)), min_size=1, max_size=4),
)
def test_equal_products(factors: list[tuple[int, int]], others: list[tuple[int, int]]) -> None:
    more, less = tuple(factors), tuple(others)
    product = math.prod(base**power for base, power in more)
    assert checker._are_equal(more, less) is (
        product == math.prod(base**power for base, power in less)
    )
    assert checker._are_equal(more, ((product, 1),))
