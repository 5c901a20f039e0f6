"""The checker of counts and of Theorem 1, against slow twins; what it must not take for true."""

import math
from fractions import Fraction

import pytest
from flint import arb, ctx
from hypothesis import given
from hypothesis import strategies as st
from tests.bounds.certificates import plain

from promptlimits import checker
from promptlimits.bounds.counting import FORMATS, Counting
from promptlimits.bounds.prompt_capacity import PromptCapacity
from promptlimits.checker import core, prompts
from promptlimits.checker.core import Last, Refuted, exceeds, grid_up, is_one, negative
from promptlimits.checker.intervals import log, precision, real


def certificate(**change):
    sizes = {"dim": 32, "prompt_tokens": 2, "values": "float32", "answers": 50, "pool": 400}
    return plain(Counting.model_validate({**sizes, "environments_log2": 0} | change))


def claims(record, **values):
    """Whether a certificate with other values passes."""
    try:
        checker.check(record | {"value": record["value"] | values})
    except Refuted:
        return False
    return True


@given(
    values=st.integers(2, 400),
    dim=st.integers(1, 20),
    answers=st.integers(2, 100),
    pool=st.integers(0, 60),
    share=st.fractions(Fraction(1, 2**30), Fraction(99, 100)),
    log2=st.integers(0, 99),
    found=st.integers(0, 90),
    every=st.integers(0, 60),
)
def test_the_limits_multiplied_out(
    *, values, dim, answers, pool, share, log2, found,
    every
):  # fmt: skip
    """The slow twin: integers alone, for right and wrong claims alike."""

    def not_excluded(k):
        lists = 2**log2 * values**dim * math.comb(max(pool, k), k)
        return lists * share.denominator > share.numerator * answers**k

    def held(k):
        return answers**k <= 2**log2 * values**dim

    case = {"dim": dim, "prompt_tokens": 1, "values": values, "answers": answers, "pool": pool}
    record = certificate(**case, share=share, environments_log2=log2)
    assert claims(record)
    assert claims(record, pairs=found) is (not_excluded(found) and not not_excluded(found + 1))
    assert claims(record, every_list_pairs=every) is (held(every) and not held(every + 1))


@pytest.mark.parametrize(
    "change",
    [
        {"pairs": None},
        {"pairs": 0},
        {"every_list_pairs": None},
        {"pairs": None, "every_list_pairs": None},
    ],
)
def test_a_ceiling_cannot_be_denied(change):
    record = certificate()
    assert record["value"]["pairs"] == 383
    assert not claims(record, **change)
    single = certificate(answers=1)
    assert claims(single)
    assert not claims(single, pairs=3)


def test_every_format_has_the_count_of_its_bit_patterns():
    """All bit patterns less those of infinities and NaNs."""
    patterns = {"float64": (64, 2**53), "float32": (32, 2**24), "bfloat16": (16, 2**8)}
    patterns |= {"float16": (16, 2**11), "float8_e5m2": (8, 2**3), "float8_e4m3fn": (8, 2)}
    assert {name: 2**bits - lost for name, (bits, lost) in patterns.items()} == FORMATS


@pytest.mark.parametrize("step", [-1, 0, 1])
def test_exact_ties(step):
    """64 + 20 = 4 * 21 bits exactly, and powers that nobody multiplies out."""
    record = certificate(values=2**8, dim=4, answers=16, pool=0)
    assert record["value"]["pairs"] == 20
    assert claims(record, pairs=20 + step) is (step == 0)
    large = certificate(values=2**8, dim=10**12, prompt_tokens=1, answers=16, pool=0)
    assert large["value"]["every_list_pairs"] == 2 * 10**12
    assert claims(large, every_list_pairs=2 * 10**12 + step) is (step == 0)


@pytest.mark.parametrize(("pool", "pairs"), [(10**9, 4 * 10**8), (2 * 10**6, 10**6), (10**18, 9)])
def test_large_numbers_are_refused_at_once(pool, pairs):
    """Multiplied out, these would take longer than anyone waits: that it ends is the test."""
    record = certificate()
    inputs = record["inputs"] | {"pool": pool}
    assert not claims(record | {"inputs": inputs}, pairs=pairs)


def test_long_selections_are_compared_by_their_logarithms():
    record = certificate(dim=64, prompt_tokens=100, answers=2, pool=4 * 10**5)
    assert claims(record)
    for step in (-1, 1):
        assert not claims(record, pairs=record["value"]["pairs"] + step)


