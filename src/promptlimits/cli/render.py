"""Printing a bracket record in the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from promptlimits._shell import quoted
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
    for bracket in as_record(record).brackets:
        if bracket.floor.witness:
            witness = folder / bracket.floor.witness
            console.print(
                f"Check:  promptlimits verify {quoted(witness)}", markup=False, soft_wrap=True
            )
