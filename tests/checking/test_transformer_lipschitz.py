"""The independent checker of ellipsoid bounds takes true certificates and refuses altered ones."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.checking.altered import Alteration, assert_all_refused, sealed_again

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.checking.dispatch import check_certificate
from promptlimits.checking.transformer_lipschitz import _in_words, check
from promptlimits.checking.transformer_record import Claim, read_claim
from promptlimits.lipschitz.ellipsoid.certificate import ellipsoid_bound
from promptlimits.lipschitz.ellipsoid.effective import effective_lipschitz
from promptlimits.nets.paper.weights import TransformerWeights, random_weights


def model(seed: int = 0, **changes: Any) -> TransformerWeights:
    shape: dict[str, Any] = {
        "dim": 2,
        "heads": 1,
        "head_dim": 1,
        "hidden": 1,
        "layers": 1,
        "masked": True,
    }
    return random_weights(**(shape | changes), generator=np.random.default_rng(seed))


def certificate(weights: TransformerWeights, *, prompt_only: bool = False) -> dict[str, Any]:
    found = ellipsoid_bound(weights, radius=1, prompt_only=prompt_only, effort="quick")
    record: dict[str, Any] = json.loads(json.dumps(found.certificate.to_json()))
    return record


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
def test_true_certificates_pass(changes: dict[str, Any], prompt_only: bool) -> None:
    weights = model(**changes)
    said = check(certificate(weights, prompt_only=prompt_only), weights=weights)
    assert f"{len(weights.layers)} layers of width {weights.dim}" in said
    assert ("the prompt moves" in said) is prompt_only


def test_cells_of_another_shape_pass() -> None:
    weights = model(dim=3)
    found = effective_lipschitz(weights, radius=1, effort="quick")
    assert "recorded ellipsoid" in check(found.moves.certificate.to_json(), weights=weights)


def is_free_number(change: Alteration) -> bool:
    """Other free numbers for which the very same limit is proved make the same claim."""
    return change.path[:2] == ("inputs", "layers") and isinstance(change.path[-1], int | str)


def test_altered_certificates_are_refused() -> None:
    weights = model()
    assert_all_refused(
        lambda record: check(record, weights=weights), certificate(weights), excused=is_free_number
    )


@functools.cache
def two_heads() -> str:
    return json.dumps(certificate(model(heads=2, hidden=2)))


def forged(**inputs: Any) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(two_heads())
    record["inputs"] |= inputs
    return sealed_again(record)


def test_free_numbers_of_fewer_heads_or_neurons_prove_nothing() -> None:
    weights = model(heads=2, hidden=2)
    layer = json.loads(two_heads())["inputs"]["layers"][0]
    short = {"lengths": layer["lengths"][:1]}
    for name in ("tokens", "change"):
        step = layer[name]
        short[name] = step | {"heads": step["heads"][:1], "turns": step["turns"][:1]}
    with pytest.raises(RunFailed, match="number of layers or heads"):
        check(forged(layers=[layer | short]), weights=weights)
    fewer = layer["change"] | {"reaches": layer["change"]["reaches"][:1]}
    with pytest.raises(RunFailed, match="hidden neurons"):
        check(forged(layers=[layer | {"change": fewer}]), weights=weights)


def test_numbers_that_prove_too_little_are_refused() -> None:
    weights = model(heads=2, hidden=2)
    layer = json.loads(two_heads())["inputs"]["layers"][0]
    with pytest.raises(RunFailed, match="length is too small"):
        check(forged(layers=[layer | {"lengths": [(1e-3).hex()] * 2}]), weights=weights)
    small = layer["change"] | {"reaches": [(1e-3).hex()] * 2}
    with pytest.raises(RunFailed, match="indefinite"):
        check(forged(layers=[layer | {"change": small}]), weights=weights)
    wide = layer["change"] | {"own": float(1).hex()}
    with pytest.raises(UserError, match="at most 1"):
        check(forged(layers=[layer | {"change": wide}]), weights=weights)
    far = layer["change"] | {"reaches": [(1e3).hex()] * 2}
    with pytest.raises(RunFailed, match="limit is too low"):
        check(forged(layers=[layer | {"change": far}]), weights=weights)
    with pytest.raises(RunFailed, match="length is too small"):
        check(forged(radius="2"), weights=weights)
    with pytest.raises(RunFailed, match="higher than its numbers"):
        check(forged(radius="1/2"), weights=weights)


def test_other_weights_are_refused() -> None:
    record = certificate(model())
    with pytest.raises(RunFailed, match="hash of the weights"):
        check(record, weights=model(seed=1))
    with pytest.raises(RunFailed, match="hash of the weights"):
        check(record, weights=model(masked=False))


def test_weights_are_read_from_a_saved_transformer(tmp_path: Path) -> None:
    from promptlimits.nets.paper.files import save_transformer
    from promptlimits.nets.paper.transformer import from_weights

    weights = model(biases=True, heads=2)
    save_transformer(from_weights(weights), tmp_path)
    record = certificate(weights)
    assert "width 2" in check_certificate(record, weights=tmp_path)
    assert "not checked" in check_certificate(record)
    (tmp_path / "model.safetensors").write_bytes(b"\x01")
    with pytest.raises(UserError, match="whole safetensors"):
        check_certificate(record, weights=tmp_path)


class Arrays:
    """Arrays that no transformer has."""

    masked = True

    def __init__(self, name: str, array: Any) -> None:
        self._changed = {f"layers.0.{name}": np.asarray(array, dtype=np.float64)}

    def arrays(self) -> dict[str, Any]:
        return dict(model(hidden=2).arrays()) | self._changed


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("w1", np.ones((2, 5))),
        ("w1", 3.0),
        ("b1", np.ones(7)),
        ("b2", np.ones((2, 1))),
        ("w2", np.ones((1, 2))),
        ("w2", np.full((2, 2), np.nan)),
        ("heads.0.query", np.ones(3)),
        ("heads.0.key", np.ones((2, 2))),
        ("heads.0.value", np.full((1, 2), np.inf)),
        ("heads.0.output", np.ones((2, 2))),
    ],
)
def test_arrays_that_do_not_fit_are_no_refutation(name: str, array: Any) -> None:
    with pytest.raises(UserError, match=f"layers.0.{name}|IndexError"):
        check(certificate(model()), weights=Arrays(name, array))


@pytest.mark.parametrize(
    ("limit", "radius"),
    [
        (Fraction(12345604, 10**7), Fraction(9999999, 10**7)),
        (Fraction(1, 3), Fraction(1, 3)),
        (Fraction(2), Fraction(1)),
        (Fraction(10**400, 7), Fraction(10**400, 7)),
    ],
)
def test_words_round_the_limit_up_and_the_radius_down(limit: Fraction, radius: Fraction) -> None:
    said = _in_words(dataclasses.replace(claim(), limit=limit, radius=radius))
    found = re.findall(r"(?:radius|most) ([0-9][0-9.E+-]*)(?=[, ])", said)
    shown = [Fraction(number) for number in found]
    assert len(shown) == 2
    assert radius * (1 - Fraction(1, 10**11)) <= shown[0] <= radius
    assert limit <= shown[1] <= limit * (1 + Fraction(1, 10**5))


def claim() -> Claim:
    return read_claim(certificate(model())["inputs"])
