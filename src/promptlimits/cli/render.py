"""Printing a bracket record in the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from promptlimits._typing import JsonObject
from promptlimits.report.rows import as_record
from promptlimits.report.tables import bracket_table, summary_lines


def print_bracket(record: JsonObject, folder: Path, page: Path) -> None:
    """Print the table, a plain sentence for each length, and where to look next.

    Args:
        record: The bracket record.
        folder: The output folder.
        page: The report's page.
    """
    console = Console(highlight=False)
    console.print(bracket_table(record))
    for line in summary_lines(record):
        console.print(line, markup=False)
    console.print(f"\nReport: {page}", markup=False, soft_wrap=True)
    parsed = as_record(record)
    if parsed.go_on:
        console.print(f"Go on:  {parsed.go_on}", markup=False, soft_wrap=True)
    for bracket in parsed.brackets:
        if bracket.floor.witness:
            witness = folder / bracket.floor.witness
            console.print(f"Check:  promptlimits verify {witness}", markup=False, soft_wrap=True)
