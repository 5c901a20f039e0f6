"""LayerNorm and RMSNorm: constants attained at zero variance, trust regions, radii."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from promptlimits.base.errors import UserError
from promptlimits.lipschitz.paper.normalization import normalization_bound, normalized_radius

EPS = Fraction("1e-3")
TIGHT = 1 + 1e-9


def normalise(x: np.ndarray, gain: np.ndarray, centred: bool, clip: float = 0.0) -> np.ndarray:
    z = x - x.mean(0) if centred else x
    deviation = np.sqrt((z**2).mean(0) + float(EPS))
    return gain[:, None] * z / np.maximum(deviation, clip)


def value(gain: np.ndarray, s0: Fraction = Fraction(0), eps: Fraction = EPS) -> float:
    bound = normalization_bound(gain, epsilon=eps, least_deviation=s0)
    return math.exp(bound.upper_nats())


@pytest.mark.parametrize("centred", [False, True])
def test_the_constant_is_attained_at_zero_and_nowhere_exceeded(centred: bool) -> None:
    generator = np.random.default_rng(0)
    gain = np.full(5, 1.5)
    limit = value(gain)
    assert limit == pytest.approx(1.5 / float(EPS) ** 0.5)
    direction = np.array([[1.0, -1, 0, 0, 0]]).T
    step = 1e-9 * direction
    slope = np.linalg.norm(normalise(step, gain, centred)) / np.linalg.norm(step)
    assert slope == pytest.approx(limit, rel=1e-9)
    for size in (1e-3, 0.1, 1, 100):
        x, y = size * generator.standard_normal((2, 5, 2000))
        moved = normalise(x, gain, centred) - normalise(y, gain, centred)
        assert (
            np.linalg.norm(moved, axis=0) <= limit * TIGHT * np.linalg.norm(x - y, axis=0)
        ).all()


@pytest.mark.parametrize("centred", [False, True])
def test_the_clipped_map_obeys_the_trust_region_everywhere(centred: bool) -> None:
    """Pairs on both sides of the boundary, which is not convex, included."""
    generator = np.random.default_rng(1)
    gain, s0 = generator.standard_normal(4), Fraction(1, 2)
    clip = math.sqrt(float(s0) ** 2 + float(EPS))
    limit = value(gain, s0)
    assert limit == pytest.approx(np.abs(gain).max() / clip)
    for size in (0.2, 0.5, 1, 3):
        x, y = size * generator.standard_normal((2, 4, 3000))
        moved = normalise(x, gain, centred, clip) - normalise(y, gain, centred, clip)
        assert (
            np.linalg.norm(moved, axis=0) <= limit * TIGHT * np.linalg.norm(x - y, axis=0)
        ).all()


def test_laws_and_assumptions() -> None:
    gain = np.array([0.5, -2.0])
    assert value(gain) == pytest.approx(2 * value(gain / 2))
    falling = [value(gain, Fraction(k, 4)) for k in range(5)]
    assert falling == sorted(falling, reverse=True)
    assert not normalization_bound(gain, epsilon=EPS).assumptions
    [region] = normalization_bound(gain, epsilon=0, least_deviation=2).assumptions
    assert "at least 2" in region.text
    assert value(gain, Fraction(2), Fraction(0)) == pytest.approx(1, abs=1e-12)


def test_outputs_stay_within_the_radius_and_reach_it() -> None:
    generator = np.random.default_rng(2)
    gain, bias = np.ones(6), np.zeros(6)
    x = 1000 * generator.standard_normal((6, 100))
    reached = np.linalg.norm(normalise(x, gain, False), axis=0).max()
    limit = float(normalized_radius(gain, bias, epsilon=EPS))
    assert 0.999 * limit < reached <= limit
    edge = 0.01 * x / np.linalg.norm(x, axis=0)
    near = float(normalized_radius(gain, bias, epsilon=EPS, radius=Fraction("0.01")))
    assert np.linalg.norm(normalise(edge, gain, False), axis=0) == pytest.approx(near, rel=1e-9)
    assert near < limit
    shifted = float(normalized_radius(2 * gain, np.full(6, 3.0), epsilon=EPS))
    assert shifted == pytest.approx(2 * 6**0.5 + 3 * 6**0.5)


@pytest.mark.parametrize(("eps", "s0"), [(0, 0), (-1, 1), (1e-5, 1), (EPS, 0.5), (EPS, -1)])
def test_eps_and_the_deviation_are_exact_and_not_both_zero(eps: object, s0: object) -> None:
    with pytest.raises(UserError, match="must be"):
        normalization_bound(np.ones(2), epsilon=eps, least_deviation=s0)  # type: ignore[arg-type]
