"""`promptlimits sweep`: a grid of the user's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from promptlimits.base.files import write_json
from promptlimits.cli import options
from promptlimits.cli.experiments.pools import Where
from promptlimits.cli.output import require_writable, show
from promptlimits.cli.product.session import command_line, store_path

if TYPE_CHECKING:
    from promptlimits.base.files import JsonObject
    from promptlimits.experiments.sweep import Measured
    from promptlimits.record.experiment import Estimated

RECORD: Final = "sweep.json"


@options.with_groups
def sweep(
    grid: Annotated[Path, typer.Argument(metavar="GRID.toml", help="What is varied.")],
    out: options.Out = Path("runs/sweep"),
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="FILE", help="Write the cells, as .csv or .parquet."),
    ] = None,
    where: Where = Where(),
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Train prompts over a grid of models, lists, kinds, lengths, sizes and seeds.

    GRID.toml has lists `models`, `pairs` (as `--pairs` of `fit`), `kinds` (soft, prefix),
    `prompt_tokens` and `sizes`, and numbers `seeds` and `steps`; if wanted `starts` (1),
    `learning_rate` (1), `dtype` (float32) and `control` (true). Each cell is kept: stop it
    whenever you like, or add to the grid; only what is missing is computed.

    Example: promptlimits sweep grid.toml --out runs/sweep --export cells.csv
    """
    from promptlimits.capacity.store.provenance import provenance
    from promptlimits.capacity.store.sqlite import Store
    from promptlimits.cli.live import LiveListener
    from promptlimits.experiments import sweep as instrument
    from promptlimits.experiments.execute import execute
    from promptlimits.experiments.export import export as write_export
    from promptlimits.experiments.export import require_exportable
    from promptlimits.experiments.recipe import write_figures

    asked = instrument.read_grid(grid)
    if export is not None:
        require_exportable(export)
        require_writable("--export", export)
    options.require_folder(out)
    facts: JsonObject = dict(provenance())
    with LiveListener(quiet=quiet) as listener, Store.open(store_path(out)) as store:
        done = execute(
            instrument.WORK,
            asked.cells(),
            store=store,
            pool=where.pool(out),
            progress=listener,
            facts=facts,
        )
    measured = instrument.curves(done)
    slopes, drawn = instrument.slopes(measured), instrument.drawings(measured)
    rows = [each.to_json() for each in done]
    record: JsonObject = {
        "schema_version": 1,
        "grid": asked.to_json(),
        "curves": [each.to_json() for each in measured],
        "slopes": [each.to_json() for each in slopes],
        "cells": [*rows],
        "figures": list(drawn),
        "command": command_line(),
        "provenance": facts,
    }
    write_figures(drawn, out)
    write_json(out / RECORD, record)
    if export is not None:
        write_export(export, rows)
    show(record, _lines(measured, slopes, out, list(drawn)), as_json=as_json)


def _lines(
    measured: Sequence[Measured], slopes: Sequence[Estimated], out: Path, figures: list[str]
) -> Iterator[str]:
    for each in measured:
        curve = each.success
        yield each.name
        yield from (
            f"  {size} pairs: {count} of {curve.problems} lists held in training, share "
            f"{share.in_words}"
            for size, count, share in zip(curve.sizes, curve.counts, curve.shares, strict=True)
        )
        yield f"  k50 (estimated): {curve.k50.in_words}"
        if each.control is not None:
            control = each.control
            yield f"  planted control: {control.solved} of {control.of}, {control.share.in_words}"
    yield from (f"{slope.name} (estimated): {slope.in_words}" for slope in slopes)
    yield from (f"Figure: {out / name}.svg, .pdf, .png" for name in figures)
    yield f"Record: {out / RECORD}"
