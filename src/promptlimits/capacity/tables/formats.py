"""The formats that lists of pairs come in, told by the ending of the file's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.delimited import csv_table, tsv_table
from promptlimits.capacity.tables.files import file_name, read_bytes, shown
from promptlimits.capacity.tables.json_files import json_table, jsonl_table
from promptlimits.capacity.tables.parquet import parquet_table
from promptlimits.capacity.tables.table import Table

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
