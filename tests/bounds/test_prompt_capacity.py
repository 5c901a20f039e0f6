"""Theorem 4.7 corrected: its numbers, its laws, its two sides, and what it refuses."""

from fractions import Fraction
from itertools import pairwise

import pytest
from flint import arb

from promptlimits.base.bound import LogBound, Source
from promptlimits.base.errors import UserError
from promptlimits.base.exact import (
    dyadic,
    dyadic_value,
    grid_up,
    is_negative,
    log,
    working_precision,
)
from promptlimits.bounds.prompt_capacity import PromptCapacity, published_capacity
from promptlimits.bounds.prompt_plan import tokens_for_exact_access

TENTH = Fraction(1, 10)


def case(**changes):
    usual = {
        "dim": 4,
        "prompt_tokens": 6,
        "tokens": 2,
        "lipschitz": 10,
        "radius": 1,
        "eps": TENTH,
        "pairs": 20,
    }
    return PromptCapacity.model_validate(usual | changes)


def share(**changes):
    """Grid point of the logarithm of the share reached."""
    return min(case(**changes).log_shares())


def kappas(setting):
    """Both sides of kappa*."""
    mantissa, exponent = setting.threshold()
    return dyadic_value([mantissa, exponent]), dyadic_value([mantissa + 1, exponent])


def limit(log, direction="upper"):
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
def test_the_table(lipschitz, eps, corrected, published):
    setting = case(lipschitz=lipschitz, eps=eps)
    (lower, upper), said = kappas(setting), published_capacity(setting)
    assert said.kappa is not None
    for number, shown in ((upper, corrected), (said.kappa, published)):
        digits = len(shown.partition(".")[2])
        assert f"{float(number):.{digits}f}" == shown
    assert 0 < upper - lower <= upper / 2**63


def test_both_sides_of_kappa_are_proved():
    for setting in (case(), case(lipschitz=Fraction(1, 7)), case(lipschitz=limit(5000))):
        lower, upper = kappas(setting)
        assert is_negative(lambda: -setting.least(lower))  # noqa: B023
        assert not is_negative(lambda: setting.least(lower))  # noqa: B023
        assert is_negative(lambda: setting.least(upper))  # noqa: B023


def test_an_exact_threshold_excludes_nothing():
    """a = 1/4, eps = 1/16, r = 9/16, kappa = 1: (sqrt a + sqrt eps)^2 = r, so the bound is 1."""
    setting = case(
        dim=3,
        prompt_tokens=2,
        tokens=1,
        lipschitz=Fraction(2, 9),
        radius=Fraction(9, 16),
        eps=Fraction(1, 16),
    )
    assert dyadic_value(setting.delta(Fraction(1))) == Fraction(1, 8)
    assert not is_negative(lambda: setting.least(Fraction(1)))
    assert not is_negative(lambda: -setting.least(Fraction(1)))
    lower, upper = kappas(setting)
    assert lower == 1 < upper


def test_the_threshold_in_pairs():
    usual = {"dim": 768, "prompt_tokens": 20, "tokens": 1}
    assert case(**usual).most_pairs() == 63
    assert int(kappas(case(**usual))[1] * 20) == 63
    assert not case(**usual).one_centre()
    assert share(**usual, pairs=64) < 0 < share(**usual, pairs=63)
    assert case(lipschitz=Fraction(8, 10)).most_pairs() == 0  # one centre
    assert case(lipschitz=Fraction(8, 10)).one_centre()


