"""Covering numbers: closed forms hold for greedy nets and packings of small sets."""

import math
from fractions import Fraction

import numpy as np
import pytest

from promptlimits.base.errors import UserError
from promptlimits.bounds.covering import (
    BallCovering,
    EllipsoidCovering,
    VolumeCovering,
    greedy_packing,
)


def inside(axes, count):
    """Points of an ellipsoid, in rows."""
    generator = np.random.default_rng(len(axes))
    x = generator.normal(size=(count, len(axes)))
    x *= generator.uniform(size=(count, 1)) ** (1 / len(axes))
    return (
        x
        / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-9)
        * axes
        * np.minimum(1, np.linalg.norm(x, axis=1, keepdims=True))
    )


@pytest.mark.parametrize(
    ("axes", "eps"),
    [([1, 1], 0.25), ([2, 0.25], 0.5), ([1, 0.5, 0.125], 0.25), ([1, 1, 1], 0.5), ([4], 0.5)],
)
def test_greedy_nets_obey_the_limits(axes, eps):
    """A greedy packing of a dense sample has no more points than any packing; it is a net."""
    points = inside(axes, 5000)
    taken = greedy_packing(points, eps)
    gaps = np.linalg.norm(points[:, None] - points[taken][None], axis=2)
    assert gaps.min(axis=1).max() <= eps
    exact = [Fraction(axis) for axis in axes]
    limits = EllipsoidCovering(semi_axes=exact, eps=Fraction(eps)).covering()
    assert limits.lower.log <= limits.upper.log
    # N(eps) <= P(eps); a packing at 2 eps needs as many balls of radius eps.
    assert limits.upper.upper_nats() >= np.log(len(greedy_packing(points, 2 * eps)))
    if len(set(axes)) == 1:
        ball = BallCovering(dim=len(axes), radius=exact[0], eps=Fraction(eps))
        assert ball.packing().upper.upper_nats() >= np.log(len(taken))
        same = ball.covering().upper
        assert limits.upper.upper_nats() == pytest.approx(same.upper_nats(), rel=1e-2)


def test_closed_forms_and_laws():
    one = BallCovering(dim=6, radius=2, eps=Fraction(1, 2)).covering()
    assert one.lower.lower_nats() == pytest.approx(math.log(4**6))
    assert one.upper.upper_nats() == pytest.approx(math.log(9**6))
    wide = BallCovering(dim=6, radius=2, eps=2)
    assert wide.covering().upper.upper_nats() == 0
    assert wide.packing().upper.upper_nats() > 0
    assert BallCovering(dim=6, radius=2, eps=4).packing().upper.upper_nats() == 0
    fine = BallCovering(dim=64, radius=1, eps=Fraction(1, 100))
    assert fine.rogers().log < fine.covering().upper.log
    with pytest.raises(UserError, match="dim"):
        BallCovering(dim=2, radius=1, eps=1).rogers()
    segment = VolumeCovering(
        dim=1, eps=Fraction(1, 4), volume_ratio=1, enlarged_ratio=Fraction(9, 8)
    ).covering()
    assert segment.lower.lower_nats() >= math.log(3.9)
    assert segment.upper.upper_nats() <= math.log(10)


def test_measures():
    found = BallCovering(dim=3, radius=1, eps=Fraction(1, 10)).measures_covering(order=2)
    assert found.upper_nats() == pytest.approx(math.log(21**3 * (1 + math.log(1 + 20**2 / 4))))
    with pytest.raises(UserError, match="order must be 1 or more"):
        BallCovering(dim=3, radius=1, eps=1).measures_covering(order=Fraction(1, 2))
    few = BallCovering(dim=2, radius=1, eps=Fraction(1, 120)).paired_measures()
    assert few.lower_nats() == pytest.approx(50 / 8)
    with pytest.raises(UserError, match="eps"):
        BallCovering(dim=2, radius=1, eps=1).paired_measures()


@pytest.mark.parametrize(
    ("axes", "eps"),
    [
        ([10**200], 1),
        ([1, 10**200], Fraction(1, 10**201)),
        ([Fraction(1, 10**300), 1, 10**300], Fraction(1, 10**200)),
        ([10**400, 10**390], 10**395),
    ],
    ids=("long", "short", "both", "huge"),
)
def test_ellipsoids_beyond_floats(axes, eps):
    limits = EllipsoidCovering(semi_axes=axes, eps=eps).covering()
    assert limits.lower.log <= limits.upper.log
    # Each axis longer than eps costs little more than log(2a/eps) here, the others nothing.
    assert limits.upper.upper_nats() <= limits.lower.lower_nats() + 0.8 * len(axes)


def test_the_scale_of_an_ellipsoid_does_not_matter():
    axes = [Fraction(5), Fraction(1), Fraction(1, 4)]
    logs = [
        EllipsoidCovering(semi_axes=[a * s for a in axes], eps=s / 3).covering().upper.log
        for s in (Fraction(1), Fraction(10) ** 300, Fraction(1, 10**300))
    ]
    assert [float(log) for log in logs] == pytest.approx([float(logs[0])] * 3, rel=1e-12)
