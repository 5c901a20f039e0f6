"""`promptlimits errata`: what is wrong in the paper, and the counterexamples, run."""

from __future__ import annotations

from typing import Annotated

import typer

from promptlimits.base.errors import UserError
from promptlimits.cli import options
from promptlimits.cli.output_file import show
from promptlimits.lab.errata.run import Counterexample, run
from promptlimits.lab.errata.statements import ERRATA, Erratum, erratum


def errata(
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="Such as E13; without it, all.")
    ] = None,
    heads: Annotated[
        int | None, typer.Option("--heads", min=1, help="Heads of the layer (E11, E12, E13, E15).")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="Seed of what is drawn (E3, E9, E12, E13, E15, W4)."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """List what is wrong in the papers, or run a counterexample.

    Each entry says what was published, why it fails, and what holds. Many have a
    counterexample that is computed here, on the actual layer and prompt.

    Example: promptlimits errata E13 --heads 4
    """
    if key is None:
        if heads is not None or seed is not None:
            raise UserError(
                "--heads and --seed",
                "come with an erratum",
                got="none",
                remedy="write `promptlimits errata E13 --heads 4`",
            )
        _show_all(as_json)
        return
    entry = erratum(key)
    found = run(key, heads=heads, seed=seed)
    record = entry.to_json() | (found.to_json() if found is not None else {})
    show(record, _lines(entry, found), as_json=as_json)


def _show_all(as_json: bool) -> None:
    if as_json:
        show([entry.to_json() for entry in ERRATA], [], as_json=True)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("", "where", "status", "what holds", show_lines=True)
    for entry in ERRATA:
        table.add_row(
            entry.key + ("*" if entry.runs else ""), entry.where, entry.status, entry.correct
        )
    Console(highlight=False, markup=False).print(table)
    typer.echo("* has a counterexample: promptlimits errata E13 runs it.")


def _lines(entry: Erratum, found: Counterexample | None) -> list[str]:
    return [
        f"{entry.key}  {entry.where}: {entry.status}",
        f"Published: {entry.published}",
        f"Wrong:     {entry.wrong}",
        f"Correct:   {entry.correct}",
        *([] if found is None else [f"Measured:  {found.measured}"]),
    ]
