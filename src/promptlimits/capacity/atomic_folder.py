"""Replacing a small folder as a whole, so that a kill leaves the old one or the new one.

No system call that Python has swaps two folders. The new one is written beside its place as a
draft; then the old one steps aside and the draft is renamed into its place. A kill between
those two renames leaves the place empty and the old folder beside it, whole: the next reader
or writer puts it back with `recover`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from promptlimits.errors import RunFailed


def write_folder(directory: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder hold exactly these files, or leave it as it was.

    Args:
        directory: The folder; its parents are made if need be.
        files: Content by file name.

    Raises:
        RunFailed: The operating system refused, such as for a full disk.
    """
    draft = _beside(directory, "draft")
    with _said_for_people(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        recover(directory)
        try:
            shutil.rmtree(draft, ignore_errors=True)  # left by a kill
            draft.mkdir()
            for name, content in files.items():
                _write_durably(draft / name, content)
            _sync_folder(draft)
            if directory.exists():
                directory.rename(_beside(directory, "old"))
            draft.rename(directory)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            recover(directory)
            raise
        _sync_folder(directory.parent)
        shutil.rmtree(_beside(directory, "old"), ignore_errors=True)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole: a reader sees the old content or the new one.

    Args:
        path: The file.
        content: What it shall hold.

    Raises:
        RunFailed: The operating system refused, such as for a full disk.
    """
    draft = path.with_name(f".{path.name}.draft")
    with _said_for_people(path):
        try:
            _write_durably(draft, content)
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def recover(directory: Path) -> None:
    """Finish, or undo, a replacement that a kill cut short; do nothing otherwise.

    Args:
        directory: The folder that was being replaced.
    """
    old = _beside(directory, "old")
    if not old.is_dir():
        return
    if directory.exists():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.rename(directory)


def _beside(directory: Path, role: str) -> Path:
    # "." has no name of its own, and ".." the wrong one.
    place = Path(os.path.abspath(directory))  # noqa: PTH100 - resolve() would follow a link
    return place.parent / f".{place.name}.{role}"


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(directory: Path) -> None:
    """Make the names in a folder durable, where the system can open a folder for that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _said_for_people(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunFailed(
            f"{path} could not be written ({error.strerror or error})",
            remedy="free some space or choose another folder, and run the same command again; "
            "what was there before is unchanged",
        ) from error
