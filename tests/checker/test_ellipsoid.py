"""The independent checker of ellipsoid bounds takes true certificates and refuses altered ones."""

import functools
import json
import re
from fractions import Fraction

import numpy as np
import pytest
from flint import arb_mat

from promptlimits import checker
from promptlimits.base.errors import UserError
from promptlimits.certificates import check_certificate, checked
from promptlimits.checker import ellipsoid
from promptlimits.checker.core import inputs_of
from promptlimits.checker.ellipsoid import prove_limit
from promptlimits.lipschitz.ellipsoid.certificate import (
    TransformerLipschitz,
    effective_lipschitz,
    ellipsoid_bound,
)
from promptlimits.nets.paper.weights import random_weights


def model(seed=0, **changes):
    shape = {
        "dim": 2,
        "heads": 1,
        "head_dim": 1,
        "hidden": 1,
        "layers": 1,
        "masked": True,
    }
    return random_weights(**(shape | changes), generator=np.random.default_rng(seed))


def certificate(weights, *, prompt_only=False):
    found = ellipsoid_bound(weights, radius=1, prompt_only=prompt_only, effort="quick")
    return json.loads(json.dumps(found.certificate.certificate()))


def check(record, *, weights):
    """What a certificate says, proved."""
    said = checked(record)
    prove_limit(record, weights)
    assert said.about_a_model
    return said.statement


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dim": 1, "hidden": 0},
        {"layers": 2, "heads": 3, "dim": 4},
        {"layers": 2, "biases": True, "masked": False, "hidden": 5},
    ],
    ids=["small", "one number", "three heads", "biases"],
)
@pytest.mark.parametrize("prompt_only", [False, True])
def test_true_certificates_pass(changes, prompt_only):
    weights = model(**changes)
    said = check(certificate(weights, prompt_only=prompt_only), weights=weights)
    assert f"{len(weights.layers)} layers of width {weights.dim}" in said
    assert ("the prompt moves" in said) is prompt_only


def test_cells_of_another_shape_pass():
    weights = model(dim=3)
    found = effective_lipschitz(weights, radius=1, effort="quick")
    assert "recorded ellipsoid" in check(found.moves.certificate.certificate(), weights=weights)


@pytest.mark.parametrize("hidden", [0, 4])
def test_the_centre_goes_where_the_layer_takes_it(hidden):
    weights = model(dim=3, heads=2, biases=True, hidden=hidden)
    layer = weights.layers[0]
    maps = ellipsoid._Maps(layer, inputs_of(certificate(weights)).layers[0])
    center = np.array([[0.5], [-1.0], [2.0]])
    found = maps.moved(arb_mat(center.tolist()))
    center = center + sum(head.output @ head.value for head in layer.heads) @ center
    inner = np.maximum(layer.w1 @ center + layer.b1[:, None], 0)
    truth = center + layer.w2 @ inner + layer.b2[:, None]
    assert [float(value) for value in found.entries()] == pytest.approx(truth[:, 0], rel=1e-13)


@pytest.mark.parametrize("prompt_only", [False, True])
def test_a_limit_is_neither_too_low_nor_loose(prompt_only):
    weights = model(layers=2, dim=3, hidden=4)
    record = certificate(weights, prompt_only=prompt_only)
    mantissa, exponent = record["value"]["limit"]
    for change, match in {-mantissa >> 26: "too low", mantissa >> 11: "higher than"}.items():
        value = {"limit": [mantissa + change, exponent]}
        with pytest.raises(checker.Refuted, match=match):
            prove_limit(record | {"value": value}, weights)


def altered(value):
    """Every value inside replaced by ones of other types or ranges, one at a time."""
    if isinstance(value, dict):
        yield from (value | {key: other} for key in value for other in altered(value[key]))
        yield from ({k: v for k, v in value.items() if k != key} for key in value)
        yield value | {"more": 1}
    elif isinstance(value, list):
        places = range(len(value))
        yield from (
            [*value[:at], other, *value[at + 1 :]] for at in places for other in altered(value[at])
        )
        yield [*value, value[0] if value else "0x1.0p+0"]
    elif isinstance(value, str):
        yield from (f"{value} ", f"0{value}", "", 1.5, None, "nan", "-1", "-0x1.0000000000000p+0")
    else:
        yield from ("1", 2.5, [value], not value if isinstance(value, bool) else -1)