def test_laws_of_the_share():
    assert share(pairs=21) < share()  # beyond the threshold, each pair costs
    assert share(tokens=3) < share()
    assert share(prompt_tokens=7) > share()
    assert share(eps=Fraction(11, 100)) > share()
    assert share(lipschitz=11) > share()
    assert share(prompt_radius=2) > share()
    assert share(radius=2, prompt_radius=1) < share()
    # units do not matter
    assert share(radius=4, eps=4 * TENTH) == share()
    # L and rho enter as their product
    assert share(lipschitz=5, prompt_radius=2) == share()
    # Frobenius norm in, tokens in balls: as L sqrt(m_p)
    assert share(norm="frobenius", prompt_tokens=9) == share(lipschitz=30, prompt_tokens=9)
    assert share(norm="matrix") == share()
    # a Lipschitz constant by its logarithm
    assert share(lipschitz=limit(0)) == share(lipschitz=1)


def test_no_delta_is_better_than_the_best():
    setting = case()
    best = dyadic_value(setting.delta(setting.kappa(20)))
    for factor in (Fraction(1, 2), Fraction(99, 100), Fraction(101, 100), Fraction(3)):
        worse = best * factor
        at = grid_up(lambda: setting.log_share_of_net(arb(worse.numerator) / worse.denominator))  # noqa: B023
        assert at > setting.log_shares()[0]


def test_the_published_proportion_follows_where_three_l_r_is_at_least_eps():
    for lipschitz in (Fraction(1, 30), TENTH, Fraction(1, 2), Fraction(3), 100):
        for eps in (Fraction(1, 4), TENTH, Fraction(1, 1000)):
            if 3 * lipschitz < eps:
                continue
            for pairs in (1, 3, 10):
                setting = case(lipschitz=lipschitz, eps=eps, pairs=pairs)
                proportion = published_capacity(setting).log_share
                assert proportion is not None
                assert min(setting.log_shares()) < proportion


def below(point, share):
    """Whether a grid point is below the logarithm of a share."""
    assert point is not None
    return is_negative(lambda: arb((point, -96)) - log(share))


def test_the_published_proportion_is_false_for_small_l():
    """Constant outputs are L-Lipschitz for every L, and reach (eps/r)^(d m k) of the volume."""
    setting = case(
        dim=3, tokens=1, prompt_tokens=1, eps=Fraction(1, 5), lipschitz=TENTH**4, pairs=1
    )
    said = published_capacity(setting)
    assert said.false_here
    true = Fraction(1, 5) ** 3
    assert below(said.log_share, true / 1000)
    assert not below(min(setting.log_shares()), true)
    assert below(min(setting.log_shares()), true * Fraction(101, 100))


def test_the_published_statement_where_it_does_not_apply():
    setting = case(eps=Fraction(1, 3))
    said = published_capacity(setting)
    assert (said.kappa, said.threshold_pairs, said.printed_pairs, said.log_share) == (None,) * 4
    assert said.reason is not None
    assert "r > 3 eps" in said.reason
    assert setting.most_pairs() > 0
    other = published_capacity(case(tokens=2, prompt_tokens=6))
    assert other.printed_pairs == 2 * (other.threshold_pairs or 0)


def test_slope_is_the_derivative_and_tends_to_eps_over_r():
    for pairs in (20, 200, 20_000):
        here, there = (case(dim=50, pairs=k) for k in (pairs, pairs + 1))
        step = min(there.log_shares()) - min(here.log_shares())
        assert grid_up(there.log_slope) < step < grid_up(here.log_slope)
    with working_precision(128):
        assert 0 < case(dim=50, pairs=10**9).log_slope() - 100 * arb(0.1).log() < 1e-3


def test_rogers_constant_helps_long_prompts_only():
    usual = {"lipschitz": 1000, "pairs": 40}
    long, short = case(dim=768, **usual), case(dim=1, prompt_tokens=3, **usual)
    gain = min(long.log_shares()) - grid_up(long.log_rogers_share)
    assert 0 < gain < grid_up(lambda: long.prompt_numbers * arb(2).log())
    assert grid_up(short.log_rogers_share) > min(short.log_shares())
    with pytest.raises(UserError, match="prompt_tokens must be at least 3 "):
        case(dim=1, prompt_tokens=2).log_rogers_share()


