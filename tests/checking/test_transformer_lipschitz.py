"""The independent checker of ellipsoid bounds takes true certificates and refuses altered ones."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.checking.altered import Alteration, assert_all_refused, sealed_again

from promptlimits.checking.dispatch import check_certificate
from promptlimits.checking.transformer_lipschitz import check
from promptlimits.errors import RunFailed, UserError
from promptlimits.lipschitz.effective import effective_lipschitz
from promptlimits.lipschitz.ellipsoid_certificate import ellipsoid_bound
from promptlimits.lipschitz.weights import TransformerWeights, random_weights


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
    from promptlimits.models.paper_files import save_transformer
    from promptlimits.models.transformer import from_weights

    weights = model(biases=True, heads=2)
    save_transformer(from_weights(weights), tmp_path)
    record = certificate(weights)
    assert "width 2" in check_certificate(record, weights=tmp_path)
    assert "not checked" in check_certificate(record)
    (tmp_path / "model.safetensors").write_bytes(b"\x01")
    with pytest.raises(UserError, match="folder of a transformer"):
        check_certificate(record, weights=tmp_path)
