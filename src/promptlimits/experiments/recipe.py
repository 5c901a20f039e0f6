"""A recipe: a claim of a paper as an experiment that one command runs.

    spec -> cells -> records in the store -> summary -> findings, drawings

A recipe is one module of `recipes` with a `RECIPE`, entered once in `recipes.RECIPES`. The module's
docstring says the claim, what holds, what would refute it, and what it costs. Its parts:

- a *spec*, a frozen dataclass with the sizes, seeds and steps; `cells()` gives its grid;
- `measure`, from a cell to a record of counts and numbers, in bounded steps, nothing else;
- `summary`, statistics of the records; `findings`, what they say of the claim, each number as
  proved, found or estimated; `drawings`, what is drawn of them.

torch is imported inside `measure`: a list of the recipes, and a summary of what is stored, do
without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Generic, Literal, Protocol, TypeAlias, TypeVar

from promptlimits.base.files import JsonObject, replace_file, write_json
from promptlimits.capacity.store.provenance import provenance
from promptlimits.capacity.store.sqlite import Store
from promptlimits.experiments.execute import Done, Pool, Progress, Work, execute
from promptlimits.record.experiment import Experiment, Figure, Findings
from promptlimits.report.figures.plain_svg import Drawing

Cell = TypeVar("Cell")
Cell_co = TypeVar("Cell_co", covariant=True)
Summary = TypeVar("Summary")
Size: TypeAlias = Literal["quick", "full"]
FORMS: Final = ("svg", "pdf", "png")


class Spec(Protocol[Cell_co]):
    """What is varied: a frozen dataclass of plain values."""

    def cells(self) -> Sequence[Cell_co]:
        """The grid."""
        ...


@dataclass(frozen=True, kw_only=True)
class Recipe(Generic[Cell, Summary]):
    """One claim."""

    name: str
    claim: str  # in a sentence
    paper: str  # where it stands
    published: str  # as it is printed
    holds: str  # what of it is proved
    varied: str
    specs: Mapping[Size, Spec[Cell]]
    seconds: Mapping[Size, int]  # processor seconds, about, with nothing stored
    work: Work[Cell]
    summary: Callable[[Sequence[Done[Cell]]], Summary]
    findings: Callable[[Summary], Findings]
    drawings: Callable[[Summary], Mapping[str, Drawing]]


def run(
    recipe: Recipe[Any, Any],
    size: Size,
    *,
    store: Store,
    pool: Pool,
    progress: Progress,
    command: str,
) -> tuple[Experiment, Mapping[str, Drawing]]:
    """Compute what is missing, and say what all of it says.

    Args:
        recipe: The recipe.
        size: Which of its specs.
        store: Where cells are kept.
        pool: Where they are computed.
        progress: Told of each cell.
        command: How a person does the same again.

    Returns:
        The record, and its drawings by the names of their files.
    """
    spec: Any = recipe.specs[size]
    facts: JsonObject = dict(provenance())
    done = execute(
        recipe.work, spec.cells(), store=store, pool=pool, progress=progress, facts=facts
    )
    summary = recipe.summary(done)
    drawings = {f"{recipe.name}-{part}": d for part, d in recipe.drawings(summary).items()}
    record = Experiment(
        **vars(recipe.findings(summary)),
        **{name: getattr(recipe, name) for name in _TEXTS},
        spec={"size": size, **asdict(spec)},
        cells=tuple(each.to_json() for each in done),
        figures=tuple(
            Figure(file=file, title=drawing.title, description=drawing.description)
            for file, drawing in drawings.items()
        ),
        command=command,
        provenance=facts,
    )
    return record, drawings


_TEXTS: Final = ("name", "claim", "paper", "published", "holds", "varied")


def write(record: Experiment, drawings: Mapping[str, Drawing], folder: Path) -> None:
    """Write the record and its drawings into a folder."""
    write_figures(drawings, folder)
    write_json(folder / f"{record.name}.json", record.to_json())


def write_figures(drawings: Mapping[str, Drawing], folder: Path) -> None:
    """Write each drawing as SVG, PDF and PNG."""
    for file, drawing in drawings.items():
        for form in FORMS:
            replace_file(folder / f"{file}.{form}", drawing.file(form))
