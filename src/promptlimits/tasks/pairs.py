"""Pairs of a key and a value as text, from a CSV or a JSON Lines file.

White space at either end of a key or a value is removed, and a note says how often: stock
tokenizers give " Paris" and "Paris" different tokens, and a stray blank in a file is a slip
far more often than a wish. Everything else in the text is kept as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from promptlimits.errors import UserError
from promptlimits.tasks.files import (
    Row,
    csv_rows,
    file_name,
    jsonl_rows,
    place,
    read_bytes,
    read_text,
    shown,
)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A key and the value to answer with.

    Attributes:
        key: Text of the key; not empty.
        value: Text of the value; not empty.
        where: Where it comes from, such as "pairs.csv line 3".
        also: Other answers that count as well; the value is the one that is trained for.
        turns: (role, content) of each message of a conversation that the key is the end of; empty
            where the key is plain text.
    """

    key: str
    value: str
    where: str
    also: tuple[str, ...] = ()
    turns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class PairTask:
    """Pairs as text, each key once, in a fixed order.

    Attributes:
        name: Short name for people.
        pairs: The pairs; at least one.
        source: Where they come from and under which licence, if known.
        notes: Facts a report must show, such as what was left out.
    """

    name: str
    pairs: tuple[Pair, ...]
    source: str
    notes: tuple[str, ...] = ()


_READERS = {".csv": csv_rows, ".jsonl": jsonl_rows}


def read_pairs(path: Path | str) -> PairTask:
    """Read a file of pairs.

    A `.csv` file has a header with the columns key and value; a `.jsonl` file has one object
    with those fields on each line. Both are UTF-8. Other columns and fields are ignored with
    a note, blank lines without.

    Args:
        path: The file.

    Returns:
        The pairs, in the order of the file.

    Raises:
        UserError: Something is wrong with the file; the message names the line.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        read_bytes(path)  # a file that is not there is the greater trouble
        raise UserError(
            file_name(path),
            "end in .csv or .jsonl",
            got=shown(path.suffix) if path.suffix else "no ending",
            remedy="name the file after what it holds: comma-separated values or JSON Lines",
        )
    text = read_text(path)
    rows, notes = reader(path, text)
    if not rows:
        raise UserError(
            place(path, text.count("\n") + 1),
            "come after at least one pair",
            got="a header and nothing below it",
            remedy="put one pair on each line",
        )
    pairs, stripped = _pairs(path, rows)
    if stripped:
        notes += (f"white space removed at the ends of {stripped} keys or values",)
    return PairTask(name=path.stem, pairs=pairs, source=f"file {path.name}", notes=notes)


def _pairs(path: Path, rows: Iterable[Row]) -> tuple[tuple[Pair, ...], int]:
    """Check rows and make pairs of them; also how many texts had white space removed."""
    pairs: dict[str, Pair] = {}
    lines: dict[str, int] = {}
    stripped = 0
    for row in rows:
        where = place(path, row.line)
        key, value = row.key.strip(), row.value.strip()
        stripped += (key != row.key) + (value != row.value)
        for field, text in (("key", key), ("value", value)):
            if not text:
                raise UserError(
                    where, f"have a {field}", got="an empty one", remedy="fill it in or delete it"
                )
        if key in pairs:
            raise _repeated(where, pairs[key], lines[key], value)
        pairs[key] = Pair(key=key, value=value, where=where)
        lines[key] = row.line
    return tuple(pairs.values()), stripped


def _repeated(where: str, first: Pair, first_line: int, value: str) -> UserError:
    if value == first.value:
        got, remedy = f"the pair of line {first_line} again", "delete one of the two lines"
    else:
        got = f"{shown(value)} here and {shown(first.value)} on line {first_line}"
        remedy = "keep the line that is right"
    return UserError(where, f"give the key {shown(first.key)} only once", got=got, remedy=remedy)
