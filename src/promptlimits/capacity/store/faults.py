"""What SQLite reports, said for people: the file, the rule, and what is or is not lost."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from promptlimits.base.errors import PromptLimitsError, RunFailed, UserError


def not_a_store(path: Path, got: str) -> UserError:
    """The error for a file that is something else."""
    return UserError(
        f"store {path}",
        "be a file that promptlimits wrote",
        got=got,
        remedy="choose another output folder; the file was left as it is",
    )


def newer_store(path: Path, version: int, known: int) -> UserError:
    """The error for a store that a later promptlimits wrote."""
    return UserError(
        f"store {path}",
        f"have schema version {known}",
        got=f"version {version}",
        remedy="upgrade promptlimits, or choose another output folder",
    )


def damaged(path: Path, detail: str) -> UserError:
    """The error for a store whose pages do not fit together."""
    return UserError(
        f"store {path}",
        "be an undamaged SQLite file",
        got=f"a damaged one ({detail})",
        remedy="restore it from a copy, or choose another output folder; the file was left as it "
        "is, and `sqlite3 FILE .recover` prints what of it can be read",
    )


def cannot_write(path: Path, detail: str) -> UserError:
    """The error for a store whose file or folder refuses writing."""
    return UserError(
        f"store {path}",
        "be a file, in a folder, that can be written",
        got=f"one that cannot ({detail})",
        remedy="change the permissions, or choose another output folder",
    )


def in_use(path: Path, got: str, *, remedy: str) -> UserError:
    """The error for a store that another program holds."""
    return UserError(f"store {path}", "be free for writing", got=got, remedy=remedy)


def for_people(path: Path, error: sqlite3.Error) -> PromptLimitsError | None:
    """Translate what SQLite reports about a file."""
    # Extended codes carry the primary in the low byte; 0 is none.
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_NOTADB:
            return not_a_store(path, f"a file that is not a SQLite database ({error})")
        case sqlite3.SQLITE_CORRUPT:
            return damaged(path, str(error))
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return cannot_write(path, str(error))
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            got = f"one that another program holds ({error})"
            return in_use(
                path, got, remedy="close whatever has the file open, and run the same command again"
            )
        case sqlite3.SQLITE_FULL:
            return RunFailed(
                f"the disk is full, writing to store {path}",
                remedy="free some space and run the same command again; nothing that was recorded "
                "is lost",
            )
        case sqlite3.SQLITE_IOERR:
            return RunFailed(
                f"the operating system could not read or write store {path} ({error})",
                remedy="check the disk and run the same command again; every step recorded before "
                "is kept",
            )
        case _:
            return None
