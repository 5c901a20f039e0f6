"""Certificates of Theorem 1, counted vector targets and margins: taken, and refused altered."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from tests.checking.altered import alterations, sealed_again

from promptlimits.bound import LogBound, Source
from promptlimits.checking import margin, prompt_capacity, vector_counting
from promptlimits.checking.dispatch import check_certificate
from promptlimits.errors import RunFailed, UserError
from promptlimits.theory.margin_capacity import margin_ceiling
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


def held(**changes: Any) -> dict[str, Any]:
    usual = {
        "dim": 7,
        "prompt_tokens": 20,
        "prompt_radius": 1,
        "lipschitz": 10,
        "margin": Fraction(1, 10),
        "answer_set_size": 50257,
    }
    return margin_ceiling(**(usual | changes)).certificate.to_json()


CERTIFICATES: list[tuple[Check, dict[str, Any]]] = [
    (prompt_capacity.check, reached()),
    (prompt_capacity.check, reached(norm="frobenius", lipschitz=HUGE)),
    (prompt_capacity.check, reached(pairs=3, lipschitz=Fraction(10**40 + 1, 9 * 10**40))),
    (
        vector_counting.check,
        counted_share(case(), 9, stored(number_format("float32"))).certificate.to_json(),
    ),
    (vector_counting.check, counted_share(case(), 9, hard(50257)).certificate.to_json()),
    (margin.check, held()),
    (margin.check, held(norm="frobenius", lipschitz=HUGE)),
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
    assert "with a logit margin of 1/10" in margin.check(held(norm=norm, lipschitz=lipschitz))


def test_other_counts_and_margins() -> None:
    mixed = stored(number_format("float32", "bfloat16"))
    own = stored(NumberFormat(name="mine", values=12))
    for prompts in (mixed, own, hard(2)):
        said = vector_counting.check(counted_share(case(), 5, prompts).certificate.to_json())
        assert prompts.name in said
    assert "there is no ceiling" in margin.check(held(answer_set_size=1))
    one_list = held(margin=100)
    assert "more than 1 answers" in margin.check(one_list)
    exact_tie = held(lipschitz=1, margin=1, answer_set_size=2, share=Fraction(1, 4))
    assert "more than 141 answers" in margin.check(exact_tie)  # 2^140 2^-k > 1/4


def test_a_worse_net_is_refused_though_it_is_sound() -> None:
    setting = case()
    best = share_reached(setting, 64).delta
    assert best is not None
    for delta in (best / 2, best + Fraction(1, 2**60), best * 2):
        certificate = share_reached(setting, 64, delta=delta).certificate
        assert certificate is not None
        with pytest.raises(RunFailed, match="delta"):
            prompt_capacity.check(certificate.to_json())


def test_a_ceiling_that_is_too_low_is_refused_too() -> None:
    record = held()
    for step in (-1, 1):
        changed = record | {
            "inputs": record["inputs"] | {"pairs": record["inputs"]["pairs"] + step}
        }
        with pytest.raises(RunFailed, match="the ceiling is"):
            margin.check(sealed_again(changed))
