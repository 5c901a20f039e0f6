"""Theorem 4.7 corrected: its numbers, its laws, its two sides, and what it refuses."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from flint import arb

from promptlimits.base.bound import LogBound, Source, log_ball, working_precision
from promptlimits.base.errors import UserError
from promptlimits.theory.grid_logs import grid_upper
from promptlimits.theory.optimal_delta import best_delta, is_negative, least, threshold
from promptlimits.theory.prompt_capacity import (
    capacity_threshold,
    share_reached,
    slope,
    tokens_for_exact_access,
)
from promptlimits.theory.prompt_capacity_published import (
    published_capacity,
    published_proportion,
)
from promptlimits.theory.prompt_setting import PromptSetting

TENTH = Fraction(1, 10)


def case(**changes: Any) -> PromptSetting:
    usual = {
        "dim": 4,
        "prompt_tokens": 6,
        "tokens": 2,
        "lipschitz": 10,
        "radius": 1,
        "eps": TENTH,
    }
    return PromptSetting(**(usual | changes))


def log_bound(log: int, direction: Any = "upper") -> LogBound:
    source = Source(reference="promptlimits", statement="test", form="proved here")
    return LogBound(direction=direction, log=arb(log), quantity="L", source=source)


@pytest.mark.parametrize(
    ("lipschitz", "eps", "corrected", "published"),
    [
        (10, Fraction(3, 10), "5.69", "43.7"),
        (10, TENTH, "3.16", "4.74"),
        (10, Fraction(1, 100), "1.943", "2.283"),
        (10, Fraction(1, 10**4), "1.419", "1.555"),
        (10**4, TENTH, "6.51", "10.5"),
        (10**4, Fraction(1, 100), "3.61", "4.25"),
        (10**12, Fraction(1, 100), "7.80", "9.51"),
    ],
)
def test_the_table(lipschitz: int, eps: Fraction, corrected: str, published: str) -> None:
    setting = case(lipschitz=lipschitz, eps=eps)
    found, said = threshold(setting), published_capacity(setting)
    assert said.kappa is not None
    for number, shown in ((found.upper, corrected), (said.kappa, published)):
        digits = len(shown.partition(".")[2])
        assert f"{float(number):.{digits}f}" == shown
    assert 0 < found.upper - found.lower < found.upper / 10**15


def test_both_sides_of_kappa_are_proved() -> None:
    for setting in (case(), case(lipschitz=Fraction(1, 7)), case(lipschitz=log_bound(5000))):
        found = threshold(setting)
        assert is_negative(lambda: -least(setting, found.lower))  # noqa: B023
        assert not is_negative(lambda: least(setting, found.lower))  # noqa: B023
        above = found.upper * Fraction(10**17 + 1, 10**17)
        assert is_negative(lambda: least(setting, above))  # noqa: B023


def test_an_exact_threshold_excludes_nothing() -> None:
    """a = 1/4, eps = 1/16, r = 9/16, kappa = 1: (sqrt a + sqrt eps)^2 = r, so the bound is 1."""
    setting = case(
        dim=3,
        prompt_tokens=2,
        tokens=1,
        lipschitz=Fraction(2, 9),
        radius=Fraction(9, 16),
        eps=Fraction(1, 16),
    )
    assert setting.reach_squared == Fraction(1, 16)
    assert best_delta(setting, Fraction(1)) == Fraction(1, 8)
    assert not is_negative(lambda: least(setting, Fraction(1)))
    assert not is_negative(lambda: -least(setting, Fraction(1)))
    found = threshold(setting)
    assert found.lower < 1 <= found.upper < 1 + Fraction(1, 10**18)


def test_the_threshold_in_pairs() -> None:
    found = capacity_threshold(case(dim=768, prompt_tokens=20, tokens=1))
    assert found.first_pairs == 64
    assert found.pairs_upper == found.kappa.upper * 20
    assert not found.one_centre
    assert share_reached(case(dim=768, prompt_tokens=20, tokens=1), 64).bound.log < 0
    assert share_reached(case(dim=768, prompt_tokens=20, tokens=1), 63).bound.log > 0
    assert capacity_threshold(case(lipschitz=Fraction(8, 10))).first_pairs == 1  # one centre


def test_laws_of_the_share() -> None:
    def log(pairs: int = 20, **changes: Any) -> arb:
        return share_reached(case(**changes), pairs).bound.log

    assert log(pairs=21) < log()  # beyond the threshold, each pair costs
    assert log(tokens=3) < log()
    assert log(prompt_tokens=7) > log()
    assert log(eps=Fraction(11, 100)) > log()
    assert log(lipschitz=11) > log()
    assert log(prompt_radius=2) > log()
    assert log(radius=2, prompt_radius=1) < log()
    # units do not matter
    assert log(radius=4, eps=4 * TENTH) == log()
    # L and rho enter as their product
    assert log(lipschitz=5, prompt_radius=2) == log()
    # Frobenius norm in, tokens in balls: as L sqrt(m_p)
    assert log(norm="frobenius", prompt_tokens=9) == log(lipschitz=30, prompt_tokens=9)
    assert log(norm="matrix") == log()


def test_no_delta_is_better_than_the_best() -> None:
    setting = case()
    best = share_reached(setting, 20)
    assert best.delta is not None
    for factor in (Fraction(1, 2), Fraction(99, 100), Fraction(101, 100), Fraction(3)):
        other = share_reached(setting, 20, delta=best.delta * factor)
        assert other.bound.log > best.bound.log


def test_the_published_proportion_follows_where_three_l_r_is_at_least_eps() -> None:
    for lipschitz in (Fraction(1, 30), TENTH, Fraction(1, 2), Fraction(3), 100):
        for eps in (Fraction(1, 4), TENTH, Fraction(1, 1000)):
            setting = case(lipschitz=lipschitz, eps=eps)
            if 3 * lipschitz < eps:
                continue
            for pairs in (1, 3, 10):
                proportion = published_proportion(setting, pairs)
                assert proportion is not None
                assert share_reached(setting, pairs).bound.log < proportion.log


def test_the_published_proportion_is_false_for_small_l() -> None:
    """Constant outputs are L-Lipschitz for every L, and reach (eps/r)^(d m k) of the volume."""
    setting = case(dim=3, tokens=1, prompt_tokens=1, eps=Fraction(1, 5), lipschitz=TENTH**4)
    said, proportion = published_capacity(setting), published_proportion(setting, 1)
    assert said.false_here
    assert proportion is not None
    true = Fraction(1, 5) ** 3
    assert proportion.proves_at_most(true / 1000)
    assert not share_reached(setting, 1).bound.proves_at_most(true)
    assert share_reached(setting, 1).bound.proves_at_most(true * Fraction(101, 100))


def test_the_published_statement_where_it_does_not_apply() -> None:
    setting = case(eps=Fraction(1, 3))
    said = published_capacity(setting)
    assert (said.kappa, said.threshold_pairs, said.printed_pairs) == (None, None, None)
    assert said.reason is not None
    assert "r > 3 eps" in said.reason
    assert published_proportion(setting, 5) is None
    assert capacity_threshold(setting).first_pairs > 1
    other = published_capacity(case(tokens=2, prompt_tokens=6))
    assert other.printed_pairs == 2 * (other.threshold_pairs or 0)


def test_slope_is_the_derivative_and_tends_to_eps_over_r() -> None:
    setting = case(dim=50)
    for pairs in (20, 200, 20_000):
        step = share_reached(setting, pairs + 1).bound.log - share_reached(setting, pairs).bound.log
        assert slope(setting, pairs + 1).log < step < slope(setting, pairs).log
    with working_precision(128):
        assert 0 < slope(setting, 10**9).log - 100 * arb(0.1).log() < 1e-3


def test_rogers_constant_helps_long_prompts_only() -> None:
    long, short = case(dim=768, lipschitz=1000), case(dim=1, prompt_tokens=3, lipschitz=1000)
    gain = share_reached(long, 40).bound.log - share_reached(long, 40, covering="rogers").bound.log
    assert 0 < gain < long.prompt_numbers * arb(2).log()
    assert (
        share_reached(short, 40, covering="rogers").bound.log > share_reached(short, 40).bound.log
    )
    with pytest.raises(UserError, match="at least 3"):
        share_reached(case(dim=1, prompt_tokens=2), 1, covering="rogers")


def test_astronomical_constants() -> None:
    exact = threshold(case(lipschitz=10**1000, eps=Fraction(1, 100)))
    assert 502 < exact.upper < 503
    for log in (10**6, -(10**6)):
        found = threshold(case(lipschitz=log_bound(log)))
        assert found.lower < found.upper
    kappas = [threshold(case(lipschitz=log_bound(log))).upper for log in (-50, 0, 50, 5000)]
    assert all(low < high for low, high in pairwise(kappas))


def test_precision_does_not_matter() -> None:
    setting = case()
    with working_precision(20):
        low = (threshold(setting), share_reached(setting, 20), capacity_threshold(setting))
    with working_precision(2000):
        high = (threshold(setting), share_reached(setting, 20), capacity_threshold(setting))
    assert low == high


def test_grid_points() -> None:
    assert grid_upper(lambda: arb(3)) == 3
    assert grid_upper(lambda: arb(0)) == 0
    point = grid_upper(lambda: arb(2).log())
    with working_precision(256):
        assert 0 < point - arb(2).log() < arb((1, -96))
    tiny = grid_upper(lambda: arb(1) + (-arb(10**6)).exp())
    with working_precision(256):
        assert tiny - 1 == arb((1, -96))


def test_exact_access() -> None:
    assert tokens_for_exact_access(pairs=7, tokens=3) == 21
    with pytest.raises(UserError, match="pairs"):
        tokens_for_exact_access(pairs=0, tokens=3)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"dim": 0}, "dim"),
        ({"prompt_tokens": -1}, "prompt_tokens"),
        ({"tokens": True}, "tokens"),
        ({"eps": 1}, "eps"),
        ({"eps": 0}, "eps"),
        ({"radius": -1}, "radius"),
        ({"prompt_radius": 0}, "prompt_radius"),
        ({"lipschitz": 0}, "lipschitz"),
        ({"lipschitz": log_bound(3, "lower")}, "lipschitz"),
        ({"lipschitz": log_bound(10**10)}, "lipschitz"),
        ({"norm": "max"}, "norm"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(UserError, match=name):
        case(**changes)


@pytest.mark.parametrize("name", ["radius", "eps", "lipschitz", "prompt_radius"])
def test_no_float_gets_in(name: str) -> None:
    with pytest.raises(TypeError, match="must be an"):
        case(**{name: 0.5})


def test_a_bad_number_of_pairs_or_delta() -> None:
    with pytest.raises(UserError, match="pairs"):
        share_reached(case(), 0)
    with pytest.raises(UserError, match="delta"):
        share_reached(case(), 1, delta=Fraction(0))
    assert dataclasses.replace(case(), norm="matrix").spread == 1


def test_the_slope_is_of_the_limit_not_of_the_share() -> None:
    """Two prompt numbers that each drive a snake through the targets reach all lists of 4."""
    setting = case(dim=1, prompt_tokens=2, tokens=1, lipschitz=10, eps=Fraction(1, 10))
    falls = slope(setting, 3)
    assert falls.log < 0 < share_reached(setting, 4).bound.log
    assert falls.quantity == "factor of the limit (1) on the share from 3 pairs to one more"


def test_the_published_proportion_is_refuted_with_tokens_in_balls_and_frobenius() -> None:
    """Uniform attention over 49 prompt tokens and the query 0, with V = 50/210."""
    value, tokens, eps = Fraction(50, 210), 49, Fraction(1, 10)
    constant = value * 7 / (tokens + 1)  # a step of 1/7 in each token is 1 in Frobenius norm
    setting = PromptSetting(
        dim=1,
        prompt_tokens=tokens,
        tokens=1,
        lipschitz=constant,
        radius=1,
        eps=eps,
        norm="frobenius",
    )
    proportion = published_proportion(setting, 1)
    assert constant == Fraction(1, 30)
    assert proportion is not None
    true_share = value * tokens / (tokens + 1) + eps
    assert proportion.log < log_ball(true_share)
    assert not share_reached(setting, 1).bound.log < log_ball(true_share)
    said = published_capacity(setting)
    assert not said.false_here
    assert "not proved for tokens in balls" in str(said.reason)
    for safe in (replace(setting, norm="matrix"), replace(setting, prompt_tokens=1)):
        assert published_capacity(safe).reason is None
