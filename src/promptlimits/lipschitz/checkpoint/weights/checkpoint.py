"""From a model's directory to its blocks, whatever its family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from promptlimits.base.errors import UserError
from promptlimits.lipschitz.checkpoint.block import Checkpoint
from promptlimits.lipschitz.checkpoint.weights.config import Config, read_settings
from promptlimits.lipschitz.checkpoint.weights.families import bert, gemma3, gpt2, gpt_neox, llama
from promptlimits.lipschitz.checkpoint.weights.key_table import KeyTable, NamedWeights
from promptlimits.nets.files.safetensors_file import WeightReader

_Describe = Callable[[Config, NamedWeights], Checkpoint]

_FAMILIES: Final[dict[str, tuple[KeyTable, _Describe, str]]] = {
    "bert": (bert.TABLE, bert.describe, "num_hidden_layers"),
    "gemma3_text": (gemma3.TABLE, gemma3.describe, "num_hidden_layers"),
    "gpt2": (gpt2.TABLE, gpt2.describe, "n_layer"),
    "gpt_neox": (gpt_neox.TABLE, gpt_neox.describe, "num_hidden_layers"),
    "llama": (llama.TABLE, llama.describe, "num_hidden_layers"),
    "qwen2": (llama.TABLE, llama.describe, "num_hidden_layers"),
}

FAMILIES: Final = tuple(_FAMILIES)
"""Values of model_type whose blocks are known."""


def open_checkpoint(directory: Path, *, name: str) -> Checkpoint:
    """Open a checkpoint; its blocks are read when they are asked for."""
    config = read_settings(directory, name=name)
    if config.family not in _FAMILIES:
        raise UserError(
            name,
            f"be of a family whose blocks are known ({', '.join(FAMILIES)})",
            got=f"model_type {config.get('model_type')!r}",
            remedy="use a model of one of these families",
        )
    table, describe, layers = _FAMILIES[config.family]
    reader = WeightReader(directory, name=name)
    weights = NamedWeights(reader, table, layers=config.whole(layers))
    weights.require_dropped_finite()
    return describe(config, weights)
