"""A file that a command writes at its end: tried before the work, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from promptlimits.base.errors import UserError


def require_writable(option: str, path: Path) -> None:
    """Refuse an output file that cannot be written, before minutes of work.

    What was there before stays as it is; a file that was made only to try is taken away.
    """
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
    try:
        # A file whose folder may not be changed, such as one mounted alone, has no draft beside it.
        if target.exists() and not (target.is_file() and os.access(target.parent, os.W_OK)):
            target.write_text(text, encoding="utf-8")
        else:
            _replace(target, text)
    except OSError as error:
        raise _refused(option, path, error) from error


def _replace(target: Path, text: str) -> None:
    draft = target.with_name(f".promptlimits-{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        if target.exists():
            draft.chmod(target.stat().st_mode & 0o777)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


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
