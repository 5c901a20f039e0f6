"""What a file of pairs holds, whatever its format: rows of named cells."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.files import place, shown
from promptlimits.capacity.tables.form import SURROGATE

Cell = Any
"""Text, None, or a list or a mapping of such; numbers and truth values are text already."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One entry of a file."""

    at: str  # where it stands in the file, such as "line 3"
    cells: Mapping[str, Cell]  # its cells by the names of their columns


@dataclass(frozen=True, kw_only=True)
class Table:
    """All entries of a file."""

    path: Path  # the file
    header: str  # place where the names of the columns stand, for messages
    columns: tuple[str, ...]  # their names, in the order of the file
    rows: tuple[Row, ...]  # the entries
    end: str  # place where the entries end
    called: str  # what the format calls a column: "column" or "field"
    repeated: frozenset[str] = frozenset()  # those that name more than one column
    notes: tuple[str, ...] = ()  # facts on how the file was read

    def where(self, row: Row) -> str:
        """The place of a row, for messages and records."""
        return place(self.path, row.at)

    def cell(self, row: Row, column: str) -> Cell:
        """The cell of a row under the name of a column."""
        if column not in row.cells:
            fields = ", ".join(shown(name) for name in row.cells) or "no field"
            raise UserError(
                self.where(row),
                f"have the field {shown(column)} as other rows do",
                got=fields,
                remedy=f"add it, or rename the one that is meant to {shown(column)}",
            )
        return row.cells[column]

    def text(self, row: Row, column: str) -> str | None:
        """The text of a row's cell."""
        return text_of(f"{self.where(row)}: {column}", self.cell(row, column))


def text_of(where: str, cell: Cell) -> str | None:
    """The text of a cell."""
    if cell is None:
        return None
    if not isinstance(cell, str):
        kind = "a list" if isinstance(cell, list) else "an object"
        raise UserError(
            where,
            "be one text",
            got=f"{kind}, {shown(json.dumps(cell, ensure_ascii=False, default=str))}",
            remedy="name another column, or write the one text that is meant",
        )
    if "\0" in cell:
        raise UserError(
            where, "be text", got=f"{shown(cell)} with a NUL character", remedy="delete that"
        )
    if SURROGATE.search(cell):
        raise UserError(
            where,
            "be Unicode text",
            got=f"{shown(cell)} with half of a surrogate pair",
            remedy="write the character itself",
        )
    return cell


def texts_of(where: str, cell: Cell) -> list[str]:
    """The texts of a cell that may hold several: a text, a list, or an object with a list.

    Published lists of answers are `["a", "b"]`, `{"text": ["a", "b"], ...}` and
    `{"value": "a", "aliases": ["b"], ...}`.
    """
    match cell:
        case {"text": list(texts)}:
            several: Sequence[Cell] = texts
        case {"value": str(first), "aliases": list(others)}:
            several = [first, *others]
        case list():
            several = cell
        case _:
            several = [cell]
    texts = [text for one in several if (text := text_of(where, one)) is not None]
    return list(dict.fromkeys(texts))


def plain(value: Any) -> Cell:
    """A value of a file with its numbers and truth values as text."""
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case list():
            return [plain(one) for one in value]
        case dict():
            return {name: plain(one) for name, one in value.items()}
        case bytes():
            return {"type": "binary"}
    return str(value)
