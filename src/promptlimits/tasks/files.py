"""Read a file of pairs into rows, and say exactly what is wrong with it and where."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from promptlimits.errors import UserError

FIELDS: Final = ("key", "value")
_SHOWN_CHARACTERS: Final = 60


@dataclass(frozen=True, kw_only=True)
class Row:
    """A key and a value as they stand in the file.

    Attributes:
        line: Line on which the row starts, from 1.
        key: Text of the key.
        value: Text of the value.
    """

    line: int
    key: str
    value: str


def shown(text: str) -> str:
    """A text for an error message: quoted, on one line, not too long.

    Args:
        text: Any text.

    Returns:
        Its Python literal, clipped.
    """
    clipped = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    return repr(clipped)


def file_name(path: Path) -> str:
    """A path for an error message, on one line.

    Args:
        path: Any path.

    Returns:
        The path as given, quoted if it has characters that do not print.
    """
    return str(path) if str(path).isprintable() else shown(str(path))


def read_text(
    path: Path, *, holds: str = "pairs", remedy: str = "put one pair on each line"
) -> str:
    """The text of a regular UTF-8 file, without a byte order mark.

    Args:
        path: The file.
        holds: What it must hold, for the message about a blank one.
        remedy: What to do about a blank one.

    Returns:
        Its text; it is not blank.

    Raises:
        UserError: There is no such file, it is no regular file, it cannot be read, it is
            blank, or it is not UTF-8 text.
    """
    data = read_bytes(path)
    text = _decode(path.name, data)
    if not text.strip():
        what = "white space alone" if data else "an empty file"
        raise UserError(file_name(path), f"hold {holds}", got=what, remedy=remedy)
    return text


def read_bytes(path: Path) -> bytes:
    """What a regular file holds.

    Args:
        path: The file.

    Returns:
        Its bytes.

    Raises:
        UserError: There is no such file, it is no regular file, or it cannot be read.
    """
    name = file_name(path)
    try:
        if path.is_dir():
            raise UserError(name, "be a file", got="a directory", remedy="name a file in it")
        if path.exists() and not path.is_file():
            raise UserError(
                name, "be a regular file", got="a device or a pipe", remedy="save it to a file"
            )
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            name,
            "be a file that can be read",
            got=(error.strerror or str(error)).lower(),
            remedy="check its name, where you are, and its permissions",
        ) from error
    except ValueError as error:  # a NUL in the name
        raise UserError(name, "be a file name", got=str(error), remedy="check it") from error


def _decode(name: str, data: bytes) -> str:
    if (position := data.find(b"\0")) >= 0:
        raise UserError(
            _line(name, _line_at(data, position)),
            "be text",
            got="a NUL byte",
            remedy="save the file as plain text in UTF-8 (UTF-16 has such bytes)",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec counts from behind a byte order mark.
        position = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        raise UserError(
            _line(name, _line_at(data, position)),
            "be UTF-8 text",
            got=f"the byte 0x{data[position]:02X}",
            remedy="save the file as UTF-8",
        ) from error


def _line_at(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1


def _line(name: str, line: int) -> str:
    """A place for messages and records: "pairs.csv line 3"."""
    return f"{name if name.isprintable() else shown(name)} line {line}"


def place(path: Path, line: int) -> str:
    """A place for messages and records.

    Args:
        path: The file; only its last part is shown.
        line: The line, from 1.

    Returns:
        Such as "pairs.csv line 3".
    """
    return _line(path.name, line)


def csv_rows(path: Path, text: str) -> tuple[list[Row], tuple[str, ...]]:
    """The rows of a CSV text whose header has the columns key and value.

    Args:
        path: Where the text was read, for messages.
        text: The text.

    Returns:
        The rows, and notes on what was left out.

    Raises:
        UserError: The header lacks a column, a row has too few or too many cells, or a quote
            is not closed.
    """
    records = _csv_records(path, text)
    line, header = next(records, (1, [""]))
    columns = [cell.strip() for cell in header]
    _check_header(place(path, line), columns)
    key, value = columns.index("key"), columns.index("value")
    rows = []
    for line, cells in records:
        if len(cells) != len(columns):
            raise UserError(
                place(path, line),
                f"have {len(columns)} cells as the header does",
                got=f"{len(cells)}: {shown(','.join(cells))}",
                remedy='put a cell that contains a comma in double quotes, as in "a, b"',
            )
        rows.append(Row(line=line, key=cells[key], value=cells[value]))
    ignored = [shown(column) for column in columns if column not in FIELDS]
    return rows, (f"columns not used: {', '.join(ignored)}",) if ignored else ()


def _csv_records(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Each record that is not blank, with the line it starts on."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells) or len(cells) > 1:
                yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        unclosed = "end of data" in str(error)
        raise UserError(
            place(path, start),
            "close each double quote" if unclosed else "be comma-separated values",
            got="a quote that is never closed" if unclosed else str(error),
            remedy='close the quote, and write one inside a cell twice, as in "say ""hi"""',
        ) from error


