"""Options of a layer or a transformer, drawn or from a file, and of tokens from files of JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import typer

from promptlimits.base.errors import UserError
from promptlimits.base.files import cannot_read, read_regular_text, require_regular, strict_json
from promptlimits.capacity.tables.files import shown
from promptlimits.cli.options import one_of, read_json

if TYPE_CHECKING:
    import numpy as np

    from promptlimits.lab.one_layer.data_set import DataSet
    from promptlimits.nets.paper.weights import LayerWeights, TransformerWeights

Ranges: TypeAlias = Mapping[str, tuple[float | None, float, float]]
"""Of each name: its default, where None is derived from others, its least and its largest value."""

_LAYER: Final = "d=16,h=1,seed=0"
_LAYER_RANGES: Final[Ranges] = {
    "d": (16, 1, 512),
    "h": (1, 1, 64),
    "seed": (0, 0, 2**32),
    "s": (None, 1, 512),
    "f": (0, 0, 4096),
    "scale": (1.0, 1e-6, 1e6),
}
_TRANSFORMER: Final = "d=8,h=2,layers=2,scale=.1,seed=0"
_TRANSFORMER_RANGES: Final[Ranges] = {
    "d": (8, 1, 256),
    "h": (2, 1, 32),
    "layers": (2, 1, 64),
    "scale": (0.1, 1e-6, 1e6),
    "seed": (0, 0, 2**32),
    "s": (None, 1, 256),
    "f": (None, 0, 1024),
    "masked": (0, 0, 1),
}
_MLP_PRODUCT: Final = 0.5
"""||W_1|| ||W_2|| of a random layer with hidden neurons: its MLP is then one to one."""

_PARTS: Final = ("query", "key", "value", "output")
_MLP: Final = ("w1", "b1", "w2", "b2")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer, without a causal mask."""

    random_layer: Annotated[
        str | None,
        typer.Option(
            "--random-layer",
            metavar=_LAYER,
            help="Gaussian weights; also s (head size, d/h), f (hidden neurons, 0), scale (1).",
        ),
    ] = None
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            metavar="PATH",
            help="A folder of config.json and model.safetensors with one layer, or a .safetensors "
            "file with heads.0.query, .key, .value, .output, .., and w1, b1, w2, b2.",
        ),
    ] = None

    def read(self) -> LayerWeights:
        """The layer that the options name."""
        from promptlimits.lab.one_layer.setting import require_usable

        one_of(
            "the layer",
            f"--random-layer {_LAYER}",
            random_layer=self.random_layer,
            weights=self.weights,
        )
        if self.weights is not None:
            layer = _read_layer(self.weights)
            require_usable(layer)
            return layer
        numbers = _numbers("--random-layer", _LAYER, _LAYER_RANGES, self.random_layer or "")
        return _with_small_mlp(_random(numbers | {"layers": 1, "masked": 0}).layers[0])


@dataclass(frozen=True, kw_only=True)
class Transformer:
    """A transformer of the papers' kind."""

    random: Annotated[
        str | None,
        typer.Option(
            "--random",
            metavar=_TRANSFORMER,
            help="Gaussian weights; also s (head size, d/h), f (hidden neurons, 2d), masked (0).",
        ),
    ] = None
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights", metavar="FOLDER", help="A folder of config.json and model.safetensors."
        ),
    ] = None

    def read(self) -> TransformerWeights:
        """The transformer that the options name."""
        one_of(
            "the transformer", f"--random {_TRANSFORMER}", random=self.random, weights=self.weights
        )
        if self.weights is not None:
            return _saved(self.weights)
        return _random(_numbers("--random", _TRANSFORMER, _TRANSFORMER_RANGES, self.random or ""))


def read_pairs(path: Path, dim: int) -> DataSet:
    """Queries and answers from a file of JSON."""
    from promptlimits.lab.one_layer.data_set import data_set_from_json

    record = read_json(
        path,
        name="--pairs",
        rule="be a file of JSON that can be read",
        remedy="`promptlimits unmemorizable --out FILE` writes one",
    )
    return data_set_from_json(record, dim=dim, where=str(path))


