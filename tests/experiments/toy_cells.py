"""Cells that need no network, for workers: they find these functions by their names."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from promptlimits.base.errors import UserError
from promptlimits.experiments.clusters import RayWorkers
from promptlimits.experiments.execute import Work, execute
from promptlimits.experiments.workers import LocalWorkers


@dataclass(frozen=True, kw_only=True)
class Toy:
    number: int
    seconds: float = 0.0
    marker: str = ""  # a file: the worker that finds none makes it and dies


def square(cell):
    time.sleep(cell.seconds)
    if cell.number < 0:
        raise UserError("the number", "be 0 or more", got=cell.number, remedy="give another")
    if cell.marker and not Path(cell.marker).exists():
        Path(cell.marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"square": cell.number**2}


def deadly(cell):
    if cell.number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return {}


def threads(cell):
    return {"threads": os.environ["OMP_NUM_THREADS"], "pid": os.getpid()}


class Silent:
    """A `Progress` that keeps what it is told."""

    def __init__(self):
        self.done = []

    def stage(self, text, total=None):
        self.total = total

    def advanced(self, done):
        self.done.append(done)

    def ends_at(self, moment):
        self.moment = moment


def toy_work(measure=square):
    return Work(name="toy", engine=1, measure=measure)


def grid(count, **fields):
    return [Toy(number=number, **fields) for number in range(count)]


def pool_of(kind):
    """Two workers of this machine, or on a Ray of it."""
    return RayWorkers("local", 2) if kind == "ray" else LocalWorkers(2)


def drive(path, count, kind="local"):
    """What a driver does: a grid with two workers."""
    from promptlimits.capacity.store.sqlite import Store

    with Store.open(Path(path)) as store:
        return execute(
            toy_work(), grid(count, seconds=0.03), store=store, pool=pool_of(kind),
            progress=Silent(), facts={},
        )  # fmt: skip


if __name__ == "__main__":
    drive(sys.argv[1], int(sys.argv[2]), sys.argv[3])
