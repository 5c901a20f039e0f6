"""Options of the commands on one layer: where the layer and the pairs come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from promptlimits.base.errors import UserError
from promptlimits.base.files import read_regular_text, require_regular, strict_json
from promptlimits.cli.lab.drawn_weights import DrawnWeights

if TYPE_CHECKING:
    import numpy as np

    from promptlimits.base.typing import JsonObject
    from promptlimits.lab.one_layer.data_set import DataSet
    from promptlimits.nets.paper.weights import LayerWeights

RandomLayer = Annotated[
    str | None,
    typer.Option(
        "--random-layer",
        metavar="d=16,h=1,seed=0",
        help="Gaussian weights; also s (head size, d/h), f (hidden neurons, 0), scale (1).",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="PATH",
        help="A folder of config.json and model.safetensors with one layer, or a .safetensors "
        "file with heads.0.query, .key, .value, .output, .., and w1, b1, w2, b2.",
    ),
]
Plot = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Write a drawing, as SVG.")
]

_OPTION: Final = DrawnWeights(
    option="--random-layer",
    names="d, h, seed, s, f and scale",
    example="d=16,h=1,seed=0",
    defaults={"d": 16, "h": 1, "seed": 0, "s": 0, "f": 0},
    most={"d": 512, "h": 64, "seed": 2**32, "s": 512, "f": 4096},
    positive=("d", "h"),
    scale="1",
)
_MLP_PRODUCT: Final = 0.5
"""||W_1|| ||W_2|| of a random layer with hidden neurons: its MLP is then one to one."""

_PARTS: Final = ("query", "key", "value", "output")
_MLP: Final = ("w1", "b1", "w2", "b2")


def layer_from(random_layer: str | None, weights: Path | None) -> tuple[LayerWeights, int]:
    """The layer that the options name, and a seed for what is drawn besides."""
    from promptlimits.lab.one_layer.setting import require_usable

    if (random_layer is None) == (weights is None):
        raise UserError(
            "the layer",
            "be given by one of --random-layer and --weights",
            got="both" if weights is not None else "neither",
            remedy="write --random-layer d=16,h=1,seed=0",
        )
    if weights is not None:
        layer = _read_layer(weights)
        require_usable(layer)
        return layer, 0
    numbers, scale, seen = _OPTION.parsed(random_layer or "")
    if "s" not in seen:
        numbers["s"] = max(numbers["d"] // numbers["h"], 1)
    return _random_layer(numbers, scale), numbers["seed"]


def read_pairs(path: Path, dim: int) -> DataSet:
    """Queries and answers from a file of JSON."""
    from promptlimits.lab.one_layer.data_set import data_set_from_json

    try:
        record = strict_json(read_regular_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            "--pairs",
            "be a file of JSON that can be read",
            got=f"{path} ({getattr(error, 'strerror', None) or error})",
            remedy="`promptlimits unmemorizable --out FILE` writes one",
        ) from error
    return data_set_from_json(record, dim=dim, where=str(path))


def write_text(option: str, path: Path, text: str) -> None:
    """Write a file that the user named."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(
            option,
            "be a file that can be written",
            got=f"{path} ({error.strerror or error})",
            remedy="choose another place",
        ) from error


def as_text(record: JsonObject) -> str:
    """A record as JSON for a file or for standard output."""
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)


def _random_layer(numbers: dict[str, int], scale: float) -> LayerWeights:
    from dataclasses import replace

    import numpy as np

    from promptlimits.nets.paper.weights import random_weights

    layer = random_weights(
        dim=numbers["d"],
        heads=numbers["h"],
        head_dim=numbers["s"],
        hidden=numbers["f"],
        layers=1,
        generator=np.random.default_rng(numbers["seed"]),
        masked=False,
        scale=scale,
    ).layers[0]
    if not layer.hidden:
        return layer
    factor = (
        _MLP_PRODUCT / float(np.linalg.norm(layer.w1, 2) * np.linalg.norm(layer.w2, 2))
    ) ** 0.5
    return replace(layer, w1=layer.w1 * factor, w2=layer.w2 * factor)


def _read_layer(path: Path) -> LayerWeights:
    if path.is_dir():
        from promptlimits.nets.paper.files import load_transformer
        from promptlimits.nets.paper.transformer import to_weights

        layers = to_weights(load_transformer(path)).layers
        if len(layers) != 1:
            raise UserError(
                str(path), "hold one layer", got=f"{len(layers)} layers", remedy="save one of them"
            )
        return layers[0]
    return _layer_of(path, _tensors(path))


def _tensors(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        require_regular(path)
        found = load_file(path)
    except (SafetensorError, OSError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            str(path),
            "be a whole safetensors file of float32 or float64",
            got=f"another ({error})",
            remedy="save it with safetensors; pickled weights are never read",
        ) from error
    kinds = sorted({str(values.dtype) for values in found.values()})
    if len(kinds) > 1 or not set(kinds) <= {"float16", "float32", "float64"}:
        raise UserError(
            str(path),
            "hold floats of one kind",
            got=" and ".join(kinds) or "nothing",
            remedy="convert every tensor to float64",
        )
    return {name.removeprefix("layers.0."): values for name, values in found.items()}


def _layer_of(path: Path, tensors: dict[str, np.ndarray[Any, Any]]) -> LayerWeights:
    from promptlimits.nets.paper.weights import HeadWeights, LayerWeights

    heads = len([name for name in tensors if name.startswith("heads.") and "query" in name])
    if heads == 0:
        raise UserError(
            str(path), "hold at least one head", got="no heads.0.query", remedy="see --help"
        )
    wanted = {f"heads.{number}.{part}" for number in range(heads) for part in _PARTS} | set(_MLP)
    if wanted != set(tensors):
        missing, unknown = sorted(wanted - set(tensors)), sorted(set(tensors) - wanted)
        raise UserError(
            str(path),
            "hold exactly the tensors of one layer",
            got=f"missing {', '.join(missing) or 'none'}; unknown {', '.join(unknown) or 'none'}",
            remedy="a layer without MLP has w1 of shape (0, d), b1 (0,), w2 (d, 0) and b2 (d,)",
        )
    return LayerWeights(
        heads=tuple(
            HeadWeights(**{part: tensors[f"heads.{number}.{part}"] for part in _PARTS})
            for number in range(heads)
        ),
        **{name: tensors[name] for name in _MLP},
    )
