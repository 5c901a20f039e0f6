"""Prompt lengths that suffice and that are needed, for one class of maps."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from promptlimits.base.errors import UserError
from promptlimits.lab.universal.universal_bound import FunctionClass, PromptLengths, prompt_lengths
from promptlimits.lab.universal.value_table import table_network


def lengths(dim: int = 1, tokens: int = 1, *, eps: str, p: int = 2) -> PromptLengths:
    return prompt_lengths(
        FunctionClass(dim=dim, tokens=tokens, lipschitz=1, eps=Fraction(eps), exponent=p)
    )


def test_the_footnote() -> None:
    """d = 768, C = 1, alpha = 2, eps = 30, two tokens: 10^640 suffice there; none is needed."""
    found = lengths(768, 2, eps="30")
    assert found.sufficient.upper_log10() == pytest.approx(640.97, abs=0.01)
    single = lengths(768, 1, eps="30")
    assert single.sufficient.upper_log10() == pytest.approx(204.7, abs=0.05)
    # All inputs are within sqrt(1536)/2 < 30 of the middle: a constant answer is good enough.
    assert found.necessary_log10 is None


@pytest.mark.parametrize(
    ("dim", "p", "eps", "needed"),
    [
        (1, 2, "1/2", False),
        (1, 2, "49/100", True),
        (4, 2, "1", False),
        (4, 2, "99/100", True),
        (4, 1, "2", False),
        (4, 1, "199/100", True),
        (1536, 2, "2000", False),
    ],
)
def test_a_prompt_is_needed_below_half_of_the_diameter_only(
    dim: int, p: int, eps: str, needed: bool
) -> None:
    # The constants 0 and 1 are dim^(1/p) apart; the constant 1/2 is in the middle.
    assert lengths(dim, eps=eps, p=p).necessary_log10 == (0 if needed else None)


@pytest.mark.parametrize(
    ("dim", "tokens", "eps"), [(1, 1, "1/20"), (1, 1, "1/1000"), (2, 1, "1/5")]
)
def test_what_is_needed_is_below_what_is_built(dim: int, tokens: int, eps: str) -> None:
    network = table_network(
        FunctionClass(dim=dim, tokens=tokens, lipschitz=1, eps=Fraction(eps), exponent=2)
    )
    needed = lengths(dim, tokens, eps=eps).necessary_log10
    assert needed is not None
    assert 0 <= needed <= math.log10(network.prompt_tokens)


@pytest.mark.parametrize("eps", ["1/1" + "0" * 40, "1/1" + "0" * 400])
def test_precisions_of_any_size(eps: str) -> None:
    found = lengths(3, 2, eps=eps)
    assert found.necessary_log10 is not None
    assert 200 < found.necessary_log10 < found.sufficient.upper_log10() < math.inf


def test_the_norm_needs_an_exponent() -> None:
    with pytest.raises(UserError, match="exponent must be a number"):
        prompt_lengths(FunctionClass(dim=1, tokens=1, lipschitz=1, eps=Fraction(1, 2)))