def _check_header(where: str, columns: Sequence[str]) -> None:
    seen = ", ".join(shown(column) for column in columns)
    for field in FIELDS:
        if columns.count(field) > 1:
            raise UserError(
                where, f"name the column '{field}' once", got=seen, remedy="rename the other one"
            )
    missing = [field for field in FIELDS if field not in columns]
    if missing:
        raise UserError(
            where,
            "be a header with the columns key and value",
            got=seen,
            remedy=_header_remedy(columns, missing),
        )


def _header_remedy(columns: Sequence[str], missing: Sequence[str]) -> str:
    if len(columns) == 1:
        for delimiter, called in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if delimiter in columns[0]:
                return f"separate the cells with commas, not {called}"
    spare = [column for column in columns if column and column not in FIELDS]
    renamed = []
    for field in missing:
        alike = next((column for column in spare if column.lower() == field), None)
        choice = alike or (spare[0] if spare else None)
        if choice is None:
            return f"add a column named '{field}'"
        spare.remove(choice)
        renamed.append(f"rename {shown(choice)} to '{field}'")
    if len(missing) == len(FIELDS):
        renamed.append("or put the line key,value on top if there is no header yet")
    return ", ".join(renamed)


def jsonl_rows(path: Path, text: str) -> tuple[list[Row], tuple[str, ...]]:
    """The rows of a JSON Lines text: one object with the fields key and value on each line.

    Args:
        path: Where the text was read, for messages.
        text: The text.

    Returns:
        The rows, and notes on what was left out.

    Raises:
        UserError: A line is no JSON object, or lacks a field, or a field is not text.
    """
    rows = []
    ignored: dict[str, None] = {}
    # Not splitlines(): JSON strings may contain other line separators, such as U+2028.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = place(path, number)
        record = _json_object(where, line)
        key, value = (_text_field(where, record, field) for field in FIELDS)
        ignored.update(dict.fromkeys(field for field in record if field not in FIELDS))
        rows.append(Row(line=number, key=key, value=value))
    names = ", ".join(shown(field) for field in ignored)
    return rows, (f"fields not used: {names}",) if names else ()


def _json_object(where: str, line: str) -> dict[str, Any]:
    remedy = 'write {"key": "...", "value": "..."}, one object on each line'

    def once(fields: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(fields)
        if len(record) < len(fields):
            raise UserError(
                where, "give each field once", got=shown(line), remedy="delete the repeated field"
            )
        return record

    def refuse(constant: str) -> NoReturn:
        raise UserError(where, "be JSON", got=constant, remedy="give text in double quotes")

    try:
        record = json.loads(line, object_pairs_hook=once, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        reason = "numbers too long or brackets too deep"
        if isinstance(error, json.JSONDecodeError):
            reason = f"{shown(line)}: {error.msg.lower()} at column {error.colno}"
        raise UserError(where, "be a JSON object", got=reason, remedy=remedy) from error
    if not isinstance(record, dict):
        raise UserError(where, "be a JSON object", got=shown(line), remedy=remedy)
    return record


def _text_field(where: str, record: dict[str, Any], field: str) -> str:
    if field not in record:
        fields = ", ".join(shown(name) for name in record) or "no field"
        raise UserError(
            where, f"have the field '{field}'", got=fields, remedy=f"add or rename '{field}'"
        )
    value = record[field]
    if not isinstance(value, str):
        raise UserError(
            f"{where}: {field}",
            "be text",
            got=json.dumps(value)[:_SHOWN_CHARACTERS],
            remedy=f'put it in double quotes, as in "{field}": "42"',
        )
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise UserError(
            f"{where}: {field}",
            "be Unicode text",
            got=f"{shown(value)} with half of a surrogate pair",
            remedy="write the character itself",
        )
    return value
