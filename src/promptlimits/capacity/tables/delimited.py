"""Rows of comma-separated and tab-separated values.

Cells are kept byte for byte; only the names in the header lose white space at their ends. Both
formats take cells in double quotes, as spreadsheets and pandas write them.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.files import place, read_text, shown
from promptlimits.capacity.tables.table import Row, Table

_SEPARATORS: Final = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SEPARATOR_LINE: Final = re.compile(r"sep=([,;\t|])[ \t]*(?:\r\n|\r|\n)")
"""The first line with which Excel is told how cells are separated."""


def csv_table(path: Path) -> Table:
    """Read a file of comma-separated values with a header.

    Where the header holds no comma but semicolons, tabs or bars, as spreadsheets of many
    countries write it, those separate the cells, and a note says so.
    """
    text = read_text(path)
    if found := _SEPARATOR_LINE.match(text):
        return _table(path, text[found.end() :], found[1], skipped=1)
    header = next(_records(path, text, ",", 0), (1, [""]))[1]
    others = [] if len(header) > 1 else [mark for mark in _SEPARATORS if mark in header[0]]
    if len(others) != 1:
        return _table(path, text, ",")
    (separator,) = others
    note = f"cells are separated by {_SEPARATORS[separator]}, as in the header"
    return _table(path, text, separator, notes=(note,))


def tsv_table(path: Path) -> Table:
    """Read a file of tab-separated values with a header."""
    return _table(path, read_text(path), "\t")


def _table(
    path: Path, text: str, separator: str, *, skipped: int = 0, notes: tuple[str, ...] = ()
) -> Table:
    records = _records(path, text, separator, skipped)
    top, header = next(records, (1 + skipped, [""]))
    columns = [cell.strip() for cell in header]
    rows = []
    for line, cells in records:
        if len(cells) != len(columns):
            raise UserError(
                place(path, line),
                f"have {len(columns)} cells as the header does",
                got=f"{len(cells)}: {shown(separator.join(cells))}",
                remedy=_cells_remedy(separator),
            )
        rows.append(Row(at=f"line {line}", cells=dict(zip(columns, cells, strict=True))))
    return Table(
        path=path,
        header=place(path, top),
        columns=tuple(dict.fromkeys(columns)),
        repeated=frozenset(name for name, times in Counter(columns).items() if times > 1),
        rows=tuple(rows),
        end=place(path, skipped + text.count("\n") + 1),
        called="column",
        notes=notes,
    )


def _cells_remedy(separator: str) -> str:
    if separator == "\t":
        return "put one tab between cells, and a cell that contains a tab in double quotes"
    one = {",": "comma", ";": "semicolon", "|": "bar"}[separator]
    return f'put a cell that contains a {one} in double quotes, as in "a{separator} b"'


def _records(
    path: Path, text: str, separator: str, skipped: int
) -> Iterator[tuple[int, list[str]]]:
    """Each record that is not blank, with the line it starts on."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    start = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells) or len(cells) > 1:
                yield start + skipped, cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise _faulty(place(path, start + skipped), separator, str(error)) from error


def _faulty(where: str, separator: str, reason: str) -> UserError:
    called = "tab-separated values" if separator == "\t" else "comma-separated values"
    if "field limit" in reason:
        return UserError(
            where,
            f"have cells of at most {csv.field_size_limit():,} characters",
            got="a longer one, or a quote that is closed far below",
            remedy="close the quote, or save the list as .jsonl, which has no such limit",
        )
    unclosed = "end of data" in reason
    return UserError(
        where,
        "close each double quote" if unclosed else f"be {called}",
        got="a quote that is never closed" if unclosed else reason,
        remedy="put a cell that begins with a quote in quotes, and write each quote in it twice, "
        'as in "say ""hi"""',
    )
