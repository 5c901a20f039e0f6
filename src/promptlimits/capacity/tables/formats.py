"""Tables by the ending of the file's name: separated values, Parquet, or JSON (`json_files`).

Cells of separated values are kept byte for byte; only the names in the header lose white space at
their ends. Cells may stand in double quotes, as spreadsheets and pandas write them. Parquet is read
with pyarrow, which is an extra.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.files import (
    MOST_BYTES,
    file_name,
    place,
    read_bytes,
    read_text,
    shown,
)
from promptlimits.capacity.tables.json_files import json_table, jsonl_table
from promptlimits.capacity.tables.table import Cell, Row, Table, plain

PYARROW: Final = "pyarrow>=21,<27"
"""What the extra `parquet` asks for."""

_BATCH: Final = 10_000


def parquet_table(path: Path) -> Table:
    """Read a Parquet file.

    Numbers, truth values and dates become the text that Arrow gives them.
    """
    data = read_bytes(path)
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(
            file_name(path),
            "be read with pyarrow",
            got="a Python without it",
            remedy=f"run {sys.executable} -m pip install '{PYARROW}'",
        ) from error
    try:
        file = parquet.ParquetFile(pyarrow.BufferReader(data))
        columns, rows = _read(path, file)
    except (pyarrow.ArrowException, OSError, ValueError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(
            file_name(path),
            "be a Parquet file",
            got=f"a fault in it ({reason})",
            remedy="write it again, or save it as .jsonl",
        ) from error
    return Table(
        path=path,
        header=place(path, "schema"),
        columns=tuple(dict.fromkeys(columns)),
        repeated=frozenset(name for name in columns if columns.count(name) > 1),
        rows=tuple(rows),
        end=place(path, f"row {len(rows) + 1}"),
        called="column",
    )


def _read(path: Path, file: Any) -> tuple[list[str], list[Row]]:
    groups = range(file.metadata.num_row_groups)
    _require_size(path, sum(file.metadata.row_group(n).total_byte_size for n in groups))
    names = list(file.schema_arrow.names)
    rows: list[Row] = []
    size = 0
    for batch in file.iter_batches(batch_size=_BATCH):
        # What the metadata declare need not be true.
        size += batch.nbytes
        _require_size(path, size)
        before = len(rows)
        columns = [_cells(batch.column(n)) for n in range(len(names))]
        rows.extend(
            Row(
                at=f"row {before + number}",
                cells=dict(zip(names, cells, strict=True)),
            )
            for number, cells in enumerate(zip(*columns, strict=True), start=1)
        )
    return names, rows


def _require_size(path: Path, size: int) -> None:
    if size > MOST_BYTES:
        raise UserError(
            file_name(path),
            f"hold at most {MOST_BYTES:,} bytes when unpacked",
            got=f"{size:,}",
            remedy="write the rows and columns that are meant to a file of their own",
        )


def _cells(array: Any) -> list[Cell]:
    """The cells of a column: text, and what other types have as their text.

    What has none is an object that names the type: it is refused where the column is asked for.
    """
    import pyarrow
    from pyarrow import types

    kind = array.type
    if types.is_dictionary(kind):
        return _cells(array.dictionary_decode())
    if types.is_nested(kind):
        return [plain(value) for value in array.to_pylist()]
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return [{"type": str(kind)}] * len(array)
    try:
        cells: list[Cell] = array.cast(pyarrow.string()).to_pylist()
    except pyarrow.ArrowInvalid:  # such as the bytes of a UUID
        return [{"type": str(kind)}] * len(array)
    return cells


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


_READERS: Final[dict[str, Callable[[Path], Table]]] = {
    ".csv": csv_table,
    ".tsv": tsv_table,
    ".json": json_table,
    ".jsonl": jsonl_table,
    ".ndjson": jsonl_table,
    ".parquet": parquet_table,
}
ENDINGS: Final = ".csv, .tsv, .json, .jsonl or .parquet"

_REMEDIES: Final = {
    ".xlsx": "save it as CSV in UTF-8",
    ".xls": "save it as CSV in UTF-8",
    ".ods": "save it as CSV in UTF-8",
    ".gz": "unpack it first",
    ".zip": "unpack it first",
    ".zst": "unpack it first",
    ".bz2": "unpack it first",
    ".xz": "unpack it first",
    ".arrow": "write it to .parquet",
    ".feather": "write it to .parquet",
    ".gguf": "give a model to --model, and a file of pairs here",
    ".safetensors": "give a model to --model, and a file of pairs here",
    ".txt": "give one text as text:FILE, and save a list of pairs in one of these formats",
    ".md": "give one text as text:FILE, and save a list of pairs in one of these formats",
}


def read_table(path: Path) -> Table:
    """Read a file of any of the formats."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        read_bytes(path)  # a file that is not there, or a folder, is the greater trouble
        raise UserError(
            file_name(path),
            f"end in {ENDINGS}",
            got=shown(path.suffix) if path.suffix else "no ending",
            remedy=_REMEDIES.get(
                path.suffix.lower(), "save the list in one of these formats, under that ending"
            ),
        )
    return reader(path)
