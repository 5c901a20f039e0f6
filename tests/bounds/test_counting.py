"""The counting ceiling: closed forms, laws, formats, and what it says in words."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from flint import arb, ctx
from hypothesis import given
from hypothesis import strategies as st
from tests.bounds.certificates import plain

from promptlimits.base.errors import UserError
from promptlimits.bounds.counting import FORMATS, Counting, shortest_prompt
from promptlimits.certificates import check_certificate


def ceiling(values=256, **given_sizes):
    usual = {"dim": 4, "prompt_tokens": 1, "answers": 16, "environments_log2": 0}
    return Counting.model_validate({**usual, "values": values, **given_sizes})


def value(values=256, **sizes):
    return ceiling(values, **sizes).value()


def pairs(values=256, **sizes):
    return value(values, **sizes)["pairs"]


def values_of(name):
    return ceiling(name).values


def test_powers_of_two_in_closed_form():
    """N = 2^8, d m = 4, M = 2^4, share 2^-20: 32 - 4 k > -20 up to k = 12; k = 13 is a tie."""
    found = value()
    assert found["pairs"] == 12
    assert found["every_list_pairs"] == 8
    assert ceiling().prompt_bits() == pytest.approx(32, abs=1e-12)
    assert ceiling().prompt_bits() >= 32
    assert ceiling().share == Fraction(1, 2**20)


@given(
    a=st.integers(1, 40),
    numbers=st.integers(0, 500),
    b=st.integers(1, 40),
    s=st.integers(1, 90),
    h=st.integers(0, 100),
)
def test_powers_of_two_are_decided_exactly(a, numbers, b, s, h):
    """2^(h + a n - b k) > 2^-s up to k = ceil((h + a n + s)/b) - 1, ties included."""
    found = value(
        2**a,
        dim=max(numbers, 1),
        prompt_tokens=1 if numbers else 0,
        answers=2**b,
        share=Fraction(1, 2**s),
        environments_log2=h,
    )
    assert found["pairs"] == -(-(h + a * numbers + s) // b) - 1
    assert found["every_list_pairs"] == (h + a * numbers) // b


def test_one_float32_token_of_a_small_model():
    """D = 576 against 243 capitals: 576 log2(2 * 255 * 2^23) bits at log2 243 bits each.

    2^64 environments are 64 bits more, worth 8.08 capitals; they are no bits of the prompt.
    """
    bits = 576 * math.log2(2 * 255 * 2**23)
    sizes = {"dim": 576, "values": "float32", "answers": 243, "pool": 246, "prompt_tokens": 1}
    for more, most, every in ({"environments_log2": 0}, 2327, 2325), ({}, 2336, 2333):
        case = Counting.model_validate(sizes | more)
        extra, found = case.environments_log2, case.value()
        assert found["pairs"] == math.floor((bits + extra + 20) / math.log2(243)) == most
        assert found["every_list_pairs"] == math.floor((bits + extra) / math.log2(243)) == every
        assert case.prompt_bits() == pytest.approx(bits, rel=1e-14)
    assert case.environments_log2 == 64


SIZES = st.fixed_dictionaries(
    {
        "values": st.integers(2, 300),
        "dim": st.integers(1, 30),
        "prompt_tokens": st.integers(0, 9),
        "answers": st.integers(2, 200),
        "pool": st.integers(0, 300),
        "share": st.fractions(Fraction(1, 2**30), Fraction(99, 100)),
        "environments_log2": st.integers(0, 70),
    }
)


@given(sizes=SIZES, more=st.integers(1, 5))
def test_monotone(sizes, more):
    here = pairs(**sizes)
    for size in ("values", "dim", "prompt_tokens", "environments_log2"):
        assert pairs(**(sizes | {size: sizes[size] + more})) >= here
    assert pairs(**(sizes | {"answers": sizes["answers"] + more})) <= here
    assert pairs(**(sizes | {"share": sizes["share"] / (1 + more)})) >= here
    assert pairs(**(sizes | {"pool": sizes["pool"] + more})) >= here
    assert pairs(**(sizes | {"pool": 0})) <= here


@given(sizes=SIZES)
def test_all_above_are_excluded_and_the_ceiling_is_not(sizes):
    top = pairs(**sizes)
    pool, numbers = sizes["pool"], sizes["dim"] * sizes["prompt_tokens"]

    def limit(k):
        prompts = sizes["values"] ** numbers * 2 ** sizes["environments_log2"]
        choices = math.comb(max(pool, k), k)
        return Fraction(prompts * choices, sizes["answers"] ** k)

    assert limit(top) > sizes["share"]
    for k in {top + 1, top + 2, max(pool, top + 1), pool + top + 1, 2 * top + 7}:
        assert limit(k) <= sizes["share"]


@given(sizes=SIZES)
def test_where_the_bound_rises_first(sizes):
    """With many keys to choose from C(n, k) M^-k rises before it falls; the ceiling is past it."""
    sizes |= {"pool": 300, "answers": 2, "prompt_tokens": 0, "environments_log2": 0}
    top = pairs(**sizes)
    assert Fraction(math.comb(300, 1), 2) > 1
    assert top > 150
    assert Fraction(math.comb(300, top + 1), 2 ** (top + 1)) <= sizes["share"]


@given(sizes=SIZES, factor=st.integers(2, 6))
def test_scaling(sizes, factor):
    """Numbers of factor bits each = factor times as many numbers; answers likewise."""
    powers = sizes | {"values": sizes["values"] ** factor}
    assert pairs(**powers) == pairs(**(sizes | {"dim": factor * sizes["dim"]}))
    grouped = sizes | {"answers": sizes["answers"] ** factor, "pool": 0}
    assert pairs(**grouped) == pairs(**(sizes | {"pool": 0})) // factor


@given(sizes=SIZES, extra=st.integers(1, 9))
def test_additive(sizes, extra):
    """Two prompts end to end: bits add, and so do lists that can all be held, but for one."""
    sizes = sizes | {"pool": 0, "environments_log2": 0}
    lengths = sizes["prompt_tokens"], extra, sizes["prompt_tokens"] + extra
    cases = [ceiling(**(sizes | {"prompt_tokens": tokens})) for tokens in lengths]
    one, two, both = (case.prompt_bits() for case in cases)
    assert both == pytest.approx(one + two, rel=1e-12)
    first, second, joined = (case.value()["every_list_pairs"] for case in cases)
    assert joined in {first + second, first + second + 1}


@given(sizes=SIZES, wanted=st.integers(1, 200))
def test_shortest_prompt_inverts_the_ceiling(sizes, wanted):
    least = shortest_prompt(ceiling(**sizes), wanted)
    assert pairs(**(sizes | {"prompt_tokens": least})) >= wanted
    if least:
        assert pairs(**(sizes | {"prompt_tokens": least - 1})) < wanted


@given(sizes=SIZES)
def test_the_share_at_the_ceiling(sizes):
    """The share held passes the share let through exactly above the ceiling."""
    case, top = ceiling(**sizes), pairs(**sizes)
    limit = math.log(sizes["share"])
    assert case.excluded(top + 1)
    assert float(case.log_share(top + 1).lower()) <= limit + 1e-9
    assert not case.excluded(top)
    assert float(case.log_share(top).upper()) >= limit - 1e-9


def test_prompts_are_counted():
    """10^6 prompts of 6 digits, an upper limit."""
    case = ceiling(10, dim=3, prompt_tokens=2)
    point = case.value()["log_prompts"]
    with ctx.workprec(300):
        assert 0 < arb((point, -96)) - 6 * arb(10).log() < arb((1, -96))
    assert case.prompt_bits() >= 6 * math.log2(10) * (1 - 1e-15)


def test_a_single_answer_has_no_ceiling():
    found = value(answers=1)
    assert found["pairs"] is None
    assert found["every_list_pairs"] is None
    assert ceiling(answers=1).claim(found) == (
        "There is no ceiling: with a single answer to give, the answers carry no information."
    )


def test_no_prompt_holds_almost_nothing():
    found = value(prompt_tokens=0)
    assert found["log_prompts"] == 0
    assert ceiling(prompt_tokens=0).prompt_bits() == 0
    assert found["pairs"] == 4  # one list of 16^5 = 2^20 is let through by the share, 16^4 is not
    assert found["every_list_pairs"] == 0


def test_statement_in_full():
    case = ceiling(255)
    assert case.claim(case.value(), answers="the 16 distinct values of the list") == (
        "Of all lists of more than 12 answers, each drawn at random from the 16 distinct values "
        "of the list, at most one in 1,048,576 can be answered in full by any prompt of 1 token "
        "(255 values), however it is found, in any of 1 decoding environment fixed "
        "beforehand; this is about random answers and does not say that particular facts, which "
        "the model may predict, cannot be held. Lists of more than 7 answers include some that no "
        "prompt answers in full."
    )
    choosy = ceiling(
        "float32/float16", pool=1000, prompt_tokens=2, share=Fraction(3, 7), environments_log2=64
    )
    found = choosy.value()
    assert choosy.claim(found) == (
        f"Of all lists of 1,000 answers, each drawn at random from a set of 16 answers, at most "
        f"a share of 3/7 can have more than {found['pairs']} "
        "answered right by any prompt of 2 tokens (63,490 values, as of another format "
        "computed with in float16), however it is found, in any of 2^64 decoding environments "
        "fixed beforehand; this is about random answers and does not say that particular facts, "
        "which the model may predict, cannot be "
        f"held. Lists of more than {found['every_list_pairs']} answers include some that no "
        "prompt answers in full."
    )


def test_huge_sets_of_answers():
    case = ceiling(answers=49152**2000)
    assert case.value()["pairs"] == 0
    record = plain(case)
    assert int(record["inputs"]["answers"], 0) == 49152**2000
    assert "a set of at least 2^31169 answers" in check_certificate(record)


def test_the_answers_may_depend_on_the_environment():
    texts = ceiling(environments_log2=64).rests_on()
    assert len(texts) == 5
    assert (
        "The answers are a function of the prompt and of one of at most 2^64 decoding "
        "environments (hardware, kernels, batches, library versions) fixed before the list is "
        "drawn: no sampling."
    ) in texts
    assert any("at most 1 decoding environment (" in text for text in ceiling().rests_on())


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("dim", [0, 2.0, True, "1e3", None, 10**19]),
        ("prompt_tokens", [-1, False]),
        ("answers", [0, 3.0]),
        ("pool", [-1, 1.5]),
        ("environments_log2", [-1, False, 1.5]),
        ("share", [Fraction(0), Fraction(1), 1e-6, "2"]),
        ("values", [1, 0, -3, 2.0, True, None, "1"]),
    ],
)
def test_bad_sizes(name, bad):
    for other in bad:
        with pytest.raises(UserError, match=f"^{name} must .*; "):
            ceiling(**{name: other})


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("float16", np.uint16),
        ("bfloat16", np.uint16),
        ("float8_e5m2", np.uint8),
        ("float8_e4m3fn", np.uint8),
    ],
)
def test_every_finite_bit_pattern_is_counted(name, bits):
    patterns = torch.from_numpy(np.arange(np.iinfo(bits).max + 1).astype(bits))
    numbers = patterns.view(getattr(torch, name)).to(torch.float32)
    assert values_of(name) == int(torch.isfinite(numbers).sum())


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_wide_formats(name):
    info = np.finfo(name)
    exponents = 2**info.iexp - 1  # all but the one of infinities and NaNs
    assert values_of(name) == 2 * exponents * 2**info.nmant
    assert values_of("float32") == 4_278_190_080


def test_the_smaller_count_rules():
    narrow = values_of("bfloat16")
    assert values_of("bfloat16/float32") == narrow
    # Two images more: what overflows on conversion.
    assert values_of("float32/bfloat16") == narrow + 2
    assert values_of("float32/float32") == values_of("float32")


def test_conversion_reaches_no_more_values_than_counted():
    """All float16 numbers, computed with in float8: distinct images, overflow included."""
    patterns = torch.from_numpy(np.arange(2**16).astype(np.uint16)).view(torch.float16)
    finite = patterns[torch.isfinite(patterns)]
    for name in ("float8_e5m2", "float8_e4m3fn"):
        images = finite.to(getattr(torch, name)).view(torch.uint8)
        assert len(images.unique()) <= values_of(f"float16/{name}")


@pytest.mark.parametrize("name", ["float31", "", "int8", "fp32", "bf16", "Float32", "fl\u043eat32"])
def test_the_list_of_formats_is_closed(name):
    for text in (name, f"float32/{name}x", f"{name}/float32"):
        with pytest.raises(UserError, match="values must be one of float64, float32"):
            ceiling(text)


def test_counts_are_named_after_their_format_alone():
    for name, count in FORMATS.items():
        assert f"({name})" in ceiling(count).claim(value(count))
    assert "(257 values)" in ceiling(257).claim(value(257))
