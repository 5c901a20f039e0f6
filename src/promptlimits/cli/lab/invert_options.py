"""What `invert` and `lipschitz` are given: a transformer, and for `invert` a prompt and inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from promptlimits.base.errors import UserError
from promptlimits.base.files import read_regular_text
from promptlimits.cli.lab.drawn_weights import DrawnWeights

if TYPE_CHECKING:
    import numpy as np

    from promptlimits.nets.paper.weights import TransformerWeights

EXAMPLE: Final = "d=8,h=2,layers=2,scale=.1,seed=0"
Random = Annotated[
    str | None,
    typer.Option(
        "--random",
        metavar=EXAMPLE,
        help="Gaussian weights; also s (head size, d/h), f (hidden neurons, 2d), masked (0).",
    ),
]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--weights", metavar="FOLDER", help="A folder of config.json and model.safetensors."
    ),
]
_OPTION: Final = DrawnWeights(
    option="--random",
    names="d, h, layers, scale, seed, s, f and masked",
    example=EXAMPLE,
    defaults={"d": 8, "h": 2, "layers": 2, "seed": 0, "s": 0, "f": 0, "masked": 0},
    most={"d": 256, "h": 32, "layers": 64, "seed": 2**32, "s": 256, "f": 1024, "masked": 1},
    positive=("d", "h", "layers"),
    scale="0.1",
)
_INSIDE: Final = 0.95
"""Length of random tokens, as a share of the radius."""


def transformer_from(random: str | None, weights: Path | None) -> TransformerWeights:
    """The transformer that the options name."""
    if (random is None) == (weights is None):
        raise UserError(
            "the transformer",
            "be given by one of --random and --weights",
            got="both" if weights is not None else "neither",
            remedy=f"write --random {EXAMPLE}",
        )
    if weights is not None:
        from promptlimits.nets.paper.files import load_transformer
        from promptlimits.nets.paper.transformer import to_weights

        return to_weights(load_transformer(weights))
    return _random(random or "")


def read_tokens(option: str, path: Path, *, dim: int, axes: int) -> np.ndarray[Any, Any]:
    """Tokens from a file of JSON: a list of tokens, or a list of such lists."""
    import numpy as np

    try:
        record = json.loads(read_regular_text(path))
        found = np.array(record, dtype=np.float64)
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
        raise UserError(option, "hold finite numbers", got="NaN or infinity", remedy="mend it")
    return np.swapaxes(found, -1, -2)


def random_tokens(
    generator: np.random.Generator, shape: tuple[int, ...], radius: float
) -> np.ndarray[Any, Any]:
    """Random tokens as columns, all of 0.95 times the radius.

    Args:
        generator: Source of randomness.
        shape: (..., d, n).
        radius: Of the ball.

    Returns:
        The tokens.
    """
    import numpy as np

    drawn = generator.standard_normal(shape)
    lengths = np.linalg.norm(drawn, axis=-2, keepdims=True)
    scaled: np.ndarray[Any, Any] = drawn / np.maximum(lengths, 1e-300) * (_INSIDE * radius)
    return scaled


def _random(text: str) -> TransformerWeights:
    import numpy as np

    from promptlimits.nets.paper.weights import random_weights

    numbers, scale, seen = _OPTION.parsed(text)
    if "f" not in seen:
        numbers["f"] = 2 * numbers["d"]
    return random_weights(
        dim=numbers["d"],
        heads=numbers["h"],
        head_dim=numbers["s"] or max(numbers["d"] // numbers["h"], 1),
        hidden=numbers["f"],
        layers=numbers["layers"],
        generator=np.random.default_rng(numbers["seed"]),
        masked=bool(numbers["masked"]),
        scale=scale,
    )
