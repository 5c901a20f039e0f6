"""Printing a ceiling in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from promptlimits.cli.numbers import rounded
from promptlimits.cli.theorems.capacity_options import Typed


def print_ceiling(record: Any, typed: Typed, out: Path | None) -> None:
    """Print the table and what it means in plain sentences."""
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
    log10 = bound["proportion"]["log10"]
    return (
        rounded(bound["kappa"], up=True, digits=6),
        rounded(bound["threshold_pairs"], up=True, digits=6),
        f"10^{rounded(log10, up=True)}" if log10 < 0 else "says nothing",
    )


def _sentences(record: Any, published: Any, corrected: Any) -> list[str]:
    lines = []
    delta, slope = rounded(corrected["delta"], up=True), corrected["slope"]["log10"]
    if published["reason"]:
        lines.append(f"As published: {published['reason']}.")
    if corrected["one_centre"]:
        lines.append(
            "eps + L rho < r: all prompts give nearly the same outputs, and from 1 pair on some "
            "lists are out of reach, below the threshold too."
        )
    lines.append(
        f"Best delta at the threshold: {delta}. With each pair more the limit on the share falls "
        f"by a factor of at least 10^{rounded(-slope, up=False)}."
        if slope < 0
        else f"Best delta at the threshold: {delta}."
    )
    which = {"corrected": "the corrected theorem"}.get(
        record["winner"], f"counting ({record['winner']})"
    )
    lines.append(
        f"At k = {record['pairs']:,} the least share is proved by {which}"
        + (": some lists are out of reach." if record["excluded"] else ", and excludes nothing.")
    )
    return lines
