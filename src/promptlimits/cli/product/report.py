"""`promptlimits report`: draw the page again from the records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from promptlimits.base.errors import UserError
from promptlimits.base.files import read_regular_text
from promptlimits.base.typing import JsonObject
from promptlimits.cli import options
from promptlimits.cli.product.bracket import show


def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of a bracket.")],
    as_json: options.AsJson = False,
) -> None:
    """Draw report.html again and print the table, from the records alone."""
    from promptlimits.report.record import parse_record

    path = directory / "bracket.json"
    try:
        record = json.loads(read_regular_text(path), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            str(path),
            "be a record that can be read",
            got=f"one that cannot ({reason})",
            remedy="give the --out folder of a `promptlimits bracket` that has ended",
        ) from error
    parse_record(record)
    _require_whole(record, directory)
    show(record, directory, as_json=as_json)


def _require_whole(record: JsonObject, directory: Path) -> None:
    """A page must not show a floor beside files that are no longer its own."""
    from promptlimits.capacity.record import is_whole

    if not is_whole(record, directory):
        raise UserError(
            str(directory),
            "hold the witnesses and certificates that its bracket.json speaks of",
            got="other ones, or none",
            remedy="run its bracket command again: it is quick. Or use a folder for each command",
        )


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")
