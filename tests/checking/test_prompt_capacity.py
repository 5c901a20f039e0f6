"""Certificates of Theorem 1 and of counted vector targets: taken, and refused altered."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from tests.checking.altered import alterations, sealed_again

from promptlimits.base.bound import LogBound, Source
from promptlimits.base.errors import RunFailed, UserError
from promptlimits.checking import prompt_capacity, vector_counting
from promptlimits.checking.dispatch import check_certificate
from promptlimits.theory.number_formats import NumberFormat, number_format
from promptlimits.theory.prompt_capacity import share_reached
from promptlimits.theory.prompt_setting import PromptSetting
from promptlimits.theory.vector_counting import counted_share, hard, stored

Check = Callable[[Any], str]
HUGE = LogBound.of(
    10**300 + 1,
    direction="upper",
    quantity="L",
    source=Source(reference="promptlimits", statement="test", form="proved here"),
)


def case(**changes: Any) -> PromptSetting:
    usual = {
        "dim": 7,
        "prompt_tokens": 20,
        "tokens": 2,
        "lipschitz": 10,
        "radius": Fraction(3, 2),
        "eps": Fraction(1, 10),
        "prompt_radius": Fraction(2, 3),
    }
    return PromptSetting(**(usual | changes))


def reached(pairs: int = 64, **changes: Any) -> dict[str, Any]:
    certificate = share_reached(case(**changes), pairs).certificate
    assert certificate is not None
    return certificate.to_json()


CERTIFICATES: list[tuple[Check, dict[str, Any]]] = [
    (prompt_capacity.check, reached()),
    (prompt_capacity.check, reached(norm="frobenius", lipschitz=HUGE)),
    (prompt_capacity.check, reached(pairs=3, lipschitz=Fraction(10**40 + 1, 9 * 10**40))),
    (prompt_capacity.check, reached(pairs=9, least_deviation=Fraction(1, 3))),
    (
        vector_counting.check,
        counted_share(case(), 9, stored(number_format("float32"))).certificate.to_json(),
    ),
    (vector_counting.check, counted_share(case(), 9, hard(50257)).certificate.to_json()),
]


@pytest.mark.slow  # some 1,500 forged certificates each
@pytest.mark.parametrize(("check", "record"), CERTIFICATES)
def test_nothing_altered_gets_through(check: Check, record: dict[str, Any]) -> None:
    """Not even the last digit of a logarithm, with the digest computed anew."""
    assert check(record) == check_certificate(record)
    for sealed in (False, True):
        for change in alterations(record, sealed=sealed):
            try:
                check(change.record)
            except (RunFailed, UserError):
                continue
            pytest.fail(f"gets through: {change}")


@pytest.mark.parametrize("norm", ["token", "frobenius", "matrix"])
@pytest.mark.parametrize("lipschitz", [10, Fraction(1, 100), Fraction(7, 3), 10**60, HUGE])
@pytest.mark.parametrize("pairs", [1, 64, 5000])
def test_what_is_written_is_taken(norm: Any, lipschitz: Any, pairs: int) -> None:
    said = prompt_capacity.check(reached(pairs, norm=norm, lipschitz=lipschitz))
    assert f"of all lists of {pairs:,} targets of 2 tokens of 7 numbers" in said
    assert f"({norm} norm)" in said


def test_other_counts() -> None:
    mixed = stored(number_format("float32", "bfloat16"))
    own = stored(NumberFormat(name="mine", values=12))
    for prompts in (mixed, own, hard(2)):
        said = vector_counting.check(counted_share(case(), 5, prompts).certificate.to_json())
        assert prompts.name in said


def test_a_worse_net_is_refused_though_it_is_sound() -> None:
    setting = case()
    best = share_reached(setting, 64).delta
    assert best is not None
    for delta in (best / 2, best + Fraction(1, 2**60), best * 2):
        certificate = share_reached(setting, 64, delta=delta).certificate
        assert certificate is not None
        with pytest.raises(RunFailed, match="delta"):
            prompt_capacity.check(certificate.to_json())


@pytest.mark.parametrize("size", [10**12, 2**40, 3 * 2**50, Fraction(1, 10**12), 10**400])
def test_widths_of_any_size_are_taken(size: Any) -> None:
    radii = {"radius": size, "prompt_radius": size, "eps": Fraction(size) / 10}
    record = reached(**radii)
    assert record["inputs"]["delta"] is not None
    assert "at most a share of" in prompt_capacity.check(record)
    other = record["inputs"] | {"delta": str(Fraction(size) / 64)}
    with pytest.raises(RunFailed, match="delta"):
        prompt_capacity.check(sealed_again(record | {"inputs": other}))


def test_numbers_of_thousands_of_digits_are_taken() -> None:
    long = 2**20000
    assert "a long fraction" in prompt_capacity.check(
        reached(radius=long, prompt_radius=long, eps=long - 1, lipschitz=10)
    )
    few = counted_share(case(radius=long, eps=1), 9, hard(50257)).certificate.to_json()
    assert "eps/r = a long fraction" in vector_counting.check(few)


BORROWED = ["float32", "any real numbers in the ball whatsoever, float64", "Float 16"]


def borrowed(name: str) -> dict[str, Any]:
    """What a forger makes of a right certificate for two values: it borrows a known name."""
    own = stored(NumberFormat(name="mine", values=2))
    text = json.dumps(counted_share(case(), 20, own).certificate.to_json())
    return sealed_again(json.loads(text.replace("mine: 2 values", f"{name}: 2 values")))


@pytest.mark.parametrize("name", BORROWED)
def test_the_name_of_a_known_format_is_not_lent(name: str) -> None:
    vector_counting.check(borrowed("a bit"))
    with pytest.raises(RunFailed, match="another number of values"):
        vector_counting.check(borrowed(name))


def test_a_region_of_prompts_is_assumed_and_said() -> None:
    """The clipped model is L-Lipschitz on the ball; the model itself in the region alone."""
    record = reached(least_deviation=Fraction(1, 3))
    bound = record["bound"]
    for part in (bound, *bound["factors"]):
        assert "at least 1/3 on every input" in part["assumptions"][-1]["text"]
        assert "agrees with it on the prompts that count" in part["assumptions"][1]["text"]
    said = prompt_capacity.check(record)
    assert "keep every deviation in front of a norm at 1/3 or more on every input" in said
    assert "deviation" not in prompt_capacity.check(reached())


def test_the_region_cannot_be_left_out_or_moved() -> None:
    for other in ("0", "1/4"):
        record = reached(least_deviation=Fraction(1, 3))
        record["inputs"]["least_deviation"] = other
        with pytest.raises(RunFailed):
            prompt_capacity.check(sealed_again(record))
