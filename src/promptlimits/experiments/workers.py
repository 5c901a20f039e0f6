"""Local processes that compute cells, one thread each.

A pool of the standard library gives every cell up when one of its processes is killed. Here each
worker has a pipe of its own: where it ends, that worker is dead, and its cell goes to a new one.
Workers hear nothing of Ctrl-C, which is for the driver; it ends them. When the driver is killed,
they read the end of their pipes and leave after the cell they are at.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Final

from promptlimits.base.errors import PromptLimitsError, RunFailed, require_positive_int
from promptlimits.base.files import JsonObject
from promptlimits.experiments.execute import Answer, answer

MOST_DEATHS: Final = 3
"""Workers that one cell may end: it is the cell then, not chance."""
ONE_THREAD: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""Numerical libraries read the number of their threads when they are loaded."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What a cell raised."""

    words: str
    expected: bool  # whether it is an error for people


@dataclass(kw_only=True, eq=False)
class _Worker:
    process: BaseProcess
    pipe: Connection
    place: int | None = None  # of the cell that it is at


class LocalWorkers:
    """A pool of processes of this machine.

    Args:
        count: How many.

    Raises:
        UserError: The count is not 1 or more.
    """

    def __init__(self, count: int) -> None:
        self._count = require_positive_int("--workers", count)

    def answers(
        self, measure: Callable[[Any], JsonObject], cells: Sequence[Any]
    ) -> Iterator[Answer]:
        """The answer to each cell, in the order in which they come.

        Raises:
            RunFailed: A cell failed, or ended three workers.
        """
        waiting, deaths = deque(range(len(cells))), Counter[int]()
        workers: list[_Worker] = []
        try:
            while waiting or any(worker.place is not None for worker in workers):
                while waiting and len(workers) < self._count:
                    workers.append(_start(measure))
                for worker in workers:
                    if waiting and worker.place is None:
                        worker.place = waiting.popleft()
                        with suppress(OSError):  # it is dead: its pipe says so below
                            worker.pipe.send((worker.place, cells[worker.place]))
                for worker in _heard(workers):
                    given = _received(worker)
                    if given is None:
                        _end(workers.pop(workers.index(worker)))
                        _count_death(worker.place, cells, waiting, deaths)
                        continue
                    worker.place = None
                    yield given
        finally:
            for worker in workers:
                _end(worker)


def _heard(workers: Sequence[_Worker]) -> list[_Worker]:
    ready = wait([worker.pipe for worker in workers])
    return [worker for worker in workers if worker.pipe in ready]


def _received(worker: _Worker) -> Answer | None:
    """What a worker says; None if it is dead."""
    try:
        said = worker.pipe.recv()
    except (EOFError, OSError):
        return None
    return opened(said)


def opened(said: Answer | Failure) -> Answer:
    """The answer, or what the cell raised."""
    if isinstance(said, Answer):
        return said
    if said.expected:
        raise RunFailed(said.words, remedy="cells that are done are kept; mend it and run again")
    raise RuntimeError(said.words)


def _count_death(
    place: int | None, cells: Sequence[Any], waiting: deque[int], deaths: Counter[int]
) -> None:
    if place is None:
        return
    deaths[place] += 1
    if deaths[place] == MOST_DEATHS:
        raise deadly(cells[place])
    waiting.appendleft(place)


def deadly(cell: Any) -> RunFailed:
    """What is said of a cell that ends every worker."""
    return RunFailed(
        f"the cell {cell} ended {MOST_DEATHS} workers",
        remedy="see whether the memory suffices, or give fewer --workers; cells that are done "
        "are kept",
    )


def _start(measure: Callable[[Any], JsonObject]) -> _Worker:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs, measure), daemon=True)
    with _one_thread():
        process.start()
    theirs.close()  # else the pipe would never end
    return _Worker(process=process, pipe=ours)


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()


@contextmanager
def _one_thread() -> Iterator[None]:
    """The environment in which a worker is started."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe: Connection, measure: Callable[[Any], JsonObject]) -> None:
    """A worker: cells in, answers out, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, OSError):
        while True:
            place, cell = pipe.recv()
            pipe.send(answered(measure, place, cell))


def answered(measure: Callable[[Any], JsonObject], place: int, cell: Any) -> Answer | Failure:
    """Compute a cell where its errors must travel: as values."""
    try:
        return answer(measure, place, cell)
    except PromptLimitsError as error:
        return Failure(words=f"the cell {cell} failed: {error}", expected=True)
    except Exception:  # noqa: BLE001 - it is raised again where somebody reads it
        return Failure(words=f"the cell {cell}: {traceback.format_exc()}", expected=False)
