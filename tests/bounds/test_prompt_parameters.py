"""Counts of trained numbers, after wang2023 and hu2025."""

import math
from fractions import Fraction

import numpy as np
import pytest

from promptlimits.base.errors import UserError
from promptlimits.bounds.prompt_parameters import trained_numbers, universality_lower_bound


def test_prompts_and_lora():
    one = trained_numbers(pairs=15, dim=16)
    assert (one.prompt_tokens, one.prompt_numbers, one.lora_numbers) == (15, 240, 286)
    many = trained_numbers(pairs=10, dim=16, heads=3)
    assert (many.prompt_tokens, many.lora_numbers) == (4, 196)
    with pytest.raises(UserError, match="at most dim less heads, 15"):
        trained_numbers(pairs=16, dim=16)


def test_the_data_set_of_theorem_3_needs_that_rank():
    """t_j less any multiple of Vw stay independent: rank n whatever the attention weights."""
    source = np.random.default_rng(0)
    for pairs in (1, 4, 7):
        value, axis = source.normal(size=(8, 8)), source.normal(size=8)
        targets = source.normal(size=(8, pairs))
        for _ in range(20):
            shares = source.normal(size=pairs) * 10
            rest = targets - np.outer(value @ axis, shares)
            assert np.linalg.matrix_rank(rest) == pairs


def universality(**changes):
    usual = {
        "dim": 1,
        "tokens": 3,
        "lipschitz": 10,
        "eps": Fraction(1, 100),
        "prompt_radius": 1,
        "prompt_lipschitz": 100,
    }
    return universality_lower_bound(**(usual | changes))


def test_universality_is_at_least_the_case_c_3():
    cells = (math.ceil(Fraction(10, 1) / Fraction(6, 100)) - 1) ** 3
    by_hand = cells * math.log(2) / math.log(1 + 2 * 100 * 100)
    assert universality().lower_nats() >= math.log(by_hand)
    assert universality().lower_nats() < math.log(4 * by_hand)


def test_universality_where_a_cell_fits_exactly():
    """L/(2 c eps) = 1 for c = 3 leaves no strict bump; only smaller c can."""
    flat = universality(lipschitz=Fraction(3, 10), eps=Fraction(1, 20))
    assert flat.lower_nats() < 0  # one bump: two maps, less than one token
    assert universality(lipschitz=Fraction(1, 100)) is None


def test_universality_laws():
    assert universality(tokens=4).log > universality().log
    assert universality(prompt_radius=10).log < universality().log
    assert universality(eps=Fraction(1, 50)).log < universality().log
    with pytest.raises(UserError, match="1/2"):
        universality(eps=Fraction(1, 2))
    with pytest.raises(TypeError):
        universality(eps=0.1)


def test_universality_with_hardly_any_prompts():
    """log(1 + x) for x far below the working precision."""
    near = universality(tokens=1, lipschitz=100, prompt_radius=Fraction(1, 10**60))
    nearer = universality(tokens=1, lipschitz=100, prompt_radius=Fraction(1, 10**61))
    assert near.lower_nats() > 0
    assert nearer.lower_nats() - near.lower_nats() == pytest.approx(math.log(10), rel=1e-9)
