"""Read a file of pairs, safely, and name it and its lines in messages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from promptlimits.base.errors import UserError
from promptlimits.base.files import UnfitFile, cannot_read, read_regular

MOST_BYTES: Final = 256_000_000
"""More than any list or text that a prompt is trained for needs."""

_SHOWN_CHARACTERS: Final = 60

_FOLDERS: Final = (
    # A file in it, what the folder is, what to do with it.
    ("witness.json", "a witness, which `promptlimits verify` checks", "name a file of pairs"),
    (
        "adapter_config.json",
        "the folder of a PEFT adapter",
        "name a file of pairs here: an adapter is what `promptlimits score` takes",
    ),
    ("config.json", "the folder of a model", "give it to --model, and a file of pairs here"),
    (
        "dataset_info.json",
        "a data set as `datasets` saves it to disk",
        "write it to a file with its to_json('pairs.jsonl'), and name that",
    ),
    (
        "dataset_dict.json",
        "data sets as `datasets` saves them to disk",
        "write one of them to a file with its to_json('pairs.jsonl'), and name that",
    ),
    ("bracket.json", "the output of `promptlimits bracket`", "name a file of pairs"),
)


def shown(text: str) -> str:
    """A text for an error message: quoted, on one line, not too long."""
    clipped = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    return repr(clipped)


def listed(names: Iterable[str], *, most: int = 12) -> str:
    """Names for a message: quoted, separated by commas, and not too many."""
    every = [shown(name) for name in names]
    more = [f"and {len(every) - most} more"] if len(every) > most else []
    return ", ".join(every[:most] + more) or "none"


def file_name(path: Path) -> str:
    """A path for an error message, on one line."""
    return str(path) if str(path).isprintable() else shown(str(path))


def read_text(
    path: Path, *, holds: str = "pairs", remedy: str = "put one pair on each line"
) -> str:
    """The text of a regular UTF-8 file, without a byte order mark."""
    data = read_bytes(path)
    text = _decode(path, data)
    if not text.strip():
        what = "white space alone" if data else "an empty file"
        raise UserError(file_name(path), f"hold {holds}", got=what, remedy=remedy)
    return text


def read_bytes(path: Path) -> bytes:
    """What a regular file holds."""
    name = file_name(path)
    try:
        if path.is_dir():
            raise _folder(path)
        return read_regular(path, at_most=MOST_BYTES)
    except UnfitFile as error:
        raise UserError(
            name,
            f"be a regular file of at most {MOST_BYTES:,} bytes",
            got=error.strerror or str(error),
            remedy="save what is meant to a file of its own",
        ) from error
    except OSError as error:
        raise cannot_read(name, error) from error
    except ValueError as error:  # a NUL in the name
        raise UserError(name, "be a file name", got=str(error), remedy="check it") from error


def _folder(path: Path) -> UserError:
    """Say what a folder is, and what to name in its place."""
    for inside, what, remedy in _FOLDERS:
        if (path / inside).is_file():
            return UserError(
                file_name(path), "be a file of pairs", got=f"a directory, {what}", remedy=remedy
            )
    return UserError(file_name(path), "be a file", got="a directory", remedy="name a file in it")


def _decode(path: Path, data: bytes) -> str:
    if (position := data.find(b"\0")) >= 0:
        raise UserError(
            place(path, _line_at(data, position)),
            "be text",
            got="a NUL byte",
            remedy="save the file as plain text in UTF-8 (UTF-16 has such bytes)",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec counts from behind a byte order mark.
        position = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        raise UserError(
            place(path, _line_at(data, position)),
            "be UTF-8 text",
            got=f"the byte 0x{data[position]:02X}",
            remedy="save the file as UTF-8",
        ) from error


def _line_at(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1


def place(path: Path, at: int | str) -> str:
    """A place for messages and records."""
    name = path.name if path.name.isprintable() else shown(path.name)
    return f"{name} line {at}" if isinstance(at, int) else f"{name} {at}"
