"""The files of a witness folder: their names, how they are read, and what is said of a bad one.

Two of them PEFT reads: the prompt, and nothing beside it. PEFT loads whatever an adapter file holds
into the model, by name and without complaint, even for prompt tuning and prefix tuning: a tensor
called `base_model.transformer.wte.weight` would replace the model's own embeddings, and the
"prompt" would answer whatever its maker likes. So the file holds one tensor, byte for byte the one
whose hash was recorded, and the configuration says what is needed to load it and no more.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from promptlimits.base.errors import UserError
from promptlimits.base.files import JsonObject, read_regular, read_regular_text, recover, standing
from promptlimits.nets.prefix_shape import PrefixShape

WITNESS_FILE: Final = "witness.json"
ADAPTER_FILE: Final = "adapter_model.safetensors"
CONFIG_FILE: Final = "adapter_config.json"
REPLAY_FILE: Final = "replay.py"
WITNESS_FILES: Final = (ADAPTER_FILE, CONFIG_FILE, WITNESS_FILE, REPLAY_FILE)

TENSOR: Final = "prompt_embeddings"
_MOST_BYTES: Final = 2_000_000_000
_REMEDY: Final = "make the witness again with promptlimits bracket"


def json_bytes(document: JsonObject) -> bytes:
    """A JSON object as the bytes of a file."""
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    # A file's name may hold a lone surrogate: no UTF-8 has it, strict readers refuse its escape.
    return (text + "\n").encode("utf-8", errors="replace")


def read_object(directory: Path, name: str) -> dict[str, Any]:
    """Read a JSON object from a witness folder."""
    place = standing(directory)
    if not place.is_dir():
        raise UserError(
            str(directory),
            "be a witness folder",
            got="nothing there" if not directory.exists() else "a file",
            remedy="give the folder that holds witness.json",
        )
    try:
        document = json.loads(read_regular_text(place / name))
    except FileNotFoundError:
        raise UserError(
            str(directory),
            f"hold {name}",
            got="a folder without it",
            remedy="give the folder that holds witness.json",
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise broken(directory, name, getattr(error, "strerror", None) or str(error)) from error
    if not isinstance(document, dict):
        raise broken(directory, name, f"{type(document).__name__} where an object should be")
    return document


def broken(directory: Path, name: str, detail: str) -> UserError:
    """The error for a file that nothing can be made of."""
    return UserError(
        str(directory / name),
        "be as promptlimits wrote it",
        got=f"one that cannot be read ({detail})",
        remedy=_REMEDY,
    )


def altered(directory: Path, name: str, what: str) -> UserError:
    """The error for a file that is whole, but not the one whose hash was recorded."""
    return UserError(
        str(directory / name),
        f"hold the {what} that the hash in {WITNESS_FILE} was taken of",
        got=f"altered {what}",
        remedy="restore the folder from a copy, or make the witness again",
    )


def require_replaceable(directory: Path) -> None:
    """Only an older witness may be replaced: never a folder with somebody's other files."""
    recover(directory, WITNESS_FILES)
    if not directory.exists():
        return
    if directory.is_dir() and (
        (directory / WITNESS_FILE).is_file() or not any(directory.iterdir())
    ):
        return
    raise UserError(
        str(directory),
        "be a new folder or an older witness",
        got="one that holds something else",
        remedy="choose another output folder",
    )


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
    """Read the prompt (P, W) if PEFT would load it, all of it, finite, and nothing but it."""
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
