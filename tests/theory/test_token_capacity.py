"""The counting ceiling: closed forms, laws, and what it says in words."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptlimits.base.bound import Certificate
from promptlimits.base.errors import UserError
from promptlimits.checking.counting import check_counting
from promptlimits.theory.counting_claim import (
    ENVIRONMENTS_LOG2,
    RANDOM_ANSWERS,
    exact_text,
    format_text,
)
from promptlimits.theory.number_formats import NumberFormat, number_format
from promptlimits.theory.token_capacity import (
    DEFAULT_SHARE,
    CountingCeiling,
    counting_ceiling,
    prompt_count,
    share_held,
    shortest_prompt,
)


def ceiling(values: int = 256, **given_sizes: Any) -> CountingCeiling:
    usual = {"dim": 4, "prompt_tokens": 1, "answer_set_size": 16, "environments_log2": 0}
    sizes = usual | given_sizes
    return counting_ceiling(number=NumberFormat(name="test", values=values), **sizes)


def pairs(values: int = 256, **sizes: Any) -> int:
    found = ceiling(values, **sizes).pairs
    assert found is not None
    return found


def test_powers_of_two_in_closed_form() -> None:
    """N = 2^8, d m = 4, M = 2^4, share 2^-20: 32 - 4 k > -20 up to k = 12; k = 13 is a tie."""
    found = ceiling()
    assert found.pairs == 12
    assert found.every_list_pairs == 8
    assert found.bits.upper_bits() == pytest.approx(32, abs=1e-12)
    assert found.bits.upper_bits() >= 32
    assert found.answer_bits.lower_bits() <= 4
    assert found.share == DEFAULT_SHARE == Fraction(1, 2**20)


@given(
    a=st.integers(1, 40),
    numbers=st.integers(0, 500),
    b=st.integers(1, 40),
    s=st.integers(1, 90),
    h=st.integers(0, 100),
)
def test_powers_of_two_are_decided_exactly(a: int, numbers: int, b: int, s: int, h: int) -> None:
    """2^(h + a n - b k) > 2^-s up to k = ceil((h + a n + s)/b) - 1, ties included."""
    found = ceiling(
        2**a,
        dim=max(numbers, 1),
        prompt_tokens=1 if numbers else 0,
        answer_set_size=2**b,
        share=Fraction(1, 2**s),
        environments_log2=h,
    )
    assert found.pairs == -(-(h + a * numbers + s) // b) - 1
    assert found.every_list_pairs == (h + a * numbers) // b


def test_one_float32_token_of_a_small_model() -> None:
    """D = 576 against 243 capitals: 576 log2(2 * 255 * 2^23) bits at log2 243 bits each.

    2^64 environments are 64 bits more, worth 8.08 capitals; they are no bits of the prompt.
    """
    bits = 576 * math.log2(2 * 255 * 2**23)
    for more, most, every in ({"environments_log2": 0}, 2327, 2325), ({}, 2336, 2333):
        found = counting_ceiling(
            number=number_format("float32"),
            dim=576,
            prompt_tokens=1,
            answer_set_size=243,
            pool=246,
            **more,
        )
        extra = found.environments_log2
        assert found.pairs == math.floor((bits + extra + 20) / math.log2(243)) == most
        assert found.every_list_pairs == math.floor((bits + extra) / math.log2(243)) == every
        assert found.bits.upper_bits() == pytest.approx(bits, rel=1e-14)
    assert found.environments_log2 == ENVIRONMENTS_LOG2 == 64


SIZES = st.fixed_dictionaries(
    {
        "values": st.integers(2, 300),
        "dim": st.integers(1, 30),
        "prompt_tokens": st.integers(0, 9),
        "answer_set_size": st.integers(2, 200),
        "pool": st.none() | st.integers(1, 300),
        "share": st.fractions(Fraction(1, 2**30), Fraction(99, 100)),
        "environments_log2": st.integers(0, 70),
    }
)


@given(sizes=SIZES, more=st.integers(1, 5))
def test_monotone(sizes: dict[str, Any], more: int) -> None:
    here = pairs(**sizes)
    for size in ("values", "dim", "prompt_tokens", "environments_log2"):
        assert pairs(**(sizes | {size: sizes[size] + more})) >= here
    assert pairs(**(sizes | {"answer_set_size": sizes["answer_set_size"] + more})) <= here
    assert pairs(**(sizes | {"share": sizes["share"] / (1 + more)})) >= here
    assert pairs(**(sizes | {"pool": (sizes["pool"] or 0) + more})) >= here
    assert pairs(**(sizes | {"pool": None})) <= here


@given(sizes=SIZES)
def test_all_above_are_excluded_and_the_ceiling_is_not(sizes: dict[str, Any]) -> None:
    top = pairs(**sizes)
    pool, numbers = sizes["pool"] or 0, sizes["dim"] * sizes["prompt_tokens"]

    def limit(k: int) -> Fraction:
        prompts = sizes["values"] ** numbers * 2 ** sizes["environments_log2"]
        choices = math.comb(max(pool, k), k)
        return Fraction(prompts * choices, sizes["answer_set_size"] ** k)

    assert limit(top) > sizes["share"]
    for k in {top + 1, top + 2, max(pool, top + 1), pool + top + 1, 2 * top + 7}:
        assert limit(k) <= sizes["share"]


@given(sizes=SIZES)
def test_where_the_bound_rises_first(sizes: dict[str, Any]) -> None:
    """With many keys to choose from C(n, k) M^-k rises before it falls; the ceiling is past it."""
    sizes |= {"pool": 300, "answer_set_size": 2, "prompt_tokens": 0, "environments_log2": 0}
    top = pairs(**sizes)
    assert Fraction(math.comb(300, 1), 2) > 1
    assert top > 150
    assert Fraction(math.comb(300, top + 1), 2 ** (top + 1)) <= sizes["share"]


@given(sizes=SIZES, factor=st.integers(2, 6))
def test_scaling(sizes: dict[str, Any], factor: int) -> None:
    """Numbers of factor bits each = factor times as many numbers; answers likewise."""
    powers = sizes | {"values": sizes["values"] ** factor}
    assert pairs(**powers) == pairs(**(sizes | {"dim": factor * sizes["dim"]}))
    grouped = sizes | {"answer_set_size": sizes["answer_set_size"] ** factor, "pool": None}
    assert pairs(**grouped) == pairs(**(sizes | {"pool": None})) // factor


@given(sizes=SIZES, extra=st.integers(1, 9))
def test_additive(sizes: dict[str, Any], extra: int) -> None:
    """Two prompts end to end: bits add, and so do lists that can all be held, but for one."""
    sizes = sizes | {"pool": None, "environments_log2": 0}
    one, two = ceiling(**sizes), ceiling(**(sizes | {"prompt_tokens": extra}))
    both = ceiling(**(sizes | {"prompt_tokens": sizes["prompt_tokens"] + extra}))
    total = one.bits.upper_bits() + two.bits.upper_bits()
    assert both.bits.upper_bits() == pytest.approx(total, rel=1e-12)
    assert one.every_list_pairs is not None
    assert two.every_list_pairs is not None
    assert both.every_list_pairs in {
        one.every_list_pairs + two.every_list_pairs + carry for carry in (0, 1)
    }


@given(sizes=SIZES, wanted=st.integers(1, 200))
def test_shortest_prompt_inverts_the_ceiling(sizes: dict[str, Any], wanted: int) -> None:
    sizes.pop("prompt_tokens")
    number = NumberFormat(name="test", values=sizes["values"])
    names = ("dim", "answer_set_size", "pool", "share", "environments_log2")
    rest = {name: sizes[name] for name in names}
    least = shortest_prompt(pairs=wanted, number=number, **rest)
    assert pairs(**sizes, prompt_tokens=least) >= wanted
    if least:
        assert pairs(**sizes, prompt_tokens=least - 1) < wanted


@given(sizes=SIZES)
def test_share_held_at_the_ceiling(sizes: dict[str, Any]) -> None:
    """The proved share passes the share let through exactly above the ceiling."""
    top = pairs(**sizes)
    share = sizes["share"]
    names = ("dim", "prompt_tokens", "answer_set_size", "pool", "environments_log2")
    rest = {name: sizes[name] for name in names}
    number = NumberFormat(name="test", values=sizes["values"])
    above = share_held(pairs=top + 1, number=number, **rest)
    assert above.proves_at_most(share * Fraction(10**30 + 1, 10**30))
    if top:
        assert not share_held(pairs=top, number=number, **rest).proves_at_most(share)
    assert above.direction == "upper"
    assert len(above.factors) == 4


@pytest.mark.parametrize("bits", [4, 30, 128, 1000])
def test_precision_weakens_the_number_of_prompts_and_never_falsifies_it(bits: int) -> None:
    rough = prompt_count(
        number=NumberFormat(name="test", values=243), dim=50, prompt_tokens=1, precision_bits=bits
    )
    assert rough.proves_at_most(243**50 * Fraction(2**200 + 1, 2**200)) is (bits > 200)
    assert rough.upper_bits() >= 50 * math.log2(243) * (1 - 1e-15)


def test_a_single_answer_has_no_ceiling() -> None:
    found = ceiling(answer_set_size=1)
    assert found.pairs is None
    assert found.every_list_pairs is None
    assert "no ceiling" in found.statement
    assert "carry no information" in found.statement
    assert found.answer_bits.lower_bits() == 0


def test_no_prompt_holds_almost_nothing() -> None:
    found = ceiling(prompt_tokens=0)
    assert found.bits.upper_nats() == 0
    assert found.pairs == 4  # one list of 16^5 = 2^20 is let through by the share, 16^4 is not
    assert found.every_list_pairs == 0


def test_statement_in_full() -> None:
    assert ceiling(answer_set="the 16 distinct values of the list").statement == (
        "Of all lists of more than 12 answers, each drawn at random from the 16 distinct values "
        "of the list, at most one in 1,048,576 can be answered in full by any prompt of 1 token "
        "(test: 256 values), however it is found, in any of 1 decoding environment fixed "
        "beforehand; this is about random answers and does not say that particular facts, which "
        "the model may predict, cannot be held."
    )
    choosy = ceiling(pool=1000, prompt_tokens=2, share=Fraction(3, 7), environments_log2=64)
    assert choosy.statement == (
        f"Of all lists of 1,000 answers, each drawn at random from a set of 16 answers, at most "
        f"a share of 3/7 can have more than {choosy.pairs} "
        "answered right by any prompt of 2 tokens (test: 256 values), however it is found, in any "
        "of 2^64 decoding environments fixed beforehand; this is about random answers and does not "
        "say that particular facts, which the model may predict, cannot be held."
    )


def test_huge_sets_of_answers() -> None:
    found = ceiling(answer_set_size=49152**2000)
    assert found.pairs == 0
    assert "a set of at least 2^31169 answers" in found.statement
    record = json.loads(json.dumps(found.certificate.to_json(), allow_nan=False))
    assert int(record["inputs"]["answer_set_size"], 0) == 49152**2000
    check_counting(record)


def test_assumptions_say_whether_the_answers_are_random() -> None:
    for known in (True, False, None):
        held = {a.text: a.holds for a in ceiling(answers_random=known).assumptions}
        assert held.pop(RANDOM_ANSWERS) is known
        assert set(held.values()) == {None}
        assert len(held) == 4


def test_the_answers_may_depend_on_the_environment() -> None:
    texts = [assumption.text for assumption in ceiling(environments_log2=64).assumptions]
    assert (
        "The answers are a function of the prompt and of one of at most 2^64 decoding "
        "environments (hardware, kernels, batches, library versions) fixed before the list is "
        "drawn: no sampling."
    ) in texts
    assert any("at most 1 decoding environment (" in each.text for each in ceiling().assumptions)


def test_certificate_round_trip() -> None:
    found = ceiling(pool=20)
    assert Certificate.from_json(found.certificate.to_json()) == found.certificate
    assert found.certificate.kind == "counting"
    assert found.certificate.bound == found.bits
    assert found.source.form == "proved here"


@given(number=st.integers(-(2**5000), 2**20000))
def test_exact_text(number: int) -> None:
    assert int(exact_text(number), 0) == number


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dim": 0}, "numbers per prompt token must"),
        ({"dim": 2.0}, "numbers per prompt token must"),
        ({"prompt_tokens": -1}, "prompt tokens must"),
        ({"prompt_tokens": False}, "prompt tokens must"),
        ({"answer_set_size": 0}, "answer set size must"),
        ({"answer_set_size": 3.0}, "answer set size must"),
        ({"pool": 0}, "pool of keys must"),
        ({"environments_log2": -1}, "log2 of the environments must"),
        ({"environments_log2": False}, "log2 of the environments must"),
        ({"environments_log2": 1.5}, "log2 of the environments must"),
        ({"share": Fraction(0)}, "share of answer lists let through must"),
        ({"share": Fraction(1)}, "share of answer lists let through must"),
    ],
)
def test_bad_sizes(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        ceiling(**change)


def test_the_share_is_exact() -> None:
    with pytest.raises(TypeError, match="exact Fraction"):
        ceiling(share=1e-6)
    with pytest.raises(TypeError, match="exact Fraction"):
        shortest_prompt(
            pairs=1,
            number=number_format("float32"),
            dim=1,
            answer_set_size=2,
            share=0.5,  # type: ignore[arg-type]
        )


def test_bad_pairs() -> None:
    number = number_format("float32")
    with pytest.raises(UserError, match="pairs must"):
        shortest_prompt(pairs=0, number=number, dim=1, answer_set_size=2)
    with pytest.raises(UserError, match="pairs must"):
        share_held(pairs=0, number=number, dim=1, prompt_tokens=1, answer_set_size=2)


def test_prompt_count() -> None:
    count = prompt_count(number=NumberFormat(name="t", values=10), dim=3, prompt_tokens=2)
    assert count.proves_at_most(10**6 + 1)
    assert not count.proves_at_most(10**6 - 1)
    assert count.factors[0].proves_at_most(11)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (number_format("float32"), "float32"),
        (number_format("float32", "bfloat16"), "float32 stored, bfloat16 computed with"),
        (NumberFormat(name="mine", values=7), "mine: 7 values"),
        (NumberFormat(name="sign", values=2), "sign: 2 values"),
    ],
)
def test_the_name_of_a_format_fixes_its_count(number: NumberFormat, text: str) -> None:
    assert format_text(number) == text
