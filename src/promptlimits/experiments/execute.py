"""Cells of an experiment: computed by other processes, kept in a store, never computed twice.

A *cell* is a frozen dataclass of plain values. It is computed by a pure function, in a number of
steps that the cell itself fixes, so that a slow machine gives the same record later. The store
keeps the record under the cell: whatever is killed, at any moment, the same command goes on from
the cells that are there, and a grid that has grown computes its new cells alone.

Only the driver writes the store. A worker that dies costs the cell it was at, which is given to
another one; a cell that ends three workers ends the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, Protocol, TypeVar

from promptlimits.base.files import JsonObject
from promptlimits.capacity.store.sqlite import Store

KIND = "cell"
Cell = TypeVar("Cell")


@dataclass(frozen=True, kw_only=True)
class Done(Generic[Cell]):
    """A cell and its record."""

    cell: Cell
    record: dict[str, Any]

    def to_json(self) -> JsonObject:
        """Both in one object."""
        return {**_plain(self.cell), **self.record}


@dataclass(frozen=True, kw_only=True)
class Work(Generic[Cell]):
    """What is done with each cell."""

    name: str
    # Raised when the function changes so that an old cell would come out otherwise.
    engine: int
    # Of a module, so that another process finds it by its name.
    measure: Callable[[Cell], JsonObject]

    def key(self, cell: Cell) -> JsonObject:
        """Under what the store keeps a cell."""
        return {"experiment": self.name, "engine": self.engine, "cell": _plain(cell)}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a worker gives back."""

    place: int  # which of the cells that it was given
    record: JsonObject
    seconds: float  # processor time


class Pool(Protocol):
    """Where cells are computed."""

    def answers(
        self, measure: Callable[[Any], JsonObject], cells: Sequence[Any]
    ) -> Iterator[Answer]:
        """The answer to each cell, in the order in which they come."""
        ...


class Progress(Protocol):
    """Who is told how it goes."""

    def stage(self, text: str, total: int | None = None) -> None:
        """A new stage has begun."""
        ...

    def advanced(self, done: int) -> None:
        """So many of its parts are done."""
        ...

    def ends_at(self, moment: float) -> None:
        """When the stage will be done, by the monotonic clock."""
        ...


class Here:
    """A pool without processes: one cell after the other, in this one."""

    def answers(
        self, measure: Callable[[Any], JsonObject], cells: Sequence[Any]
    ) -> Iterator[Answer]:
        """The answers in order."""
        return (answer(measure, place, cell) for place, cell in enumerate(cells))


def answer(measure: Callable[[Any], JsonObject], place: int, cell: Any) -> Answer:
    """Compute one cell in this process."""
    began = time.process_time()
    record = measure(cell)
    return Answer(place=place, record=record, seconds=time.process_time() - began)


def execute(
    work: Work[Cell],
    cells: Iterable[Cell],
    *,
    store: Store,
    pool: Pool,
    progress: Progress,
    facts: JsonObject,
) -> tuple[Done[Cell], ...]:
    """Compute the cells that the store does not have.

    Args:
        work: The function and its name.
        cells: The grid; cells that are equal are one.
        store: Where records are.
        pool: Where the function runs.
        progress: Told of each cell.
        facts: Versions, kept with each new record.

    Returns:
        The cells in their order, with their records.
    """
    grid = tuple(dict.fromkeys(cells))
    missing = [cell for cell in grid if store.get(KIND, work.key(cell)) is None]
    if missing:
        done, began = len(grid) - len(missing), time.monotonic()
        progress.stage(f"{work.name}: cells", total=len(grid))
        progress.advanced(done)
        for new, each in enumerate(pool.answers(work.measure, missing), 1):
            payload: JsonObject = {"record": each.record, "seconds": each.seconds, "facts": facts}
            store.put(KIND, work.key(missing[each.place]), payload)
            now = time.monotonic()
            progress.ends_at(now + (now - began) / new * (len(missing) - new))
            progress.advanced(done + new)
        progress.ends_at(float("inf"))
    return tuple(Done(cell=cell, record=_kept(work, cell, store)["record"]) for cell in grid)


def _kept(work: Work[Cell], cell: Cell, store: Store) -> dict[str, Any]:
    kept = store.get(KIND, work.key(cell))
    if kept is None:
        raise KeyError(cell)
    return kept


def _plain(cell: Any) -> JsonObject:
    return asdict(cell)
