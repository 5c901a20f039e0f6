"""Saving and loading the papers' transformer: config.json and model.safetensors, never pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from promptlimits.base.errors import UserError
from promptlimits.base.files import read_regular_text, require_regular
from promptlimits.base.typing import JsonObject
from promptlimits.nets.paper.layers import PaperHead, PaperLayer, PaperNorm
from promptlimits.nets.paper.transformer import PaperTransformer

MODEL_TYPE: Final = "promptlimits-transformer"
CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"

_FIELDS: Final = frozenset(
    {"model_type", "format", "dim", "dtype", "masked", "norm_place", "positions", "layers"}
)
_LAYER_FIELDS: Final = frozenset({"heads", "attention_norm", "mlp_norm"})
_NORM_FIELDS: Final = frozenset({"kind", "epsilon"})
_HEAD_PARTS: Final = ("query", "key", "value", "output")
_MLP_PARTS: Final = ("w1", "b1", "w2", "b2")
_NORM_PARTS: Final = ("attention_norm", "mlp_norm")
_DTYPES: Final = {"float32": torch.float32, "float64": torch.float64}


def save_transformer(model: PaperTransformer, folder: Path) -> None:
    """Write a transformer so that `load_transformer` gives the same one, bit for bit."""
    config: JsonObject = {
        "model_type": MODEL_TYPE,
        "format": 1,
        "dim": model.dim,
        "dtype": _dtype_name(model.dtype),
        "masked": model.masked,
        "norm_place": model.norm_place,
        "positions": model.positions is not None,
        "layers": [_layer_config(layer) for layer in model.layers],
    }
    folder.mkdir(parents=True, exist_ok=True)
    # Clones: safetensors refuses tensors that share memory.
    tensors = {name: values.detach().clone().contiguous() for name, values in _tensors(model)}
    save_file(tensors, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def load_transformer(folder: Path) -> PaperTransformer:
    """Read a transformer that `save_transformer` wrote."""
    config = _read_config(folder / CONFIG)
    tensors = _read_tensors(folder / WEIGHTS)
    expected = _expected_keys(config)
    _require_keys(folder / WEIGHTS, set(tensors), expected)
    dtype = _DTYPES[config["dtype"]]
    wrong = {name: values.dtype for name, values in tensors.items() if values.dtype != dtype}
    if wrong:
        raise UserError(
            str(folder / WEIGHTS),
            f"hold {config['dtype']}, as config.json says",
            got=str(wrong),
            remedy="save the model again",
        )
    model = PaperTransformer(
        layers=tuple(
            _read_layer(f"layers.{number}", layer, tensors)
            for number, layer in enumerate(config["layers"])
        ),
        masked=config["masked"],
        norm_place=config["norm_place"],
        positions=tensors.get("positions"),
    )
    if model.dim != config["dim"]:
        raise UserError(
            str(folder / CONFIG),
            f"state dim {model.dim}, as its weights have",
            got=config["dim"],
            remedy="use the files as they were written together",
        )
    return model


def _dtype_name(dtype: torch.dtype) -> str:
    for name, known in _DTYPES.items():
        if known == dtype:
            return name
    raise UserError(
        "the transformer's dtype",
        "be float32 or float64",
        got=dtype,
        remedy="use .to(torch.float64)",
    )


def _layer_config(layer: PaperLayer) -> JsonObject:
    norms: JsonObject = {}
    for part in _NORM_PARTS:
        norm: PaperNorm | None = getattr(layer, part)
        norms[part] = None if norm is None else {"kind": norm.kind, "epsilon": norm.epsilon}
    return {"heads": len(layer.heads), **norms}


def _tensors(model: PaperTransformer) -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor | None]] = [("positions", model.positions)]
    for number, layer in enumerate(model.layers):
        where = f"layers.{number}"
        for index, head in enumerate(layer.heads):
            found += [(f"{where}.heads.{index}.{p}", getattr(head, p)) for p in _HEAD_PARTS]
        found += [(f"{where}.{part}", getattr(layer, part)) for part in _MLP_PARTS]
        for part in _NORM_PARTS:
            norm: PaperNorm | None = getattr(layer, part)
            if norm is not None:
                found += [
                    (f"{where}.{part}.weight", norm.weight),
                    (f"{where}.{part}.bias", norm.bias),
                ]
    return [(name, values) for name, values in found if values is not None]


def _expected_keys(config: dict[str, Any]) -> set[str]:
    keys = {"positions"} if config["positions"] else set()
    for number, layer in enumerate(config["layers"]):
        where = f"layers.{number}"
        keys |= {f"{where}.heads.{i}.{p}" for i in range(layer["heads"]) for p in _HEAD_PARTS}
        keys |= {f"{where}.{part}" for part in _MLP_PARTS}
        for part in _NORM_PARTS:
            if layer[part] is not None:
                keys.add(f"{where}.{part}.weight")
            if layer[part] is not None and layer[part]["kind"] == "layer":
                keys.add(f"{where}.{part}.bias")
    return keys


def _read_layer(where: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> PaperLayer:
    def norm(part: str) -> PaperNorm | None:
        if config[part] is None:
            return None
        return PaperNorm(
            kind=config[part]["kind"],
            weight=tensors[f"{where}.{part}.weight"],
            bias=tensors.get(f"{where}.{part}.bias"),
            epsilon=config[part]["epsilon"],
        )

    heads = tuple(
        PaperHead(**{part: tensors[f"{where}.heads.{index}.{part}"] for part in _HEAD_PARTS})
        for index in range(config["heads"])
    )
    matrices = {part: tensors[f"{where}.{part}"] for part in _MLP_PARTS}
    return PaperLayer(
        heads=heads, attention_norm=norm("attention_norm"), mlp_norm=norm("mlp_norm"), **matrices
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(read_regular_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            str(path),
            "be a JSON file that can be read",
            got=getattr(error, "strerror", None) or str(error),
            remedy="save the model again",
        ) from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != MODEL_TYPE or config.get("format") != 1:
        raise UserError(
            str(path),
            f"have model_type {MODEL_TYPE!r} and format 1",
            got=f"model_type {kind!r}",
            remedy="give a folder that save_transformer wrote",
        )
    _require_keys(path, set(config), _FIELDS)
    if not _well_formed(config):
        raise UserError(
            str(path),
            "have values of the right kind",
            got=json.dumps(config),
            remedy="use the file as it was written",
        )
    return dict(config)


def _well_formed(config: dict[str, Any]) -> bool:
    return (
        _is_count(config["dim"])
        and config["dtype"] in tuple(_DTYPES)
        and config["norm_place"] in (None, "pre", "post")
        and isinstance(config["masked"], bool)
        and isinstance(config["positions"], bool)
        and isinstance(config["layers"], list)
        and all(_layer_is_well_formed(layer) for layer in config["layers"])
    )


def _layer_is_well_formed(layer: Any) -> bool:
    return (
        isinstance(layer, dict)
        and set(layer) == _LAYER_FIELDS
        and _is_count(layer["heads"])
        and all(layer[part] is None or _norm_is_well_formed(layer[part]) for part in _NORM_PARTS)
    )


def _norm_is_well_formed(norm: Any) -> bool:
    return (
        isinstance(norm, dict)
        and set(norm) == _NORM_FIELDS
        and norm["kind"] in ("layer", "rms")
        and isinstance(norm["epsilon"], float)
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        require_regular(path)
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(
            str(path),
            "be a whole safetensors file",
            got=f"a file that is missing, cut off or of another kind ({error})",
            remedy="save the model again; pickled weights are never read",
        ) from error
    return tensors


def _require_keys(path: Path, found: set[str], expected: set[str] | frozenset[str]) -> None:
    missing, unknown = sorted(expected - found), sorted(found - expected)
    if missing or unknown:
        raise UserError(
            str(path),
            "hold exactly the keys of its model",
            got=f"missing {', '.join(missing) or 'none'}; unknown {', '.join(unknown) or 'none'}",
            remedy="use the file as it was written",
        )
