"""`promptlimits reproduce`: the papers, claim by claim."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from promptlimits.base.errors import UserError, command
from promptlimits.cli import options
from promptlimits.cli.experiments.pools import Where
from promptlimits.cli.output import show
from promptlimits.cli.product.session import store_path

if TYPE_CHECKING:
    from promptlimits.experiments.recipe import Recipe, Size
    from promptlimits.record.experiment import Experiment

ALL: Final = "all"


@options.with_groups
def reproduce(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="An experiment, or all; without one, a list."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="The small grid: seconds to minutes. The default.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="The grid that a paper prints.")] = False,
    out: options.Out = Path("runs/reproduce"),
    where: Where = Where(),
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Run the papers' claims as experiments.

    Each ends with a verdict: the claim as published, what of it holds, what was measured with its
    interval, and figures as SVG, PDF and PNG. What was computed is kept: stop it whenever you
    like, the same command goes on. `all` runs every experiment and writes papers.html.

    Example: promptlimits reproduce scaling --quick --out runs/papers
    """
    from promptlimits.experiments.recipes import RECIPES, recipe

    if quick and full:
        raise UserError("the grid", "be one", got="--quick and --full", remedy="drop one")
    if name is None:
        show(list(map(_listed, RECIPES.values())), _list_lines(RECIPES.values()), as_json=as_json)
        return
    chosen = list(RECIPES.values()) if name == ALL else [recipe(name)]
    options.require_folder(out)
    size: Size = "full" if full else "quick"
    records = list(_run(chosen, size, out, where, quiet))
    if name == ALL:
        from promptlimits.report.papers import write_papers

        page = write_papers(records, out)
        lines = [*_joined(records, out), f"Page: {page}"]
        show([each.to_json() for each in records], lines, as_json=as_json)
        return
    show(records[0].to_json(), _joined(records, out), as_json=as_json)


def _run(
    chosen: list[Recipe[Any, Any]], size: Size, out: Path, where: Where, quiet: bool
) -> Iterator[Experiment]:
    from promptlimits.capacity.store.sqlite import Store
    from promptlimits.cli.live import LiveListener
    from promptlimits.experiments.recipe import run, write

    pool = where.pool(out)
    with LiveListener(quiet=quiet) as listener, Store.open(store_path(out)) as store:
        for each in chosen:
            words = command(["promptlimits", "reproduce", each.name, f"--{size}"])
            record, drawings = run(
                each, size, store=store, pool=pool, progress=listener, command=words
            )
            write(record, drawings, out)
            yield record


def _listed(recipe: Recipe[Any, Any]) -> dict[str, object]:
    return {
        "name": recipe.name,
        "claim": recipe.claim,
        "paper": recipe.paper,
        "quick_seconds": recipe.seconds["quick"],
        "full_seconds": recipe.seconds["full"],
        "varied": recipe.varied,
    }


def _list_lines(recipes: Any) -> Iterator[str]:
    for recipe in recipes:
        yield f"{recipe.name}: {recipe.claim}"
        yield f"  {recipe.paper}; varied: {recipe.varied}"
        quick, full = recipe.seconds["quick"], recipe.seconds["full"]
        yield f"  --quick {_time(quick)}, --full {_time(full)} of one core"
    yield "Run one: promptlimits reproduce NAME --out runs/papers"


def _time(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _joined(records: list[Experiment], out: Path) -> Iterator[str]:
    for record in records:
        yield from _lines(record, out)


def _lines(record: Experiment, out: Path) -> Iterator[str]:
    yield f"{record.name}: {record.paper}"
    yield f"Published: {record.published}"
    yield f"Holds:     {record.holds}"
    yield f"Measured:  {record.measured.name}: {record.measured.in_words}"
    yield "Proved"
    yield from (f"  {one.name}: {one.direction} {one.value:.6g}" for one in record.proved)
    yield "Found"
    yield from (f"  {one.name}: {one.count:,} of {one.of:,}" for one in record.found)
    yield "Estimated (95% intervals)"
    yield from (f"  {one.name}: {one.in_words}" for one in record.estimated)
    if record.control is not None:
        control = record.control
        yield (
            f"Control: {control.name}, {control.solved:,} of {control.of:,} solved, "
            f"{control.least:.3f} where fewest"
        )
    yield from (f"Not measured: {one.name}: {one.why}" for one in record.not_measured)
    yield f"Verdict:   {record.verdict}"
    yield from (f"Figure:    {out / each.file}.svg, .pdf, .png" for each in record.figures)
    yield f"Record:    {out / record.name}.json"
