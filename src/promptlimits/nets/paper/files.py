"""Saving and loading the papers' transformer: config.json and model.safetensors, never pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from promptlimits.base.errors import UserError
from promptlimits.base.files import cannot_read, read_regular_text, require_regular
from promptlimits.nets.paper.layers import (
    Activation,
    NormKind,
    NormPlace,
    PaperHead,
    PaperLayer,
    PaperNorm,
    changed,
    named_tensors,
)
from promptlimits.nets.paper.transformer import PaperTransformer

MODEL_TYPE: Final = "promptlimits-transformer"
CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"

_DTYPES: Final = {"float32": torch.float32, "float64": torch.float64}
_BLANK: Final = torch.empty(0)


class _Config(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _NormConfig(_Config):
    kind: NormKind
    epsilon: float

    def blank(self) -> PaperNorm:
        bias = _BLANK if self.kind == "layer" else None
        return PaperNorm(kind=self.kind, weight=_BLANK, bias=bias, epsilon=self.epsilon)


class _LayerConfig(_Config):
    heads: NonNegativeInt
    attention_norm: _NormConfig | None
    mlp_norm: _NormConfig | None
    activation: Activation = "relu"  # files from before there was a choice do not say

    def blank(self) -> PaperLayer:
        """The layer with empty tensors in its places."""
        head = PaperHead(query=_BLANK, key=_BLANK, value=_BLANK, output=_BLANK)
        return PaperLayer(
            heads=(head,) * self.heads,
            w1=_BLANK,
            b1=_BLANK,
            w2=_BLANK,
            b2=_BLANK,
            attention_norm=None if self.attention_norm is None else self.attention_norm.blank(),
            mlp_norm=None if self.mlp_norm is None else self.mlp_norm.blank(),
            activation=self.activation,
        )


class _ModelConfig(_Config):
    model_type: Literal["promptlimits-transformer"]
    format: Literal[1]
    dim: NonNegativeInt
    dtype: Literal["float32", "float64"]
    masked: bool
    norm_place: NormPlace | None
    positions: bool
    layers: list[_LayerConfig]


def save_transformer(model: PaperTransformer, folder: Path) -> None:
    """Write a transformer so that `load_transformer` gives the same one, bit for bit."""
    dtype = str(model.dtype).removeprefix("torch.")
    if dtype not in _DTYPES:
        raise UserError(
            "the transformer's dtype",
            "be float32 or float64",
            got=model.dtype,
            remedy="use .to(torch.float64)",
        )
    config = {
        "model_type": MODEL_TYPE,
        "format": 1,
        "dim": model.dim,
        "dtype": dtype,
        "masked": model.masked,
        "norm_place": model.norm_place,
        "positions": model.positions is not None,
        "layers": [
            {
                "heads": len(layer.heads),
                "attention_norm": _norm_config(layer.attention_norm),
                "mlp_norm": _norm_config(layer.mlp_norm),
                "activation": layer.activation,
            }
            for layer in model.layers
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    # Clones: safetensors refuses tensors that share memory.
    tensors = {k: v.detach().clone().contiguous() for k, v in named_tensors(model).items()}
    save_file(tensors, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def load_transformer(folder: Path) -> PaperTransformer:
    """Read a transformer that `save_transformer` wrote."""
    config = _read_config(folder / CONFIG)
    tensors = _read_tensors(folder / WEIGHTS)
    blank = tuple(layer.blank() for layer in config.layers)
    expected = {f"layers.{name}" for name in named_tensors(blank)}
    expected |= {"positions"} if config.positions else set()
    _require_tensors(folder / WEIGHTS, tensors, expected, config.dtype)
    layers = changed(blank, lambda name, _: tensors[name], "layers")
    model = PaperTransformer(
        layers=layers,
        masked=config.masked,
        norm_place=config.norm_place,
        positions=tensors.get("positions"),
    )
    if model.dim != config.dim:
        raise UserError(
            str(folder / CONFIG),
            f"state dim {model.dim}, as its weights have",
            got=config.dim,
            remedy="use the files as they were written together",
        )
    return model


def _norm_config(norm: PaperNorm | None) -> dict[str, object] | None:
    return None if norm is None else {"kind": norm.kind, "epsilon": norm.epsilon}


def _read_config(path: Path) -> _ModelConfig:
    try:
        config = json.loads(read_regular_text(path))
    except OSError as error:
        raise cannot_read(str(path), error) from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            str(path),
            "be a JSON file that can be read",
            got=str(error),
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
    try:
        return _ModelConfig.model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            str(path),
            "have known keys alone, with values of the right kind",
            got=f"{'.'.join(map(str, first['loc']))}: {first['msg']}",
            remedy="use the file as it was written",
        ) from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        require_regular(path)
        tensors: dict[str, Tensor] = load_file(path)
    except OSError as error:
        raise cannot_read(str(path), error) from error
    except SafetensorError as error:
        raise UserError(
            str(path),
            "be a whole safetensors file",
            got=f"a file that is cut off or of another kind ({error})",
            remedy="save the model again; pickled weights are never read",
        ) from error
    return tensors


def _require_tensors(
    path: Path, tensors: dict[str, Tensor], expected: set[str], dtype: str
) -> None:
    missing, unknown = sorted(expected - set(tensors)), sorted(set(tensors) - expected)
    if missing or unknown:
        raise UserError(
            str(path),
            "hold exactly the keys of its model",
            got=f"missing {', '.join(missing) or 'none'}; unknown {', '.join(unknown) or 'none'}",
            remedy="use the file as it was written",
        )
    wrong = {k: v.dtype for k, v in tensors.items() if v.dtype != _DTYPES[dtype]}
    if wrong:
        raise UserError(
            str(path),
            f"hold {dtype}, as config.json says",
            got=str(wrong),
            remedy="save the model again",
        )