@given(keys=st.integers(4 * 2**14, 2**20), share=st.fractions(Fraction(1, 4), Fraction(3, 4)))
def test_binomials_by_stirlings_series(keys, share):
    pairs = int(keys * share)
    with precision(60):
        found = prompts._log_choices(keys, pairs)
    with ctx.workprec(600):
        over, one, other = (arb(n + 1).lgamma() for n in (keys, pairs, keys - pairs))
        truth = over - one - other
        low, high = (
            arb(Fraction(end).numerator) / Fraction(end).denominator
            for end in (found.low, found.high)
        )
        assert low < truth < high
    assert found.high - found.low < 2**-90


@given(
    factors=st.lists(st.tuples(st.integers(1, 60), st.integers(-12, 12)), min_size=1, max_size=6)
)
def test_products_of_powers(factors):
    product = math.prod((Fraction(base) ** power for base, power in factors), start=Fraction(1))
    assert is_one(factors) is (product == 1)
    assert exceeds(factors) is (product > 1)


def test_what_no_precision_tells():
    with pytest.raises(Refuted, match="cannot be decided"):
        exceeds([(2, 1)], lambda: -log(2))
    assert not negative(lambda: log(2) - log(4) / 2)
    assert grid_up(lambda: log(8) / log(2)) == 3 * 2**96 + 1


@pytest.mark.parametrize("found", [-1, 6, 4, True, 5.0, "5", None, [5]])
def test_only_the_last_number_is_the_last(found):
    last = Last(lambda k: k <= 5)
    assert last == 5
    assert last != found


@pytest.mark.parametrize(
    "found", [[4, -2], [6, -2], [5, -3], [5, -1], [10, -3], [-5, -2], [5], [5, -2, 0], [5, 2**41],
              [5.0, -2], (5, -2), 5]
)  # fmt: skip
def test_only_the_last_float_is_the_last(found):
    last = Last(lambda pair: Fraction(pair[0]) * Fraction(2) ** pair[1] <= Fraction(11, 8), bits=3)
    assert last == [5, -2]
    assert last != found


def test_a_worse_net_is_refused_though_it_is_sound():
    sizes = {"dim": 4, "prompt_tokens": 6, "lipschitz": 10, "radius": 1, "eps": "0.1", "pairs": 9}
    record = plain(PromptCapacity.model_validate(sizes))
    mantissa, exponent = record["value"]["delta"]
    for other in (
        [mantissa + 1, exponent],
        [mantissa, exponent - 1],
        [mantissa // 2, exponent + 1],
    ):
        assert not claims(record, delta=other)


@pytest.mark.parametrize(
    ("read", "bad"),
    [
        (core.exact, ["", "1/0", "2/4", "01", "0x10", "1/1", "+1", "1.0", "-0", 1, None, "1/-2"]),
        (core.exact, [f"0x{'f' * 5000}", f"{hex(7**7000)}/{hex(2**12001)}"]),
        (core.count(1), [f"0x{'f' * 10**5}"]),
        (core.between(0, 1), ["0", "1", "-1/2", "3/2"]),
        (core.between(0, closed=True), ["-1"]),
        (core.whole(1), [0, 1.0, True, "1", 10**18 + 1]),
        (core.count(2), ["1", "5/2", 7]),
        (core.one_of("a"), ["b", None, ["a"]]),
        (core.boolean, [0, 1, "true", None]),
        (
            core.log_of_any_size,
            ["0", "-1", {"exp": "1000000001"}, {"exp": 1}, {"exp": "1", "a": 1}],
        ),
    ],
)
def test_what_no_reader_takes(read, bad):
    for value in bad:
        with pytest.raises(ValueError, match=r"\bno\b|not|neither|invalid|out of range"):
            read(value)


@given(number=st.fractions())
def test_numbers_are_read_in_their_one_form(number):
    assert core.exact(str(number)) == number


def test_long_numbers_are_read_in_hexadecimal():
    for number in (2**5000, -(3**9000), 2**4095):
        text = str(number) if number.bit_length() <= 4096 else hex(number)
        assert core.exact(text) == number
    assert core.count(1)(hex(7**9000)) == 7**9000
    with precision(60):
        assert core.log_of_any_size("1")() == real(0)
