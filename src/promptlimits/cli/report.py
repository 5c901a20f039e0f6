"""`promptlimits report`: draw the page again from the records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from promptlimits.cli import options
from promptlimits.errors import UserError


def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of a bracket.")],
    as_json: options.AsJson = False,
) -> None:
    """Draw report.html again and print the table, from the records alone."""
    from promptlimits.report.html import write_report

    path = directory / "bracket.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            "the output folder",
            "hold a readable bracket.json",
            got=f"{directory} ({error.__class__.__name__})",
            remedy="give the --out folder of a `promptlimits bracket` that has ended",
        ) from error
    page = write_report(record, directory)
    if as_json:
        typer.echo(json.dumps(record, indent=1, ensure_ascii=False))
        return
    from promptlimits.cli.render import print_bracket

    print_bracket(record, directory, page)
