"""Tables of the store, and their laws written as SQL.

Every table is append-only by trigger, but `checkpoints`: it holds the one state a run
resumes from, and a foreign key ties that state to the curve row of the same step, so the
two can never tell different stories. The database refuses what the code should not do.

Every row carries a checksum of its values: SQLite notices pages that do not fit together, but
not a byte that changed inside a text, a number or a prompt.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Mapping
from contextlib import closing

APPLICATION_ID = 0x504C494D  # "PLIM": tells a store from another program's database.
VERSION = 1

RESUMABLE = ("interrupted", "out_of_budget")
"""Outcomes after which a run may go on; every other outcome is final."""

_APPEND_ONLY = ("runs", "steps", "endings", "records", "used_time")

_TABLES = (
    """
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY,
        spec_hash TEXT NOT NULL UNIQUE CHECK (length(spec_hash) = 64),
        spec TEXT NOT NULL CHECK (json_valid(spec)),
        seed INTEGER NOT NULL,
        provenance TEXT NOT NULL CHECK (json_valid(provenance)),
        created TEXT NOT NULL,
        checksum INTEGER NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE steps (
        run_id INTEGER NOT NULL REFERENCES runs (id),
        step INTEGER NOT NULL CHECK (step >= 0),
        metrics TEXT NOT NULL CHECK (json_valid(metrics)),
        created TEXT NOT NULL,
        checksum INTEGER NOT NULL,
        PRIMARY KEY (run_id, step)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE checkpoints (
        run_id INTEGER PRIMARY KEY,
        step INTEGER NOT NULL,
        state BLOB NOT NULL,
        checksum INTEGER NOT NULL,
        FOREIGN KEY (run_id, step) REFERENCES steps (run_id, step)
    ) STRICT
    """,
    """
    CREATE TABLE endings (
        id INTEGER PRIMARY KEY,
        run_id INTEGER NOT NULL REFERENCES runs (id),
        outcome TEXT NOT NULL CHECK (length(outcome) > 0),
        final INTEGER NOT NULL CHECK (final IN (0, 1)),
        result TEXT NOT NULL CHECK (json_valid(result)),
        artifact BLOB,
        created TEXT NOT NULL,
        checksum INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE INDEX endings_of_run ON endings (run_id)",
    "CREATE UNIQUE INDEX one_final_ending ON endings (run_id) WHERE final = 1",
    """
    CREATE TABLE records (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL CHECK (length(kind) > 0),
        key_hash TEXT NOT NULL CHECK (length(key_hash) = 64),
        key TEXT NOT NULL CHECK (json_valid(key)),
        payload TEXT NOT NULL CHECK (json_valid(payload)),
        created TEXT NOT NULL,
        checksum INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE INDEX records_by_key ON records (kind, key_hash)",
    """
    CREATE TABLE used_time (
        id INTEGER PRIMARY KEY,
        command_hash TEXT NOT NULL CHECK (length(command_hash) > 0),
        seconds REAL NOT NULL CHECK (seconds >= 0),
        created TEXT NOT NULL,
        checksum INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE INDEX used_time_of_command ON used_time (command_hash)",
)

_STEPS_GO_UP = """
    CREATE TRIGGER steps_go_up BEFORE INSERT ON steps
    WHEN NEW.step <= (SELECT MAX(step) FROM steps WHERE run_id = NEW.run_id)
    BEGIN SELECT RAISE(ABORT, 'steps of a run must go up'); END
"""

_ENDED = """
    CREATE TRIGGER no_{table}_after_final BEFORE INSERT ON {table}
    WHEN EXISTS (SELECT 1 FROM endings WHERE run_id = NEW.run_id AND final = 1)
    BEGIN SELECT RAISE(ABORT, 'the run has ended'); END
"""

_FROZEN = """
    CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table}
    BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END
"""


def _statements() -> tuple[str, ...]:
    """What makes a store out of an empty file."""
    frozen = tuple(
        _FROZEN.format(table=table, verb=verb)
        for table in _APPEND_ONLY
        for verb in ("UPDATE", "DELETE")
    )
    ended = tuple(_ENDED.format(table=table) for table in ("steps", "endings"))
    header = (f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {VERSION}")
    return (*_TABLES, _STEPS_GO_UP, *ended, *frozen, *header)


CHECKED: Mapping[str, tuple[str, ...]] = {
    "runs": ("spec_hash", "spec", "seed", "provenance", "created"),
    "steps": ("run_id", "step", "metrics", "created"),
    "checkpoints": ("run_id", "step", "state"),
    "endings": ("run_id", "outcome", "final", "result", "artifact", "created"),
    "records": ("kind", "key_hash", "key", "payload", "created"),
    "used_time": ("command_hash", "seconds", "created"),
}
"""The columns of each table that its checksum is about."""


def add_checksums(connection: sqlite3.Connection) -> None:
    """Teach an open file `row_checksum`, which writing and checking rows needs."""
    connection.create_function("row_checksum", -1, _checksum, deterministic=True)


def _checksum(*values: str | int | float | bytes | None) -> int:
    """CRC-32 of a row's values, told apart by their types and lengths."""
    digest = 0
    for value in values:
        content = value if isinstance(value, bytes) else repr(value).encode()
        digest = zlib.crc32(
            content, zlib.crc32(b"%s %d:" % (_TYPES[type(value)], len(content)), digest)
        )
    return digest


_TYPES = {str: b"text", int: b"integer", float: b"real", bytes: b"blob", type(None): b"null"}


def insertion(table: str) -> str:
    """The statement that adds a row of the checked columns, in their order, and its checksum."""
    columns = CHECKED[table]
    values = ", ".join(f"?{number}" for number in range(1, len(columns) + 1))
    return (
        f"INSERT INTO {table} ({', '.join(columns)}, checksum) "
        f"VALUES ({values}, row_checksum({values}))"
    )


def altered_row(connection: sqlite3.Connection) -> str:
    """Where a row is not as it was written."""
    for table, columns in CHECKED.items():
        number = "step" if table == "steps" else "run_id" if table == "checkpoints" else "id"
        row = connection.execute(
            f"SELECT {number} FROM {table} "
            f"WHERE checksum IS NOT row_checksum({', '.join(columns)}) LIMIT 1"
        ).fetchone()
        if row is not None:
            return f"row {row[0]} of {table} is not as it was written"
    return ""


def missing_part(connection: sqlite3.Connection) -> str:
    """Which table, index or trigger of this version is not there, or another; empty if none."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
        make_tables(fresh)
        wanted = dict(fresh.execute(_PARTS).fetchall())
    found = dict(connection.execute(_PARTS).fetchall())
    return next((f"no {name}" for name, sql in wanted.items() if found.get(name) != sql), "")


_PARTS = "SELECT type || ' ' || name, sql FROM sqlite_master WHERE sql IS NOT NULL"


def version_of(connection: sqlite3.Connection) -> int | None:
    """The schema version of an open file."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application == APPLICATION_ID:
        return int(version)
    (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    return 0 if (application, version, tables) == (0, 0, 0) else None


def make_tables(connection: sqlite3.Connection) -> None:
    """Make a store out of an empty file, in one transaction.

    A kill at any moment leaves nothing or all: the version number and the application id sit in
    the database header, which is part of the transaction.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _statements():
            connection.execute(statement)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
