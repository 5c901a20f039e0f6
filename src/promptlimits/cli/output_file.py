"""What a command gives: a record that it prints, and a file that it writes at its end.

A file is tried before the work, and written whole or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import typer

from promptlimits.base.errors import UserError
from promptlimits.base.writing import replace_file


def as_text(record: object) -> str:
    """A record as JSON, for a file or for standard output."""
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)


def show(record: object, lines: Iterable[str], *, as_json: bool) -> None:
    """Print a result: its record, or the lines that say it."""
    for line in [as_text(record)] if as_json else lines:
        typer.echo(line)


def require_writable(option: str, path: Path | None) -> None:
    """Refuse an output file that cannot be written, before minutes of work.

    What was there before stays as it is; a file that was made only to try is taken away.
    """
    if path is None:
        return
    target = _behind_links(path)
    try:
        if target.is_dir():
            raise OSError("it is a directory")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            with target.open("x"):
                pass
            target.unlink()
        elif not os.access(target, os.W_OK):  # opening a pipe would wait for its reader
            raise OSError("permission denied")
    except OSError as error:
        raise _refused(option, path, error) from error


def write_whole(option: str, path: Path, text: str) -> None:
    """Write a file so that a reader sees all of it or what was there before.

    Devices and pipes are written as they are.
    """
    target = _behind_links(path)
    # A file whose folder may not be changed, such as one mounted alone, has no draft beside it.
    if not target.exists() or (target.is_file() and os.access(target.parent, os.W_OK)):
        replace_file(target, text.encode("utf-8", errors="backslashreplace"))
        return
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _refused(option, path, error) from error


def _behind_links(path: Path) -> Path:
    """What a link stands for, so that the link itself is kept."""
    return Path(os.path.realpath(path))


def _refused(option: str, path: Path, error: OSError) -> UserError:
    return UserError(
        option,
        "be a file that can be written",
        got=f"{path} ({error.strerror or error})",
        remedy="choose another file",
    )
