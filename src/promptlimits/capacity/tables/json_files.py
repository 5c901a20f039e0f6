"""Rows of JSON: an array of objects, or one object on each line.

Numbers keep the text that they have in the file: 1.50 is "1.50", and 42 is "42".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.files import file_name, listed, place, read_text, shown
from promptlimits.capacity.tables.table import Row, Table, plain

_BLANK: Final = " \t\n\r"
CONVERSATIONS: Final = ("messages", "conversations")
"""Fields that hold the messages of one conversation, not the rows of a file."""


def jsonl_table(path: Path) -> Table:
    """Read a file of JSON Lines, one object on each line."""
    text = read_text(path)
    if text.lstrip(_BLANK).startswith("["):
        return _of_array(path, text)
    return _of_lines(path, text)


def json_table(path: Path) -> Table:
    """Read a JSON file: an array of objects, an object that wraps one, or JSON Lines."""
    text = read_text(path)
    if text.lstrip(_BLANK).startswith("["):
        return _of_array(path, text)
    if _is_one_document(text):
        return _of_wrapper(path, text)
    return _of_lines(path, text)


def _of_lines(path: Path, text: str) -> Table:
    rows = []
    # Not splitlines(): JSON strings may contain other line separators, such as U+2028.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = place(path, number)
            entry = _parsed(where, line)
            rows.append(Row(at=f"line {number}", cells=_object(where, entry)))
    return _table(path, rows)


def _of_array(path: Path, text: str) -> Table:
    start = len(text) - len(text.lstrip(_BLANK))
    rows, end = _elements(path, text, start)
    end = _past_blanks(text, end)
    if text[end:]:
        raise _not_json(path, text, end, "something behind the end of the list")
    return _table(path, rows)


def _of_wrapper(path: Path, text: str) -> Table:
    """The rows of the one field that is a list of objects, as in {"data": [...]}."""
    fields: dict[str, tuple[int, Any]] = {}
    for name, at, value in _fields(path, text):
        if name in fields:
            raise _twice(place(path, _line_at(text, at)), name)
        fields[name] = (at, value)
    lists = [
        name
        for name, (_, value) in fields.items()
        if name not in CONVERSATIONS and _holds_objects(value)
    ]
    if len(lists) > 1:
        raise UserError(
            file_name(path),
            "hold one list of objects",
            got=f"{len(lists)}: {listed(lists)}",
            remedy="save the one that holds the pairs to a file of its own",
        )
    if not lists:
        raise UserError(
            file_name(path),
            "hold a list of objects",
            got=f"one object, with the fields {listed(fields)}",
            remedy='write [{"key": "...", "value": "..."}, ...], or call it .jsonl if each line '
            "is an object",
        )
    return _table(path, _elements(path, text, fields[lists[0]][0])[0])


def _holds_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _is_one_document(text: str) -> bool:
    """Whether nothing follows the first value: otherwise it is one object on each line."""
    start = len(text) - len(text.lstrip(_BLANK))
    try:
        _, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        # A whole document with a fault, unless its first line is one already.
        try:
            json.loads(text[start:].split("\n", 1)[0])
        except (ValueError, RecursionError):
            return True
        return False
    return not text[end:].strip(_BLANK)


def _elements(path: Path, text: str, start: int) -> tuple[list[Row], int]:
    """The objects of the array that begins at `start`, and where it ends."""
    rows: list[Row] = []
    at = _past_blanks(text, start + 1)
    line, counted = _line_at(text, at), at
    while text[at : at + 1] != "]":
        if rows:
            if text[at : at + 1] != ",":
                raise _not_json(path, text, at, "no comma between two entries")
            at = _past_blanks(text, at + 1)
        line, counted = line + text.count("\n", counted, at), at
        numbered = f"line {line}, entry {len(rows) + 1}"
        where = place(path, numbered)
        entry, at = _decoded(where, text, at)
        rows.append(Row(at=numbered, cells=_object(where, entry)))
        at = _past_blanks(text, at)
    return rows, at + 1


def _fields(path: Path, text: str) -> Iterator[tuple[str, int, Any]]:
    """Name, beginning and value of each field of the object that a text is."""
    at = _past_blanks(text, _past_blanks(text, 0) + 1)
    line, counted = _line_at(text, at), at
    while text[at : at + 1] != "}":
        line, counted = line + text.count("\n", counted, at), at
        name, at = _decoded(place(path, line), text, at)
        at = _past_blanks(text, at)
        if not isinstance(name, str) or text[at : at + 1] != ":":
            raise _not_json(path, text, at, "no name and colon before a value")
        at = _past_blanks(text, at + 1)
        value, end = _decoded(place(path, line), text, at)
        yield name, at, value
        at = _past_blanks(text, end)
        if text[at : at + 1] == ",":
            at = _past_blanks(text, at + 1)
        elif text[at : at + 1] != "}":
            raise _not_json(path, text, at, "no comma between two fields")


def _past_blanks(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in _BLANK:
        at += 1
    return at


def _line_at(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _not_json(path: Path, text: str, at: int, got: str) -> UserError:
    return UserError(
        place(path, _line_at(text, at)),
        "be JSON",
        got=f"{got}: {shown(text[at : at + 40])}" if text[at:] else "the end of the file",
        remedy='write [{"key": "...", "value": "..."}, ...], or one object on each line',
    )


def _parsed(where: str, line: str) -> Any:
    entry, end = _decoded(where, line, _past_blanks(line, 0))
    if line[end:].strip():
        raise _bad(where, f"{shown(line)}: extra data at column {end + 1}")
    return entry


def _decoded(where: str, text: str, at: int) -> tuple[Any, int]:
    """The JSON value that begins at a position, and where it ends."""

    def once(fields: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(fields)
        if len(record) < len(fields):
            names = [name for name, _ in fields]
            raise _twice(where, next(name for name in names if names.count(name) > 1))
        return record

    def refuse(constant: str) -> NoReturn:
        raise UserError(
            where, "be JSON", got=constant, remedy="give text in double quotes, or null for none"
        )

    decoder = json.JSONDecoder(
        object_pairs_hook=once, parse_constant=refuse, parse_int=str, parse_float=str
    )
    try:
        value, end = decoder.raw_decode(text, at)
        return plain(value), end
    except RecursionError as error:
        raise _bad(where, "brackets too deep") from error
    except json.JSONDecodeError as error:
        line = text[text.rfind("\n", 0, error.pos) + 1 :].split("\n", 1)[0]
        raise _bad(where, f"{shown(line)}: {error.msg.lower()} at column {error.colno}") from error


def _object(where: str, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise _bad(where, shown(json.dumps(entry, ensure_ascii=False)))
    return entry


def _bad(where: str, got: str) -> UserError:
    return UserError(
        where,
        "be a JSON object",
        got=got,
        remedy='write {"key": "...", "value": "..."}, with double quotes and one object a row',
    )


def _twice(where: str, name: str) -> UserError:
    return UserError(
        where, "give each field once", got=f"{shown(name)} twice", remedy="delete one of the two"
    )


def _table(path: Path, rows: Iterable[Row]) -> Table:
    rows = tuple(rows)
    if not rows:
        raise UserError(
            file_name(path),
            "hold at least one pair",
            got="an empty list",
            remedy='write {"key": "...", "value": "..."} for each pair',
        )
    return Table(
        path=path,
        header=place(path, rows[0].at),
        columns=tuple(dict.fromkeys(name for row in rows for name in row.cells)),
        rows=rows,
        end=place(path, rows[-1].at),
        called="field",
    )