def read_tokens(option: str, path: Path, *, dim: int, axes: int) -> np.ndarray[Any, Any]:
    """Tokens from a file of JSON: a list of tokens, or a list of such lists."""
    import numpy as np

    try:
        found = np.array(strict_json(read_regular_text(path)), dtype=np.float64)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(
            option,
            "be a file of JSON that holds lists of numbers, all of one length",
            got=f"{path} ({getattr(error, 'strerror', None) or error})",
            remedy="write [[0.1, 0.2], [0.3, 0.4]] for two tokens of width 2",
        ) from error
    if found.ndim != axes or found.shape[-1] != dim or 0 in found.shape:
        raise UserError(
            option,
            f"hold {'tokens' if axes == 2 else 'lists of tokens'} of {dim} numbers",
            got=f"{path} of shape {found.shape}",
            remedy="write one list for each token",
        )
    if not np.isfinite(found).all():
        raise UserError(option, "hold finite numbers", got="infinity", remedy="mend it")
    return np.swapaxes(found, -1, -2)


def _numbers(option: str, example: str, ranges: Ranges, text: str) -> dict[str, Any]:
    """The numbers of "d=16,h=1,seed=0", and the defaults of those that are left out."""
    parts = [[piece.strip() for piece in part.partition("=")[::2]] for part in text.split(",")]
    names = [name for name, _ in parts]
    numbers: dict[str, Any] = {name: default for name, (default, _, _) in ranges.items()}
    for name, typed in parts:
        number = _number(typed, whole=name != "scale")
        if name not in ranges or names.count(name) > 1 or number is None:
            raise UserError(
                option,
                f"be NAME=NUMBER, separated by commas, of {', '.join(ranges)}",
                got=shown(text),
                remedy=f"write {example}",
            )
        _, least, most = ranges[name]
        if not least <= number <= most:
            raise UserError(
                f"{name} of {option}",
                f"be from {_short(least)} to {_short(most)}",
                got=typed,
                remedy=f"write {example}",
            )
        numbers[name] = number
    return numbers


def _number(text: str, *, whole: bool) -> float | None:
    if whole:
        return int(text) if text.isascii() and text.isdigit() and len(text) < 11 else None
    try:
        value = float(text)
    except ValueError:
        value = math.nan  # which is in no range
    return value


def _short(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def _random(numbers: Mapping[str, Any]) -> TransformerWeights:
    import numpy as np

    from promptlimits.nets.paper.weights import random_weights

    hidden = numbers["f"]
    return random_weights(
        dim=numbers["d"],
        heads=numbers["h"],
        head_dim=numbers["s"] or max(numbers["d"] // numbers["h"], 1),
        hidden=2 * numbers["d"] if hidden is None else hidden,
        layers=numbers["layers"],
        generator=np.random.default_rng(numbers["seed"]),
        masked=bool(numbers["masked"]),
        scale=numbers["scale"],
    )


def _with_small_mlp(layer: LayerWeights) -> LayerWeights:
    import numpy as np

    if not layer.hidden:
        return layer
    factor = (
        _MLP_PRODUCT / float(np.linalg.norm(layer.w1, 2) * np.linalg.norm(layer.w2, 2))
    ) ** 0.5
    return replace(layer, w1=layer.w1 * factor, w2=layer.w2 * factor)


def _saved(folder: Path) -> TransformerWeights:
    from promptlimits.nets.paper.files import load_transformer
    from promptlimits.nets.paper.transformer import to_weights

    return to_weights(load_transformer(folder))


def _read_layer(path: Path) -> LayerWeights:
    if not path.is_dir():
        return _layer_of(path, _tensors(path))
    layers = _saved(path).layers
    if len(layers) != 1:
        raise UserError(
            str(path), "hold one layer", got=f"{len(layers)} layers", remedy="save one of them"
        )
    return layers[0]


def _tensors(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        require_regular(path)
        found = load_file(path)
    except OSError as error:
        raise cannot_read(str(path), error) from error
    except (SafetensorError, KeyError, TypeError, AttributeError) as error:
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
