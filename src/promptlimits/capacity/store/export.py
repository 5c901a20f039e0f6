"""Runs as CSV for spreadsheets and as JSON for programs, written whole or not at all."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path

from promptlimits.base.errors import RunFailed
from promptlimits.base.files import JsonObject, JsonValue
from promptlimits.capacity.store.records import RunRecord
from promptlimits.capacity.store.sqlite import Store

EXPORT_SCHEMA = 1

_FIRST_COLUMNS = ("id", "spec_hash", "seed", "outcome", "steps", "created", "updated")
_NESTED = ("spec", "result", "provenance")


def runs_as_json(store: Store, *, curves: bool = False) -> str:
    """Every run of a store as one JSON document."""
    runs: list[JsonValue] = []
    for run in store.runs():
        entry: JsonObject = dataclasses.asdict(run)
        if curves:
            entry["curve"] = list(store.curve(run.id))
        runs.append(entry)
    return json.dumps({"schema": EXPORT_SCHEMA, "runs": runs}, indent=2, allow_nan=False) + "\n"


def runs_as_csv(store: Store) -> str:
    """Every run of a store as one CSV row.

    Nested fields become columns with dotted names (`spec.learning_rate`); lists are written
    as JSON. Columns that a run does not have are empty.
    """
    rows = [_row(run) for run in store.runs()]
    nested = sorted({name for row in rows for name in row} - set(_FIRST_COLUMNS))
    text = io.StringIO()
    writer = csv.DictWriter(text, [*_FIRST_COLUMNS, *nested], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_text(path: Path, text: str) -> None:
    """Write a file whole: a reader sees the old text or the new one, never a part."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise RunFailed(
            f"{path} could not be written ({error.strerror})",
            remedy="free some space or choose another folder; the store itself is unchanged",
        ) from error


def _row(run: RunRecord) -> dict[str, JsonValue]:
    entry: JsonObject = dataclasses.asdict(run)
    row = {name: entry[name] for name in _FIRST_COLUMNS}
    for name in _NESTED:
        row.update(_flat(name, entry[name]))
    return row


def _flat(name: str, value: JsonValue) -> Iterable[tuple[str, JsonValue]]:
    """Leaves of a JSON value under dotted names; a list is one leaf, as JSON text."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}", inner)
    elif isinstance(value, list):
        yield name, json.dumps(value, allow_nan=False)
    elif value is not None:
        yield name, value