def test_astronomical_constants():
    _, upper = kappas(case(lipschitz="1e1000", eps=Fraction(1, 100)))
    assert 502 < upper < 503
    for power in (10**6, -(10**6)):
        lower, upper = kappas(case(lipschitz=limit(power)))
        assert lower < upper
        assert kappas(case(lipschitz=f"1e{power}"))[0] > 0
    rising = [kappas(case(lipschitz=limit(power)))[1] for power in (-50, 0, 50, 5000)]
    assert all(low < high for low, high in pairwise(rising))


def test_precision_does_not_matter():
    with working_precision(20):
        low = case().value()
    with working_precision(2000):
        high = case().value()
    assert low == high


def test_exact_access():
    assert tokens_for_exact_access(pairs=7, tokens=3) == 21


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("dim", [0, "1e3", 2.5]),
        ("prompt_tokens", [-1]),
        ("tokens", [True]),
        ("pairs", [0]),
        ("eps", [0, 1, "1", 0.5]),
        ("radius", [-1, 0.5, "nan"]),
        ("prompt_radius", [0, 0.5]),
        ("lipschitz", [0, 0.5, "1e1000001", limit(3, "lower"), limit(10**10), {"exp": "x"}]),
        ("norm", ["max", None]),
        ("least_deviation", [-1, 0.5]),
        ("more", [1]),
    ],
)
def test_what_is_refused(name, bad):
    for other in bad:
        with pytest.raises(UserError, match=f"^{name} must .*; "):
            case(**{name: other})


def test_the_slope_is_of_the_limit_not_of_the_share():
    """Two prompt numbers that each drive a snake through the targets reach all lists of 4."""
    usual = {"dim": 1, "prompt_tokens": 2, "tokens": 1}
    assert grid_up(case(**usual, pairs=3).log_slope) < 0 < share(**usual, pairs=4)


def test_the_published_proportion_is_refuted_with_tokens_in_balls_and_frobenius():
    """Uniform attention over 49 prompt tokens and the query 0, with V = 50/210."""
    value, tokens, eps = Fraction(50, 210), 49, Fraction(1, 10)
    constant = value * 7 / (tokens + 1)  # a step of 1/7 in each token is 1 in Frobenius norm
    usual = {"dim": 1, "tokens": 1, "lipschitz": constant, "pairs": 1, "prompt_tokens": tokens}
    setting = case(**usual, norm="frobenius")
    said = published_capacity(setting)
    assert constant == Fraction(1, 30)
    true_share = value * tokens / (tokens + 1) + eps
    assert below(said.log_share, true_share)
    assert not below(min(setting.log_shares()), true_share)
    assert not said.false_here
    assert "not proved for tokens in balls" in str(said.reason)
    for safe in ({"norm": "matrix"}, {"norm": "frobenius", "prompt_tokens": 1}):
        assert published_capacity(case(**usual | safe)).reason is None


def test_a_region_of_prompts_is_assumed_and_said():
    """The clipped model is L-Lipschitz on the ball; the model itself in the region alone."""
    setting, value = case(least_deviation=Fraction(1, 3)), case().value()
    assert "at least 1/3 on every input" in setting.rests_on()[-1]
    assert "agrees with it on the prompts that count" in setting.rests_on()[1]
    assert "keep every deviation in front of a norm at 1/3 or more" in setting.claim(value)
    assert "deviation" not in case().claim(value)
    assert len(setting.rests_on()) == len(case().rests_on()) + 1


@pytest.mark.parametrize("power", [12, 40, -12, 6000])
def test_widths_of_any_size(power):
    size = Fraction(10) ** power
    setting = case(radius=size, eps=size / 10, prompt_radius=size)
    delta = dyadic(setting.delta(setting.kappa(20)))
    assert 0 < delta < arb(size.numerator) / size.denominator
    # Units do not matter, but for the 32 bits of delta.
    assert abs(min(setting.log_shares()) - share()) < abs(share()) / 10**18
