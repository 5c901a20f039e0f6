"""Cells as a table for other programs: CSV, or Parquet through pyarrow, which is an extra."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from promptlimits.base.errors import UserError
from promptlimits.base.files import JsonObject, replace_file
from promptlimits.capacity.tables.formats import PYARROW

ENDINGS: Final = (".csv", ".parquet")


def require_exportable(path: Path) -> None:
    """Refuse what `export` cannot write, before the work.

    Raises:
        UserError: The ending is another one, or pyarrow is not there.
    """
    if path.suffix not in ENDINGS:
        raise UserError(
            "--export", f"end in {' or '.join(ENDINGS)}", got=path.name, remedy="write cells.csv"
        )
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401 - only whether it is there
        except ImportError as error:
            raise UserError(
                "--export",
                "be written with pyarrow",
                got="a Python without it",
                remedy=f"run {sys.executable} -m pip install '{PYARROW}', or write .csv",
            ) from error


def export(path: Path, rows: Sequence[JsonObject]) -> None:
    """Write one row for each cell, whole or not at all.

    Args:
        path: A .csv or .parquet file.
        rows: Plain values under the same names.
    """
    content = _csv(rows) if path.suffix == ".csv" else _parquet(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content)


def _csv(rows: Sequence[JsonObject]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _parquet(rows: Sequence[JsonObject]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    buffer = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), buffer)
    content: Any = buffer.getvalue().to_pybytes()
    return bytes(content)
