"""The independent checker: right certificates pass, any wrong number in one does not."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from fractions import Fraction
from typing import Any

import pytest
from flint import arb, ctx
from hypothesis import given
from hypothesis import strategies as st

from promptlimits.errors import RunFailed, UserError
from promptlimits.theory import check_counting as checker
from promptlimits.theory.check_counting import check_counting, log_enclosure
from promptlimits.theory.number_formats import NumberFormat, number_format
from promptlimits.theory.token_capacity import counting_ceiling


def certificate(**change: Any) -> dict[str, Any]:
    sizes = {
        "number": number_format("float32"),
        "dim": 32,
        "prompt_tokens": 2,
        "answer_set_size": 50,
        "pool": 400,
    } | change
    return json.loads(json.dumps(counting_ceiling(**sizes).certificate.to_json()))


def with_input(record: dict[str, Any], **change: Any) -> dict[str, Any]:
    return record | {"inputs": record["inputs"] | change}


@given(
    values=st.integers(2, 400),
    dim=st.integers(1, 50),
    prompt_tokens=st.integers(0, 5),
    answers=st.integers(1, 100),
    pool=st.none() | st.integers(1, 200),
    share=st.fractions(Fraction(1, 2**30), Fraction(99, 100)),
    precision=st.sampled_from([20, 128, 700]),
)
def test_right_certificates_pass(
    values: int,
    dim: int,
    prompt_tokens: int,
    answers: int,
    pool: int | None,
    share: Fraction,
    precision: int,
) -> None:
    check_counting(
        certificate(
            number=NumberFormat(name="t", values=values),
            dim=dim,
            prompt_tokens=prompt_tokens,
            answer_set_size=answers,
            pool=pool,
            share=share,
            precision_bits=precision,
        )
    )


@pytest.mark.parametrize(
    "change",
    [
        {"pairs": 384},
        {"pairs": 382},
        {"pairs": None},
        {"pairs": 0},
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
    ],
)
def test_wrong_numbers_do_not_pass(change: dict[str, Any]) -> None:
    record = certificate()
    assert record["inputs"]["pairs"] == 383
    with pytest.raises((RunFailed, UserError)):
        check_counting(with_input(record, **change))


def test_a_bigger_pool_is_seen() -> None:
    record = certificate()
    with pytest.raises(RunFailed, match="ceiling is higher"):
        check_counting(with_input(record, pool=900))


def test_bits_too_small_by_the_last_digit() -> None:
    """The recorded logarithm is within 2^-115 of the truth; so little below it is refuted."""
    record = certificate()
    log = record["bound"]["log"]
    hair = int(log["mantissa"]) >> 115
    small = {"mantissa": str(int(log["mantissa"]) - hair), "exponent": log["exponent"]}
    with pytest.raises(RunFailed, match="below values"):
        check_counting(record | {"bound": record["bound"] | {"log": small}})
    large = {"mantissa": str(int(log["mantissa"]) + hair), "exponent": log["exponent"]}
    check_counting(record | {"bound": record["bound"] | {"log": large}})


def test_no_prompt() -> None:
    record = certificate(prompt_tokens=0)
    check_counting(record)
    negative = {"mantissa": "-1", "exponent": "-300"}
    with pytest.raises(RunFailed, match="below values"):
        check_counting(record | {"bound": record["bound"] | {"log": negative}})


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
        numbers=9,
        answers=answers,
        pool=20,
        share=Fraction(1, 100),
        pairs=pairs,
        log_prompts=Fraction(0),
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
        certificate() | {"inputs": {}},
        with_input(certificate(), pairs=-1),
        with_input(certificate(), pairs=1.5),
        with_input(certificate(), pairs=True),
        with_input(certificate(), dim=0),
        with_input(certificate(), values_per_number="1"),
        with_input(certificate(), values_per_number="x"),
        with_input(certificate(), share_numerator="0"),
        with_input(certificate(), share_denominator="1"),
        with_input(certificate(), pool=-1),
        certificate() | {"bound": certificate()["bound"] | {"direction": "lower"}},
        certificate()
        | {"bound": certificate()["bound"] | {"log": {"mantissa": "1", "exponent": "99999999"}}},
    ],
)
def test_what_is_no_counting_certificate(record: Any) -> None:
    with pytest.raises(UserError, match="must be a counting certificate"):
        check_counting(record)


def test_the_checker_shares_no_arithmetic_with_the_theorem() -> None:
    code = (
        "import sys, promptlimits.theory.check_counting\n"
        "loaded = {'flint', 'numpy', 'torch', 'promptlimits.bound',\n"
        "          'promptlimits.theory.token_capacity'} & set(sys.modules)\n"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