def test_records_of_another_form_are_no_certificates():
    weights = model()
    record = certificate(weights)
    for part in ("inputs", "value"):
        for other in altered(record[part]):
            with pytest.raises((checker.Refuted, ValueError)):  # noqa: PT012
                checker.check(record | {part: other})
                prove_limit(record | {part: other}, weights)


@functools.cache
def two_heads():
    return json.dumps(certificate(model(heads=2, hidden=2)))


def forged(**inputs):
    record = json.loads(two_heads())
    record["inputs"] |= inputs
    return record


def test_free_numbers_of_fewer_heads_or_neurons_prove_nothing():
    weights = model(heads=2, hidden=2)
    layer = json.loads(two_heads())["inputs"]["layers"][0]
    short = {"lengths": layer["lengths"][:1]}
    for name in ("tokens", "change"):
        step = layer[name]
        short[name] = step | {"heads": step["heads"][:1], "turns": step["turns"][:1]}
    with pytest.raises(checker.Refuted, match="number of heads"):
        check(forged(layers=[layer | short]), weights=weights)
    fewer = layer["change"] | {"reaches": layer["change"]["reaches"][:1]}
    with pytest.raises(checker.Refuted, match="hidden neurons"):
        check(forged(layers=[layer | {"change": fewer}]), weights=weights)


def test_numbers_that_prove_too_little_are_refused():
    weights = model(heads=2, hidden=2)
    layer = json.loads(two_heads())["inputs"]["layers"][0]
    with pytest.raises(checker.Refuted, match="length is too small"):
        check(forged(layers=[layer | {"lengths": [(1e-3).hex()] * 2}]), weights=weights)
    small = layer["change"] | {"reaches": [(1e-3).hex()] * 2}
    with pytest.raises(checker.Refuted, match="indefinite"):
        check(forged(layers=[layer | {"change": small}]), weights=weights)
    wide = layer["change"] | {"own": float(1).hex()}
    with pytest.raises(UserError, match="at most 1"):
        check(forged(layers=[layer | {"change": wide}]), weights=weights)
    far = layer["change"] | {"reaches": [(1e3).hex()] * 2}
    with pytest.raises(checker.Refuted, match="limit is too low"):
        check(forged(layers=[layer | {"change": far}]), weights=weights)
    with pytest.raises(checker.Refuted, match="length is too small"):
        check(forged(radius="2"), weights=weights)
    with pytest.raises(checker.Refuted, match="higher than its numbers"):
        check(forged(radius="1/2"), weights=weights)


def test_other_weights_are_refused():
    record = certificate(model())
    with pytest.raises(checker.Refuted, match="hash, mask, width or number of layers"):
        check(record, weights=model(seed=1))
    with pytest.raises(checker.Refuted, match="hash, mask, width or number of layers"):
        check(record, weights=model(masked=False))


def test_weights_are_read_from_a_saved_transformer(tmp_path):
    from promptlimits.nets.paper.files import save_transformer
    from promptlimits.nets.paper.transformer import from_weights

    weights = model(biases=True, heads=2)
    save_transformer(from_weights(weights), tmp_path)
    record = certificate(weights)
    assert check_certificate(record, weights=tmp_path).startswith("with every token in the ball")
    assert check_certificate(record).startswith("not checked against a model: with every token")
    (tmp_path / "model.safetensors").write_bytes(b"\x01")
    with pytest.raises(UserError, match="safetensors"):
        check_certificate(record, weights=tmp_path)


@pytest.mark.parametrize(
    ("limit", "radius"),
    [
        (1.2345604, Fraction(9999999, 10**7)),
        (1 / 3, Fraction(1, 3)),
        (2.0, Fraction(1)),
        (1e300, Fraction(10**400, 7)),
    ],
)
def test_words_round_the_limit_up_and_the_radius_down(limit, radius):
    inputs = certificate(model())["inputs"]
    claim = TransformerLipschitz(**inputs | {"radius": radius}, limit=limit)
    said = claim.claim(claim.value())
    found = re.findall(r"(?:radius|most) ([0-9][0-9.E+-]*)(?=[, ])", said)
    shown = [Fraction(number) for number in found]
    assert len(shown) == 2
    assert radius * (1 - Fraction(1, 10**11)) <= shown[0] <= radius
    assert Fraction(limit) <= shown[1] <= Fraction(limit) * (1 + Fraction(1, 10**5))
