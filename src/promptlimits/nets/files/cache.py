"""The user's cache directory, and directories in it that are built once and whole.

A directory that is there is finished: it is built under another name, beside a lock, and
renamed. What a killed process leaves behind is never taken for a model, and the next build
clears it away.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from promptlimits.base.errors import UserError

CACHE_VARIABLE: Final = "PROMPTLIMITS_CACHE"
"""Environment variable that moves the cache."""

Progress: TypeAlias = Callable[[str], None]
"""Takes one line on what is being done."""


def no_progress(_line: str) -> None:
    """Say nothing."""


def cache_directory() -> Path:
    """Return the directory of the cache; it need not exist."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if not chosen:
        return user_cache_path("promptlimits")
    try:
        return Path(chosen).expanduser()
    except RuntimeError as error:
        raise UserError(
            CACHE_VARIABLE, "name a directory", got=chosen, remedy="write its path in full"
        ) from error


def built(name: str) -> Path | None:
    """Return the finished directory of that name, or None."""
    directory = cache_directory() / "models" / name
    return directory if directory.is_dir() else None


def build_once(
    name: str,
    build: Callable[[Path], None],
    *,
    megabytes: int,
    on_progress: Progress = no_progress,
) -> Path:
    """Return the finished directory of that name, building it if it is not there."""
    final = cache_directory() / "models" / name
    if final.is_dir():
        return final
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with _lock(final, on_progress):
            if not final.is_dir():
                _require_room(final.parent, megabytes)
                _build(final, build)
    except OSError as error:
        raise _cache_error(error) from error
    return final


def _build(final: Path, build: Callable[[Path], None]) -> None:
    # One fixed name: the lock is held, so whatever lies there was left by a killed process.
    partial = final.with_name(f"{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        build(partial)
        partial.replace(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _lock(final: Path, on_progress: Progress) -> FileLock:
    """Return a lock that is already held, to be used as a context manager."""
    lock = FileLock(final.with_name(f"{final.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_progress(f"waiting for another process that prepares {final.name}")
        lock.acquire()
    return lock


def _require_room(directory: Path, megabytes: int) -> None:
    free = shutil.disk_usage(directory).free // 1_000_000
    if free < megabytes:
        raise UserError(
            "cache directory",
            f"have {megabytes} MB free",
            got=f"{free} MB in {directory}",
            remedy=f"free some room or set {CACHE_VARIABLE} to a directory on another disk",
        )


def _cache_error(error: OSError) -> UserError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return UserError(
        "cache directory",
        "have room left" if full else "be writable",
        got=f"{error.strerror or error} in {cache_directory()}",
        remedy=f"set {CACHE_VARIABLE} to a directory on a disk with room"
        if full
        else f"set {CACHE_VARIABLE} to a directory you may write",
    )
