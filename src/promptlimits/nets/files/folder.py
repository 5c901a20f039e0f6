"""What a model's folder must be before anything in it is opened by name; its weights and its hash.

Libraries open what they find under the names they know. So every entry is looked at first: a pipe
would hang them, a device or an enormous settings file would fill the memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from promptlimits.base.errors import UserError
from promptlimits.base.files import (
    MOST_JSON_BYTES,
    open_regular,
    read_regular_text,
    require_regular,
)

_SETTINGS: Final = (".json", ".jinja", ".txt", ".model")
"""What libraries read whole, but for weights."""
_TEMPLATES: Final = "additional_chat_templates"
_ADAPTER: Final = "adapter_config.json"
_INDEX: Final = "model.safetensors.index.json"
_PICKLES: Final = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")


def require_model_folder(directory: Path, *, name: str) -> None:
    """Check that a folder holds a model of its own, in plain files of sensible sizes."""
    try:
        for path in _entries(directory):
            limit = MOST_JSON_BYTES if path.suffix in _SETTINGS else None
            require_regular(path, at_most=limit)
    except OSError as error:
        raise UserError(
            name,
            "hold plain files that can be read",
            got=f"{Path(str(error.filename)).name}: {error.strerror or error}",
            remedy="download it again, or take that out",
        ) from error
    has_config = (directory / "config.json").is_file()
    if (directory / _ADAPTER).is_file():
        raise _adapter(directory, name, beside_a_model=has_config)
    if not has_config:
        raise _no_config(directory, name)


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        content = json.loads(read_regular_text(path))
    except RecursionError as error:
        raise ValueError("brackets too deep") from error
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    return content


def _entries(directory: Path) -> Iterator[Path]:
    for folder in (directory, directory / _TEMPLATES):
        if folder.is_dir():
            # A link that leads nowhere is a missing file: whoever needs it says so.
            yield from (path for path in folder.iterdir() if path.exists() and not path.is_dir())


def _adapter(directory: Path, name: str, *, beside_a_model: bool) -> UserError:
    """The error for a folder with a PEFT adapter."""
    if beside_a_model:
        return UserError(
            name,
            "be a plain checkpoint",
            got="one with a PEFT adapter beside it, which stock tools would load as well",
            remedy="move adapter_config.json elsewhere, or merge the adapter and save the result",
        )
    try:
        found = read_object(directory / _ADAPTER)
    except (OSError, ValueError):
        found = {}
    kind, base = (found.get(key) for key in ("peft_type", "base_model_name_or_path"))
    got = f"a PEFT adapter ({kind})" if isinstance(kind, str) else "a PEFT adapter"
    got += f" of {base}" if isinstance(base, str) and base else ""
    if (directory / "witness.json").is_file():
        remedy = "give the model it was trained on; `promptlimits verify` decodes the witness"
    else:
        remedy = "give the model it was trained on; `promptlimits score` decodes the adapter"
    return UserError(name, "be a whole model", got=got, remedy=remedy)


def _no_config(directory: Path, name: str) -> UserError:
    """The error for a folder without config.json."""
    files = sorted(path.name for path in directory.glob("*.gguf"))
    if files:
        return UserError(
            name,
            "hold config.json",
            got=f"a directory with {files[0]} in it",
            remedy=f"give the file itself: {directory / files[0]}",
        )
    return UserError(
        name,
        "hold config.json",
        got="a directory without it",
        remedy="point at the directory that save_pretrained wrote",
    )


def weight_files(directory: Path) -> tuple[Path, ...]:
    """Return the safetensors files that stock tools load from `directory`, sorted by name."""
    single = directory / "model.safetensors"
    if single.is_file():
        return (single,)
    index = directory / _INDEX
    if index.is_file():
        return _sharded(index)
    raise _no_weights(directory)


def _no_weights(directory: Path) -> UserError:
    """The error for a directory whose weights stock tools would not load, or only from pickle."""
    name = f"model {directory.name}"
    others = sorted(path.name for path in directory.glob("*.safetensors"))
    if others:
        return UserError(
            name,
            "hold model.safetensors, or an index of its shards",
            got=f"{others[0]} and no {_INDEX}",
            remedy="download the index too, or rename a file that holds all weights",
        )
    if any(next(directory.glob(pattern), None) for pattern in _PICKLES):
        return UserError(
            name,
            "hold its weights as safetensors",
            got="pickle files only, which run code when they are opened",
            remedy="convert them where you trust them: load, then save_pretrained",
        )
    return UserError(
        name,
        "hold model.safetensors",
        got="a directory without weights",
        remedy="download the weights too, or point at the directory that save_pretrained wrote",
    )


def _sharded(index: Path) -> tuple[Path, ...]:
    name = f"model {index.parent.name}"
    try:
        weight_map = read_object(index)["weight_map"]
        shards = sorted(set(weight_map.values()))
        # A bare file name each: an index must not lead out of its directory.
        files = tuple(index.parent / Path(str(shard)).name for shard in shards)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            name,
            "have a readable index of its shards",
            got=f"a broken {index.name}",
            remedy="download it again",
        ) from None
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise UserError(
            name,
            "hold every shard that its index names",
            got=f"{len(missing)} of {len(files)} missing ({', '.join(missing[:2])})",
            remedy="download the rest",
        )
    return files


PLACE_KEYS: Final = frozenset({"_name_or_path", "_model_name_or_path", "name_or_path"})
"""Settings that say where a file lay on the machine that wrote it."""
TOKENIZER_FILES: Final = (
    *("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("vocab.json", "merges.txt", "vocab.txt", "tekken.json"),
)
_CHUNK_BYTES: Final = 1 << 20
_STOP_KEYS: Final = frozenset({"eos_token_id"})
_TOKENIZER_KEYS: Final = frozenset(
    {"add_bos_token", "add_eos_token", "add_prefix_space", "bos_token", "eos_token"}
)


def sha256_of(*files: Path) -> str:
    """Return the SHA-256 of the files' bytes joined end to end, in hexadecimal.

    540 MB take 0.4 s on a processor with SHA instructions and 1.6 s without, less than
    reading them into a model, and it runs beside that: so nothing is cached, and no stale
    hash can vouch for changed weights.
    """
    digest = hashlib.sha256()
    for path in files:
        with open_regular(path) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def weights_hash(files: Sequence[Path]) -> str:
    """Return the SHA-256 over weight files in the order of their names.

    It is what `cat model*.safetensors | sha256sum` prints.
    """
    return sha256_of(*sorted(files))


def model_hash(files: Sequence[Path]) -> str:
    """Return the SHA-256 over everything in a checkpoint that decides what it answers.

    The weights alone do not: the same file computes something else under another activation
    function, reads other tokens with another tokenizer, and stops elsewhere with another end
    marker. Where a model lay and what wrote it change nothing.
    """
    directory = files[0].parent
    config = _object(directory / "config.json")
    generation = _object(directory / "generation_config.json")
    tokenizer = _object(directory / "tokenizer_config.json")
    inert = PLACE_KEYS | {"transformers_version"}
    parts = {
        "weights": weights_hash(files),
        "config": {key: config[key] for key in config if key not in inert},
        "stops": {key: generation[key] for key in generation if key in _STOP_KEYS},
        "tokenizer": {key: tokenizer[key] for key in tokenizer if key in _TOKENIZER_KEYS},
        "vocabulary": {
            name: sha256_of(directory / name)
            for name in TOKENIZER_FILES
            if (directory / name).is_file()
        },
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _object(path: Path) -> dict[str, Any]:
    """The JSON object of a file; empty where there is none, and where it is not readable.

    Loading has already refused a checkpoint that needs it and does not have it.
    """
    try:
        return read_object(path)
    except (OSError, ValueError):
        return {}
