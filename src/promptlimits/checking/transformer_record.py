"""What a certificate of a transformer's Lipschitz constant says, read and in its one form.

The weights are a mapping of names to arrays; their hash is SHA-256 over the mask and, in the
order of the layers, each array's name, shape and little-endian doubles.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from promptlimits.base.errors import UserError
from promptlimits.base.files import read_regular_text
from promptlimits.checking.model_files import WeightFiles
from promptlimits.checking.record import exact_fraction, exactly, listed, text, whole

INPUT_FIELDS: Final = {
    "dim",
    "masked",
    "prompt_only",
    "radius",
    "weights_sha256",
    "shape",
    "limit",
    "layers",
}
HEAD: Final = ("query", "key", "value", "output")
MLP: Final = ("w1", "b1", "w2", "b2")
_NORMS: Final = ("attention_norm", "mlp_norm")
_LAYER: Final = {"lengths", "tokens", "change", "query"}
_STEP: Final = {"own", "heads", "turns", "reaches"}


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """Free numbers of one ellipsoid in one layer, all above 0, weights of sum at most 1."""

    own: Fraction
    heads: tuple[Fraction, ...]
    turns: tuple[Fraction, ...]
    reaches: tuple[Fraction, ...]


@dataclass(frozen=True, kw_only=True)
class LayerRecord:
    """gamma_h of each head, and the free numbers of each ellipsoid."""

    lengths: tuple[Fraction, ...]
    tokens: StepRecord
    change: StepRecord
    query: StepRecord | None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The inputs of a certificate."""

    dim: int
    masked: bool
    prompt_only: bool
    radius: Fraction
    sha256: str
    shape: tuple[tuple[Fraction, ...], ...] | None
    limit: Fraction
    layers: tuple[LayerRecord, ...]


def read_claim(inputs: dict[str, Any]) -> Claim:
    """The claim of a certificate, each field in its range and in its one form."""
    prompt_only, dim = _flag(inputs["prompt_only"]), whole(inputs["dim"], 1)
    layers = tuple(_layer(record, prompt_only) for record in listed(inputs["layers"]))
    if not layers:
        raise ValueError("there is no layer")
    shape = inputs["shape"]
    if shape is not None:
        shape = tuple(_floats(row, dim) for row in listed(shape))
        if len(shape) != dim:
            raise ValueError("the shape is a square matrix")
    return Claim(
        dim=dim,
        masked=_flag(inputs["masked"]),
        prompt_only=prompt_only,
        radius=exact_fraction(inputs["radius"], above=0),
        sha256=text(inputs["weights_sha256"]),
        shape=shape,
        limit=exact_fraction(inputs["limit"], above=0),
        layers=layers,
    )


def _layer(record: Any, prompt_only: bool) -> LayerRecord:
    exactly(record, _LAYER, "layer")
    if prompt_only is (record["query"] is None):
        raise ValueError("there is a step for queries if, and only if, just the prompt moves")
    lengths = _floats(record["lengths"])
    heads = len(lengths)
    if heads < 1 or min(lengths) <= 0:
        raise ValueError("each head has a length above 0")
    return LayerRecord(
        lengths=lengths,
        tokens=_step(record["tokens"], heads, 0),
        change=_step(record["change"], heads, heads),
        query=None if record["query"] is None else _step(record["query"], heads, heads),
    )


def _step(record: Any, heads: int, turns: int) -> StepRecord:
    exactly(record, _STEP, "step")
    step = StepRecord(
        own=_float(record["own"]),
        heads=_floats(record["heads"], heads),
        turns=_floats(record["turns"], turns),
        reaches=_floats(record["reaches"]),
    )
    if min((step.own, *step.heads, *step.turns, *step.reaches)) <= 0:
        raise ValueError("free numbers are above 0")
    if step.own + sum(step.heads) > 1:
        raise ValueError("weights add up to at most 1")
    return step


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _floats(record: Any, count: int | None = None) -> tuple[Fraction, ...]:
    values = tuple(_float(item) for item in listed(record))
    if count is not None and len(values) != count:
        raise ValueError(f"a list of {count} numbers has {len(values)}")
    return values


def _float(record: Any) -> Fraction:
    """A finite double in hexadecimal, in its one form."""
    value = float.fromhex(text(record))
    if not math.isfinite(value) or value.hex() != record:
        raise ValueError(f"{record} is no finite double in its one form")
    return Fraction(value)


def read_arrays(weights: Any) -> tuple[bool, dict[str, NDArray[np.float64]]]:
    """The mask and the arrays of a transformer, in the order of its layers."""
    try:
        if isinstance(weights, str | Path):
            masked, arrays = _read_folder(Path(weights))
        else:
            masked, arrays = bool(weights.masked), dict(weights.arrays())
        _require_shapes(arrays)
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(
            "the weights",
            "be the folder of a transformer without normalisation, as promptlimits saves it",
            got=f"{weights}: {type(error).__name__}: {error}",
            remedy="name the folder that holds its config.json",
        ) from error
    return masked, arrays


def _read_folder(folder: Path) -> tuple[bool, dict[str, NDArray[np.float64]]]:
    config = json.loads(read_regular_text(folder / "config.json"))
    normalised = any(layer[norm] for layer in config["layers"] for norm in _NORMS)
    if normalised or config["positions"]:
        raise ValueError("the bound is about transformers without normalisation or positions")
    files = WeightFiles(folder)
    names = [
        name
        for place, layer in enumerate(config["layers"])
        for name in array_names(place, layer["heads"])
    ]
    if set(names) != set(files.names):
        raise ValueError("the arrays are not those of the configuration")
    return _flag(config["masked"]), {name: files.read(name, files.shape(name)) for name in names}


def _require_shapes(arrays: Mapping[str, NDArray[np.float64]]) -> None:
    """Arrays of a layer fit each other and the width, and are finite."""
    width = arrays["layers.0.heads.0.query"].shape[-1:]
    for name, array in arrays.items():
        base, _, part = name.rpartition(".")
        one = {"key": "query", "output": "value", "b1": "w1", "w2": "w1"}.get(part)
        rows = array.shape[:1] if one is None else arrays[f"{base}.{one}"].shape[:1]
        shapes = {"output": width + rows, "w2": width + rows, "b1": rows, "b2": width}
        if array.shape != shapes.get(part, rows + width):
            raise ValueError(f"{name} has the shape {array.shape}, which does not fit the others")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} is not finite")


def array_names(place: int, heads: int) -> list[str]:
    """Names of the arrays of one layer, in order."""
    names = [f"layers.{place}.heads.{number}.{name}" for number in range(heads) for name in HEAD]
    return names + [f"layers.{place}.{name}" for name in MLP]


def weights_sha256(masked: bool, arrays: Mapping[str, NDArray[np.float64]]) -> str:
    """The hash by which a certificate names its weights."""
    digest = hashlib.sha256(b"masked" if masked else b"unmasked")
    for name, array in arrays.items():
        shape = struct.pack(f"<{array.ndim + 1}q", array.ndim, *array.shape)
        digest.update(name.encode("ascii") + shape + array.astype("<f8").tobytes())
    return digest.hexdigest()
