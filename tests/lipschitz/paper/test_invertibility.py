"""Theorem I: closed forms, laws, and what is said where nothing is proved."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from tests.lipschitz.invertibility_cases import ONE, linear_layer, random_case, stack, turned
from tests.reference.layers import rotated

from promptlimits.base.errors import UserError
from promptlimits.lipschitz.paper.invertibility import certify_invertible


def scaled(weights, factor):
    def layer(of):
        heads = tuple(
            replace(h, query=h.query * factor, key=h.key * factor, value=h.value * factor)
            for h in of.heads
        )
        return replace(of, heads=heads, w1=of.w1 * factor)

    return replace(weights, layers=tuple(layer(each) for each in weights.layers))


def test_the_closed_form_of_one_head_without_mlp():
    value, score, radius = 0.3, 0.7, Fraction(5, 4)
    found = certify_invertible(stack(linear_layer(value * np.eye(3), score)), radius=radius)
    beta = score * float(radius) ** 2
    attention = value * (beta + math.sqrt(1 + beta**2))
    assert float(found.blocks[0].attention) == pytest.approx(attention, rel=1e-7)
    assert float(found.blocks[0].attention) >= attention * (1 - 1e-15)
    assert float(found.floor) == pytest.approx(1 - attention, rel=1e-7)
    assert float(found.deviation) == pytest.approx(attention, rel=1e-7)
    assert found.one_to_one
    assert found.reason == ""


def test_the_floor_is_attained_by_uniform_attention():
    found = certify_invertible(stack(linear_layer(-0.25 * np.eye(2))), radius=7)
    # One token and no prompt: y = 0.75 x.
    assert 0.75 - 1e-7 < found.floor <= Fraction(3, 4)


@pytest.mark.parametrize("norm", ["token", "frobenius"])
@pytest.mark.parametrize("seed", range(6))
def test_depth_one_and_masks_need_only_contracting_blocks(seed, norm):
    shallow = random_case(seed, layers=1)
    causal = random_case(seed, layers=3, masked=True)
    for weights in (shallow, causal):
        found = certify_invertible(weights, radius=ONE, norm=norm, tokens=3)
        product = ONE
        for block in found.blocks:
            product *= max(1 - block.attention, 0) * max(1 - block.branch, 0)
        assert found.whole_floor <= product
        assert abs(found.floor - product) < Fraction(1, 2**200)
        assert found.one_to_one == (product > 0)


@pytest.mark.parametrize("norm", ["token", "frobenius"])
@pytest.mark.parametrize("seed", range(8))
def test_the_recursion_equals_a_plain_one_and_beats_lambda(seed, norm):
    weights = random_case(seed, layers=3, scale=0.15 + 0.02 * seed)
    found = certify_invertible(weights, radius=ONE, norm=norm, tokens=4)
    floor, ratio = 1.0, 0.0
    for block in found.blocks:
        kappa, mixing, branch = map(float, (block.covariance, block.mixing, block.branch))
        joint = max(1.0, ratio) if norm == "token" else math.hypot(1.0, ratio)
        kept = 1 - kappa - mixing * joint
        if kept <= 0:
            floor = 0.0
            break
        floor *= kept * (1 - branch)
        ratio = float(block.feed_forward) * ((1 + kappa) * ratio + mixing * joint)
        ratio /= kept * (1 - branch)
    assert float(found.floor) == pytest.approx(max(floor, 0.0), rel=1e-9, abs=1e-12)
    assert found.floor >= 1 - found.deviation
    deviation = math.prod((1 + float(b.attention)) * (1 + float(b.branch)) for b in found.blocks)
    assert float(found.deviation) == pytest.approx(deviation - 1, rel=1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_laws(masked):
    weights = random_case(3, masked=masked)
    by_radius = [certify_invertible(weights, radius=Fraction(r, 4)) for r in range(1, 9)]
    by_scale = [certify_invertible(scaled(weights, 0.2 * k), radius=1) for k in range(1, 8)]
    for chain in (by_radius, by_scale):
        deviations = [found.deviation for found in chain]
        floors = [found.floor for found in chain]
        assert deviations == sorted(deviations)
        assert floors == sorted(floors, reverse=True)
        assert floors[0] > floors[-1]
    rows = [certify_invertible(weights, radius=1, norm="frobenius", tokens=n) for n in (1, 2, 9)]
    assert [found.floor for found in rows] == sorted((f.floor for f in rows), reverse=True)


def test_the_frobenius_norm_pays_for_the_number_of_tokens():
    weights = random_case(2, layers=1)
    plain = certify_invertible(weights, radius=1).blocks[0]
    found = certify_invertible(weights, radius=1, norm="frobenius", tokens=9).blocks[0]
    assert found.covariance == plain.covariance
    assert float(found.mixing) == pytest.approx(3 * float(plain.mixing), rel=1e-12)


def test_radii_grow_and_a_rotation_changes_nothing():
    weights = random_case(5, scale=0.2)
    found = certify_invertible(weights, radius=1)
    assert found.blocks[0].radius == 1 < found.blocks[1].radius
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    layers = tuple(rotated(layer, turn) for layer in weights.layers)
    same = certify_invertible(replace(weights, layers=layers), radius=1)
    assert float(same.floor) == pytest.approx(float(found.floor), rel=1e-6)


def test_the_trap_is_not_certified_and_its_reason_is_said():
    deep = certify_invertible(stack(*[linear_layer(turned(45))] * 4), radius=1)
    assert all(block.attention < 1 for block in deep.blocks)
    assert deep.whole_floor > 0
    assert (deep.floor, deep.one_to_one) == (0, False)
    assert "with only the prompt fixed" in deep.reason
    masked = certify_invertible(stack(*[linear_layer(turned(45))] * 4, masked=True), radius=1)
    assert masked.one_to_one
    assert masked.floor == masked.whole_floor


def test_a_constant_of_one_or_more_is_a_value_with_a_reason():
    found = certify_invertible(stack(linear_layer(-np.eye(2))), radius=1)
    assert found.floor == 0
    assert found.reason.startswith("the attention of layer 1 has the constant 1")
    wide = random_case(0, scale=3.0, layers=1)
    flat = replace(
        wide.layers[0], heads=(replace(wide.layers[0].heads[0], value=np.zeros((3, 4))),)
    )
    assert "MLP branch of layer 1" in certify_invertible(stack(flat), radius=1).reason


def test_least_error_is_half_the_floor_times_the_distance():
    found = certify_invertible(stack(linear_layer(-0.5 * np.eye(2))), radius=1)
    assert found.least_error(4) == 2 * found.floor


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"radius": 0}, "radius"),
        ({"radius": Fraction(-1)}, "radius"),
        ({"radius": math.nan}, "radius"),
        ({"radius": 1, "norm": "max"}, "token or frobenius"),
        ({"radius": 1, "norm": "frobenius"}, "tokens"),
        ({"radius": 1, "tokens": 0}, "tokens"),
    ],
)
def test_bad_input(options, words):
    with pytest.raises(UserError, match=words):
        certify_invertible(random_case(0), **options)


def test_it_knows_its_weights():
    found = certify_invertible(random_case(0), radius=1)
    assert found.weights_sha256 == random_case(0).sha256() != random_case(1).sha256()
