"""The views of a record, from its JSON: each reads it first, as the commands do."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from promptlimits.record.record import Record, read_record
from promptlimits.report import html, tables
from promptlimits.report.figures.pairs_held import PairsHeld


def parsed(document: object) -> Record:
    return read_record(document)


def render(document: object) -> str:
    return html.render(read_record(document))


def write_report(document: object, directory: Path) -> Path:
    return html.write_report(read_record(document), directory)


def data(document: object) -> PairsHeld:
    return PairsHeld(read_record(document))


def summary_lines(document: object) -> tuple[str, ...]:
    return tables.summary_lines(read_record(document))


def printed(
    document: object, *, width: int = 80, encoding: str = "utf-8", color: bool = False
) -> str:
    """The table as the terminal shows it."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    console = Console(
        file=file,
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        legacy_windows=False,
    )
    console.print(tables.BracketTable(read_record(document)))
    file.flush()
    return raw.getvalue().decode(encoding)
