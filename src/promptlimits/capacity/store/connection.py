"""Opening the file: its lock, settings, and the checks before anything is trusted.

One writer per store: an advisory lock beside the file, which dies with its process. The operating
system drops it when the process ends, however it ends, so a kill leaves nothing to clean up. The
lock file stays: removing it would let two writers in.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from filelock import FileLock, Timeout

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.capacity.store.faults import (
    cannot_write,
    damaged,
    for_people,
    in_use,
    newer_store,
    not_a_store,
)
from promptlimits.capacity.store.schema import (
    VERSION,
    add_checksums,
    altered_row,
    make_tables,
    missing_part,
    version_of,
)

_OLDEST_SQLITE = (3, 38, 0)  # STRICT tables (3.37) and built-in JSON functions (3.38)
_BUSY_SECONDS = 5.0


def make_folder(path: Path) -> None:
    """Make the folder of a store, and refuse a path that can never be one."""
    if path.is_dir():
        raise not_a_store(path, "a folder")
    if path.exists() and not path.is_file():
        raise not_a_store(path, "a pipe or a device")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error.strerror or str(error)) from error


def open_database(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Open a store's file and check it."""
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise RunFailed(
            f"SQLite {sqlite3.sqlite_version} is too old to hold a store",
            remedy="use a Python built with SQLite 3.38 or newer",
        )
    connection = None
    try:
        connection = _connect(path, read_only=read_only)
        _check(path, connection)
        if not read_only:
            _make_durable(connection)
        _require_whole(path, connection)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if not isinstance(error, sqlite3.Error | UnicodeDecodeError):
            raise
        # Nothing has been asked of the file but what every store answers: so it is damaged.
        known = for_people(path, error) if isinstance(error, sqlite3.Error) else None
        raise known or damaged(path, str(error)) from error
    return connection


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Connect, having found out whether the file can be used as asked."""
    if read_only:
        return _connect_to_read(path)
    # SQLite opens a file that cannot be written without a word: say so before hours of work.
    # (Opening it here to find out would drop the locks this process holds on it.)
    effective = os.access in os.supports_effective_ids
    if path.exists() and not os.access(path, os.W_OK, effective_ids=effective):
        raise cannot_write(path, "permission denied")
    if not path.exists():
        _make(path)
    return sqlite3.connect(path, isolation_level=None, timeout=_BUSY_SECONDS)


def _make(path: Path) -> None:
    """Make a store whole under another name: an empty file is never one that was just begun."""
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise damaged(path, f"only its log {log.name} is there")
    draft = path.with_name(f".{path.name}.promptlimits-draft")
    draft.unlink(missing_ok=True)  # left by a kill
    try:
        with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as connection:
            make_tables(connection)
        draft.rename(path)
    except OSError as error:
        raise cannot_write(path, error.strerror or str(error)) from error
    finally:
        draft.unlink(missing_ok=True)


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """Connect to a file that another process may be writing, or that nobody can write."""
    if not path.is_file():
        raise UserError(
            f"store {path}", "be a file", got="nothing there", remedy="check the folder's name"
        )
    address = path.absolute().as_uri() + "?mode=ro"
    connection = _connect_to_address(address)
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        if path.with_name(path.name + "-wal").exists():
            raise
        # SQLite makes a -shm file beside a WAL database even to read it. Where it cannot, and
        # no log is left over, nobody is writing and nothing can change under us.
        return _connect_to_address(address + "&immutable=1")
    return connection


def _connect_to_address(address: str) -> sqlite3.Connection:
    return sqlite3.connect(address, uri=True, isolation_level=None, timeout=_BUSY_SECONDS)


def _check(path: Path, connection: sqlite3.Connection) -> None:
    """Refuse another program's file, another schema and damaged pages."""
    connection.execute("PRAGMA foreign_keys = ON")
    add_checksums(connection)
    version = version_of(connection)
    if version is None:
        raise not_a_store(path, "another program's SQLite database")
    if version > VERSION:
        raise newer_store(path, version, VERSION)
    if version < VERSION:
        raise damaged(path, "nothing is in it")
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise damaged(path, str(verdict).splitlines()[-1])  # a heading comes before it


def _require_whole(path: Path, connection: sqlite3.Connection) -> None:
    """Refuse a store of this version that lacks a table or holds an altered row."""
    fault = missing_part(connection) or altered_row(connection)
    if fault:
        raise damaged(path, fault)


def _make_durable(connection: sqlite3.Connection) -> None:
    """Write-ahead log where the file system allows it, else a journal synced at each write."""
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    # Without the log (some network file systems), NORMAL may damage the file at a power cut.
    connection.execute(f"PRAGMA synchronous = {'NORMAL' if mode == 'wal' else 'FULL'}")


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
        got = "one that this process has open already"
        if holder != os.getpid():
            got = f"one in use by {'another process' if holder is None else f'process {holder}'}"
        remedy = "wait until it has finished, or choose another output folder"
        raise in_use(store, got, remedy=remedy) from None
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
