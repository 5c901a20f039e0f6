"""Slow twins of Theorem 1: minima by scanning delta, and true shares by integration."""

import math
from fractions import Fraction

import numpy as np
import pytest

from promptlimits.base.exact import dyadic_value
from promptlimits.bounds.prompt_capacity import PromptCapacity

CASES = [
    (lipschitz, eps, rho)
    for lipschitz in (Fraction(1, 50), Fraction(1), Fraction(20), Fraction(10**9))
    for eps in (Fraction(1, 3), Fraction(1, 20), Fraction(1, 10**4))
    for rho in (Fraction(1, 2), Fraction(3))
]


def one_token(lipschitz, eps, rho, pairs=1):
    sizes = {"dim": 1, "prompt_tokens": 1, "radius": 1, "pairs": pairs}
    radii = {"lipschitz": lipschitz, "eps": eps, "prompt_radius": rho}
    return PromptCapacity.model_validate(sizes | radii)


@pytest.mark.parametrize(("lipschitz", "eps", "rho"), CASES)
def test_kappa_is_the_least_ratio_of_all_delta(lipschitz, eps, rho):
    reach = 2 * float(lipschitz * rho)
    delta = np.geomspace(1e-9, 1 - float(eps) - 1e-9, 200_001)
    delta = delta[delta < 1 - float(eps)]
    ratio = np.log1p(reach / delta) / -np.log(float(eps) + delta)
    mantissa, exponent = one_token(lipschitz, eps, rho).threshold()
    lower, upper = (dyadic_value([each, exponent]) for each in (mantissa, mantissa + 1))
    # The scan is a grid: it finds no less than the minimum, and within its spacing squared.
    assert float(lower) <= ratio.min() * (1 + 1e-9)
    assert ratio.min() <= float(upper) * (1 + 1e-6)


@pytest.mark.parametrize(("lipschitz", "eps", "rho"), CASES)
@pytest.mark.parametrize("kappa", [Fraction(1, 3), Fraction(1), Fraction(7)])
def test_delta_is_the_minimum(lipschitz, eps, rho, kappa):
    def value(delta):
        reach = 2 * float(lipschitz * rho)
        return math.log1p(reach / delta) + float(kappa) * math.log(float(eps) + delta)

    best = float(dyadic_value(one_token(lipschitz, eps, rho).delta(kappa)))
    # Near a minimum a change by a thousandth moves the value by some 1e-7 of its scale.
    for factor in (0.9, 0.999, 1.001, 1.1):
        assert value(best) <= value(best * factor) + 1e-12 * abs(value(best))


def true_share(outputs, eps, samples):
    """Share of targets in [-1, 1]^k within eps of some output, from uniform samples."""
    near = (np.abs(samples[:, None, :] - outputs[None, :, :]) <= eps).all(axis=2).any(axis=1)
    return float(near.mean())


def test_the_true_share_is_below_the_bound():
    """126 random maps of one prompt number; the best net of prompts finds what is reached.

    The bound is for the whole interval of prompts, the sum over a grid reaches less: the
    comparison can only be too kind by the grid's spacing, far below eps.
    """
    source = np.random.default_rng(1)
    prompts = np.linspace(-1, 1, 151)
    tight = 0.0
    for pairs in (1, 2, 3):
        samples = source.uniform(-1, 1, (300, pairs))
        for _ in range(42):
            frequency = source.uniform(0.2, 6, pairs)
            height = source.uniform(0.1, 1, pairs)
            outputs = height * np.sin(frequency * prompts[:, None] + source.uniform(0, 6, pairs))
            lipschitz = Fraction(float((height * frequency).max()))
            eps = Fraction(float(source.uniform(0.02, 0.3)))
            point = min(one_token(lipschitz, eps, Fraction(1), pairs).log_shares())
            share = true_share(outputs, float(eps), samples)
            limit = math.exp(min(0.0, point / 2**96))
            assert share <= limit + 4 * math.sqrt(limit / len(samples))
            tight = max(tight, share / limit)
    assert tight > 0.3  # somewhere the bound is within a factor of some three
