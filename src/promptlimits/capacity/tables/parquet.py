"""Rows of a Parquet file, read with pyarrow, which is an extra."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.files import MOST_BYTES, file_name, place, read_bytes
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
