"""One writer per store: an advisory lock beside the file, which dies with its process.

The operating system drops the lock when the process ends, however it ends, so a kill leaves
nothing to clean up. The lock file stays: removing it would let two writers in.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from filelock import FileLock, Timeout

from promptlimits.base.errors import UserError
from promptlimits.capacity.store.faults import cannot_write


def lock_path(store: Path) -> Path:
    """The lock file of a store."""
    return store.with_suffix(".lock")


def take_writer_lock(store: Path) -> FileLock:
    """Take the lock of a store without waiting, and note this process in the lock file."""
    path = lock_path(store)
    if path.exists() and not path.is_file():  # opening a pipe would wait for its other end
        raise cannot_write(store, f"{path.name} beside it is no regular file")
    holder = _holder(path)  # before the attempt: filelock below 4 empties the file on it
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise _held(store, holder) from None
    except OSError as error:
        raise cannot_write(store, error.strerror or str(error)) from error
    # Only a courtesy to whoever waits: on systems where a locked file cannot be written, the
    # message names no process.
    with contextlib.suppress(OSError):
        path.write_text(f"{os.getpid()}\n", encoding="ascii")
    return lock


def _holder(path: Path) -> int | None:
    """The process noted in a lock file, or None where none can be read."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _held(store: Path, holder: int | None) -> UserError:
    """The error for a store that is in use."""
    if holder == os.getpid():
        got = "one that this process has open already"
    else:
        got = "one in use by " + ("another process" if holder is None else f"process {holder}")
    return UserError(
        f"store {store}",
        "be free for writing",
        got=got,
        remedy="wait until it has finished, or choose another output folder",
    )
