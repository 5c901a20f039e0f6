"""Answers held with a logit margin."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from promptlimits.errors import UserError
from promptlimits.theory.margin_capacity import margin_ceiling


def ceiling(**changes: Any) -> Any:
    usual = {
        "dim": 8,
        "prompt_tokens": 2,
        "prompt_radius": 1,
        "lipschitz": 1,
        "margin": 1,
        "answer_set_size": 2,
        "share": Fraction(1, 4),
    }
    return margin_ceiling(**(usual | changes))


def test_closed_form() -> None:
    assert ceiling().pairs == 17  # 2^16 2^-k > 1/4
    assert ceiling(answer_set_size=3).pairs == 11  # 2^18 > 3^11
    assert ceiling().bits.upper_bits() == pytest.approx(16, rel=1e-15)
    assert ceiling(lipschitz=3, prompt_tokens=1).bits.upper_bits() == pytest.approx(16, rel=1e-15)
    assert ceiling(answer_set_size=1).pairs is None


def test_a_margin_beyond_reach_leaves_one_list() -> None:
    alone = ceiling(margin=Fraction(1001, 1000))
    assert (alone.bits.upper_bits(), alone.pairs) == (0.0, 1)
    assert ceiling(margin=1).bits.upper_bits() > 15


def test_frobenius_is_a_larger_constant() -> None:
    for tokens in (4, 3):
        root = ceiling(prompt_tokens=tokens, norm="frobenius", lipschitz=5)
        assert root.pairs > ceiling(prompt_tokens=tokens, lipschitz=5).pairs
    square = ceiling(prompt_tokens=4, norm="frobenius", lipschitz=5)
    assert square.bits.log == ceiling(prompt_tokens=4, lipschitz=10).bits.log


def test_laws() -> None:
    assert ceiling(margin=Fraction(1, 2)).pairs > ceiling().pairs
    assert ceiling(prompt_radius=2).bits.log == ceiling(lipschitz=2).bits.log
    assert ceiling(share=Fraction(1, 1000)).pairs > ceiling().pairs
    assert ceiling(dim=9).pairs > ceiling().pairs


def test_two_lists_at_the_least_distance_are_possible() -> None:
    """n = 1, logit difference x on [-1, 1], g = 1 = Lm rho: x = 1 and x = -1 hold two lists."""
    held = {x >= 1 for x in (1, -1) if abs(x) >= 1}
    assert len(held) == 2
    assert ceiling(dim=1, prompt_tokens=1).bits.upper_bits() >= 1


@pytest.mark.parametrize("changes", [{"margin": 0}, {"share": Fraction(1)}, {"answer_set_size": 0}])
def test_what_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        ceiling(**changes)


@pytest.mark.parametrize("name", ["margin", "prompt_radius", "lipschitz", "share"])
def test_no_float_gets_in(name: str) -> None:
    with pytest.raises(TypeError):
        ceiling(**{name: 0.25})
