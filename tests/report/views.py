"""The views of a record, from its JSON: each reads it first, as the commands do."""

import io

from rich.console import Console

from promptlimits.record.record import read_record
from promptlimits.report import html, tables
from promptlimits.report.figures.pairs_held import PairsHeld


def parsed(document):
    return read_record(document)


def render(document):
    return html.render(read_record(document))


def write_report(document, directory):
    return html.write_report(read_record(document), directory)


def data(document):
    return PairsHeld(read_record(document))


def summary_lines(document):
    return tables.summary_lines(read_record(document))


def printed(document, *, width=80, encoding="utf-8", color=False):
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
