"""Printing a ceiling in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from promptlimits.cli.capacity_options import Typed


def print_ceiling(record: Any, typed: Typed, out: Path | None) -> None:
    """Print the table and what it means in plain sentences.

    Args:
        record: What `ceiling --json` prints.
        typed: What the user typed.
        out: Where the certificate was written, if it was.
    """
    console = Console(highlight=False)
    pairs, corrected, published = record["pairs"], record["corrected"], record["published"]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("bound")
    for heading in ("kappa", "threshold k", f"share at k = {pairs:,}"):
        table.add_column(heading, justify="right")
    table.add_row("Theorem 4.7 as published", *_cells(published))
    table.add_row("Theorem 1, corrected", *_cells(corrected))
    for counted in record["counting"]:
        table.add_row(f"counting ({counted['prompts']})", *_cells(counted))
    console.print(table)
    for line in _sentences(record, published, corrected):
        console.print(line, markup=False)
    if out is not None:
        console.print(f"Check:  promptlimits check {out}", markup=False, soft_wrap=True)


def _cells(bound: Any) -> tuple[str, str, str]:
    if bound["kappa"] is None:
        return "-", "-", "-"
    return (
        f"{bound['kappa']:.4g}",
        f"{bound['threshold_pairs']:.4g}",
        f"10^{bound['proportion']['log10']:.4g}",
    )


def _sentences(record: Any, published: Any, corrected: Any) -> list[str]:
    lines = []
    if published["reason"]:
        lines.append(f"As published: {published['reason']}.")
    if corrected["one_centre"]:
        lines.append(
            "eps + L rho < r: all prompts give nearly the same outputs, and from 1 pair on some "
            "lists are out of reach, below the threshold too."
        )
    lines.append(
        f"Best delta at the threshold: {corrected['delta']:.4g}. With each pair more the share "
        f"falls by a factor of at least 10^{-corrected['slope']['log10']:.4g}."
        if corrected["slope"]["log10"] < 0
        else f"Best delta at the threshold: {corrected['delta']:.4g}."
    )
    which = {"corrected": "the corrected theorem"}.get(
        record["winner"], f"counting ({record['winner']})"
    )
    lines.append(
        f"At k = {record['pairs']:,} the least share is proved by {which}"
        + (": some lists are out of reach." if record["excluded"] else ", and excludes nothing.")
    )
    return lines
