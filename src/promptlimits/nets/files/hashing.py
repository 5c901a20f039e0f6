"""SHA-256 of files, of a checkpoint's weights, and of all that decides what it answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from promptlimits.base.errors import UserError
from promptlimits.base.files import open_regular
from promptlimits.nets.files.folder import read_object

_CHUNK_BYTES = 1 << 20
_INDEX = "model.safetensors.index.json"
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
# Where a model lay and what wrote it: they change nothing in what it answers.
_INERT_KEYS = frozenset(
    {"_name_or_path", "_model_name_or_path", "name_or_path", "transformers_version"}
)
_STOP_KEYS = frozenset({"eos_token_id"})
_TOKENIZER_KEYS = frozenset(
    {"add_bos_token", "add_eos_token", "add_prefix_space", "bos_token", "eos_token"}
)
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt")


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


def weights_hash(files: Sequence[Path]) -> str:
    """Return the SHA-256 over weight files in the order of their names.

    It is what `cat model*.safetensors | sha256sum` prints.
    """
    return sha256_of(*sorted(files))


def model_hash(files: Sequence[Path]) -> str:
    """Return the SHA-256 over everything in a checkpoint that decides what it answers.

    The weights alone do not: the same file computes something else under another activation
    function, reads other tokens with another tokenizer, and stops elsewhere with another end
    marker.
    """
    directory = files[0].parent
    config = _object(directory / "config.json")
    generation = _object(directory / "generation_config.json")
    tokenizer = _object(directory / "tokenizer_config.json")
    parts = {
        "weights": weights_hash(files),
        "config": {key: config[key] for key in config if key not in _INERT_KEYS},
        "stops": {key: generation[key] for key in generation if key in _STOP_KEYS},
        "tokenizer": {key: tokenizer[key] for key in tokenizer if key in _TOKENIZER_KEYS},
        "vocabulary": {
            name: sha256_of(directory / name)
            for name in _TOKENIZER_FILES
            if (directory / name).is_file()
        },
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _object(path: Path) -> dict[str, object]:
    """The JSON object of a file; empty where there is none, and where it is not readable.

    Loading has already refused a checkpoint that needs it and does not have it.
    """
    try:
        return read_object(path)
    except (OSError, ValueError):
        return {}
