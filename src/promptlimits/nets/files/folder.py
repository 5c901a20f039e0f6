"""What a model's folder must be before anything in it is opened by name, and its weight files.

Libraries open what they find under the names they know. So every entry is looked at first: a pipe
would hang them, a device or an enormous settings file would fill the memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from promptlimits.base.errors import UserError
from promptlimits.base.files import MOST_JSON_BYTES, read_regular_text, require_regular

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
