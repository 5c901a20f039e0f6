"""The two files of a witness that PEFT reads: the prompt, and nothing beside it.

PEFT loads whatever an adapter file holds into the model, by name and without complaint, even
for prompt tuning and prefix tuning: a tensor called `base_model.transformer.wte.weight` would
replace the model's own embeddings, and the "prompt" would answer whatever its maker likes. So
the file holds one tensor, byte for byte the one whose hash was recorded, and the configuration
says what is needed to load it and no more.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from promptlimits.base.errors import UserError
from promptlimits.base.files import read_regular
from promptlimits.base.typing import JsonObject
from promptlimits.base.writing import standing
from promptlimits.capacity.witness.files import (
    ADAPTER_FILE,
    CONFIG_FILE,
    altered,
    broken,
    read_object,
)
from promptlimits.nets.prefix_shape import PrefixShape

TENSOR: Final = "prompt_embeddings"
_MOST_BYTES: Final = 2_000_000_000
_REMEDY: Final = "make the witness again with promptlimits bracket"


def adapter_bytes(prompt: Tensor) -> bytes:
    """The adapter file of a prompt: (P, W) float32 on the CPU, contiguous."""
    return save({TENSOR: prompt}, metadata={"format": "pt"})


def adapter_config(
    *, prompt_tokens: int, dim: int, reference: str, prefix_shape: PrefixShape | None = None
) -> JsonObject:
    """The least that has stock PEFT put a prompt in front of a causal model."""
    common: JsonObject = {
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": prompt_tokens,
        "num_transformer_submodules": 1,
        "inference_mode": True,
        "base_model_name_or_path": reference,
    }
    if prefix_shape is None:
        return {
            "peft_type": "PROMPT_TUNING",
            "token_dim": dim,
            "prompt_tuning_init": "RANDOM",
            # PEFT uses neither here, but asks for both where a family calls them otherwise.
            "num_layers": 1,
            "num_attention_heads": 1,
            **common,
        }
    return {
        "peft_type": "PREFIX_TUNING",
        "num_layers": prefix_shape.layers,
        # Heads and width of the keys, which with grouped heads are fewer than the queries'.
        "num_attention_heads": prefix_shape.kv_heads,
        "token_dim": prefix_shape.token_dim,
        **common,
    }


def read_adapter(
    directory: Path,
    *,
    shape: tuple[int, int],
    config: JsonObject,
    prompt_hash: str,
    adapter_hash: str,
) -> Tensor:
    """Read the prompt if PEFT would load it, all of it, and nothing but it.

    Args:
        directory: The witness folder.
        shape: (P, W) of the prompt.
        config: What adapter_config.json must say.
        prompt_hash: Recorded hash of the prompt's numbers.
        adapter_hash: Recorded hash of the whole adapter file.

    Returns:
        (P, W) float32, finite.

    Raises:
        UserError: A file is missing, broken or altered, or holds more than it should.
    """
    try:
        content = read_regular(standing(directory) / ADAPTER_FILE, at_most=_most_bytes(shape))
        tensors = load(content)
    except (SafetensorError, OSError, ValueError) as error:
        raise broken(
            directory, ADAPTER_FILE, getattr(error, "strerror", None) or str(error)
        ) from error
    prompt = tensors.get(TENSOR)
    if (
        prompt is None
        or len(tensors) != 1
        or (*prompt.shape,) != shape
        or prompt.dtype != torch.float32
    ):
        raise UserError(
            str(directory / ADAPTER_FILE),
            f"hold {TENSOR} of shape {shape} in float32 and no other tensor",
            got=_in_words(tensors),
            remedy=_REMEDY,
        )
    if not bool(torch.isfinite(prompt).all()) or prompt_sha256(prompt) != prompt_hash:
        raise altered(directory, ADAPTER_FILE, "prompt")
    if hashlib.sha256(content).hexdigest() != adapter_hash:
        raise altered(directory, ADAPTER_FILE, "file")
    _require_config(directory, config)
    return prompt


def prompt_sha256(prompt: Tensor) -> str:
    """SHA-256 of a prompt's float32 numbers, little-endian, row by row."""
    return hashlib.sha256(prompt.numpy().astype("<f4").tobytes()).hexdigest()


def _most_bytes(shape: tuple[int, int]) -> int:
    """More than the file of such a prompt has: its numbers, and a header of a few hundred bytes."""
    rows, width = shape
    return min(4 * max(rows, 0) * max(width, 0), _MOST_BYTES) + 1_000_000


def _in_words(tensors: dict[str, Tensor]) -> str:
    """The first tensors of a file; one with smuggled weights has hundreds."""
    several = [f"{name} {tuple(tensor.shape)} {tensor.dtype}" for name, tensor in tensors.items()]
    more = f" and {len(several) - 4} more" if len(several) > 4 else ""
    return (", ".join(several[:4]) or "no tensor") + more


def _require_config(directory: Path, expected: JsonObject) -> None:
    """Refuse a configuration with which PEFT would do anything else than load the tensor."""
    found = read_object(directory, CONFIG_FILE)
    # As text, where true is not 1.
    if _text(found) != _text(expected):
        different = {
            name: found[name]
            for name in found
            if name not in expected or _text(found[name]) != _text(expected[name])
        }
        missing = [name for name in expected if name not in found]
        raise UserError(
            str(directory / CONFIG_FILE),
            f"say {_text(expected)} and no more",
            got=f"{_text(different)[:200]} instead" if different else f"no {', '.join(missing)}",
            remedy=_REMEDY,
        )


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
