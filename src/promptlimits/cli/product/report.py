"""`promptlimits report`: draw the page again from the records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptlimits.base.errors import UserError
from promptlimits.base.files import read_regular_text, strict_json
from promptlimits.cli import options
from promptlimits.cli.output_file import require_writable, write_whole
from promptlimits.cli.product.bracket import show

if TYPE_CHECKING:
    from promptlimits.record.record import Record


def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of a bracket.")],
    plot: options.Plot = None,
    as_json: options.AsJson = False,
) -> None:
    """Draw report.html again from the records of a bracket.

    Example: promptlimits report runs/bracket
    """
    from promptlimits.record.record import read_record

    require_writable("--plot", plot)
    path = directory / "bracket.json"
    try:
        document = strict_json(read_regular_text(path))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            str(path),
            "be a record that can be read",
            got=f"one that cannot ({reason})",
            remedy="give the --out folder of a `promptlimits bracket` that has ended",
        ) from error
    record = read_record(document)
    _require_whole(record, directory)
    if plot is not None:
        from promptlimits.report.figures.pairs_held import PairsHeld

        write_whole("--plot", plot, PairsHeld(record).svg())
    show(record, directory, as_json=as_json)


def _require_whole(record: Record, directory: Path) -> None:
    """A page must not show a floor beside files that are no longer its own."""
    from promptlimits.capacity.record import is_whole

    if not is_whole(record, directory):
        raise UserError(
            str(directory),
            "hold the witnesses and certificates that its bracket.json speaks of",
            got="other ones, or none",
            remedy="run its bracket command again: it is quick. Or use a folder for each command",
        )
