"""Printing a bracket record in the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from promptlimits.base.shell import quoted
from promptlimits.nets.files.catalog import find_entry
from promptlimits.record.record import Record
from promptlimits.report.tables import BracketTable, summary_lines


def print_bracket(record: Record, folder: Path, page: Path) -> None:
    """Print the table, a plain sentence for each length, and where to look next."""
    console = Console(highlight=False)
    console.print(BracketTable(record))
    for line in summary_lines(record):
        console.print(line, markup=False)
    console.print(f"\nReport: {page}", markup=False, soft_wrap=True)
    if record.go_on:
        console.print(f"Go on:  {record.go_on}", markup=False, soft_wrap=True)
    for bracket in record.brackets:
        if bracket.floor.witness:
            line = check_line(folder / bracket.floor.witness, record.model.reference)
            console.print(line, markup=False, soft_wrap=True)


def check_line(witness: Path, reference: str) -> str:
    """The line that says how to decode a witness again."""
    named = find_entry(reference) is not None
    model = "" if named else f" --model {quoted(reference)}"
    return f"Check:  promptlimits verify {quoted(witness)}{model}"
