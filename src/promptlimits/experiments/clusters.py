"""Cells on other machines: a pool on Ray and one on Slurm, each an extra.

As with local workers the driver alone writes the store, so no machine shares a file of the store,
and a worker that is lost costs its cells' time: they are given out again. On Ray a cell is a task;
Ray itself tries it again where its worker died. On Slurm the cells are one array of jobs; submitit
carries them through files of a folder that all machines see.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from promptlimits.base.errors import UserError
from promptlimits.base.files import JsonObject
from promptlimits.experiments.execute import Answer
from promptlimits.experiments.workers import (
    MOST_DEATHS,
    ONE_THREAD,
    Failure,
    answered,
    deadly,
    opened,
)

LOCAL: Final = "local"
"""Instead of an address: a Ray of this machine, or jobs of it in place of Slurm's."""
_POLL_SECONDS: Final = 0.5


class RayWorkers:
    """A pool on Ray.

    Args:
        address: Of a running cluster, "auto" for the one of this machine, or "local" to start one.
        count: Cores of a cluster that is started here.

    Raises:
        UserError: Ray is not installed.
    """

    def __init__(self, address: str, count: int) -> None:
        self._ray = _imported("ray", "--ray", "ray>=2.50,<3")
        self._address, self._count = address, count

    def answers(
        self, measure: Callable[[Any], JsonObject], cells: Sequence[Any]
    ) -> Iterator[Answer]:
        """The answer to each cell, in the order in which they come.

        Raises:
            RunFailed: A cell failed, or its workers died again and again.
        """
        ray = self._ray
        where = {"num_cpus": self._count} if self._address == LOCAL else {"address": self._address}
        ray.init(
            **where,
            include_dashboard=False if self._address == LOCAL else None,
            log_to_driver=False,
            runtime_env={"env_vars": ONE_THREAD},
        )
        try:
            task = ray.remote(num_cpus=1, max_retries=MOST_DEATHS - 1)(answered)
            waiting = {task.remote(measure, i, cell): cell for i, cell in enumerate(cells)}
            while waiting:
                for ready in ray.wait(list(waiting), num_returns=1)[0]:
                    yield self._got(ready, waiting.pop(ready))
        finally:
            ray.shutdown()

    def _got(self, ready: Any, cell: Any) -> Answer:
        errors = self._ray.exceptions
        try:
            said: Answer | Failure = self._ray.get(ready)
        except (errors.WorkerCrashedError, errors.OutOfMemoryError) as error:
            raise deadly(cell) from error
        return opened(said)


class SlurmWorkers:
    """A pool of Slurm jobs, through submitit.

    Args:
        folder: Where submitit keeps what jobs are given and give back; all machines see it.
        cluster: "slurm", or "local" for processes of this machine.
        count: Jobs at once.
        minutes: After which Slurm ends a job.

    Raises:
        UserError: submitit is not installed.
    """

    def __init__(self, folder: Path, *, cluster: str, count: int, minutes: int = 240) -> None:
        self._submitit = _imported("submitit", "--slurm", "submitit>=1.5,<2")
        self._executor = self._submitit.AutoExecutor(folder=folder, cluster=cluster)
        self._executor.update_parameters(timeout_min=minutes, cpus_per_task=1)
        if cluster != LOCAL:
            exports = [f"export {name}={value}" for name, value in ONE_THREAD.items()]
            self._executor.update_parameters(
                slurm_array_parallelism=count, slurm_setup=exports, name="promptlimits"
            )

    def answers(
        self, measure: Callable[[Any], JsonObject], cells: Sequence[Any]
    ) -> Iterator[Answer]:
        """The answer to each cell, in the order in which they come.

        Raises:
            RunFailed: A cell failed, or its jobs died again and again.
        """
        deaths: Counter[int] = Counter()
        jobs = self._submitted(measure, cells, range(len(cells)))
        try:
            while jobs:
                for place, job in list(jobs.items()):
                    if not job.done():
                        continue
                    del jobs[place]
                    said = self._said(job)
                    if said is not None:
                        yield opened(said)
                        continue
                    deaths[place] += 1
                    if deaths[place] == MOST_DEATHS:
                        raise deadly(cells[place])
                    jobs |= self._submitted(measure, cells, [place])
                time.sleep(_POLL_SECONDS if jobs else 0)
        finally:
            for job in jobs.values():
                job.cancel()

    def _submitted(
        self, measure: Callable[[Any], JsonObject], cells: Sequence[Any], places: Sequence[int]
    ) -> dict[int, Any]:
        with self._executor.batch():
            jobs = [self._executor.submit(answered, measure, i, cells[i]) for i in places]
        return dict(zip(places, jobs, strict=True))

    def _said(self, job: Any) -> Answer | Failure | None:
        """What a job that has ended gives back; None if it was lost."""
        errors = self._submitit.core.utils
        try:
            said: Answer | Failure = job.result()
        except errors.FailedJobError as error:  # before the cell began: its words are elsewhere
            raise RuntimeError(str(error)) from error
        except errors.UncompletedJobError:
            return None
        return said


def _imported(name: str, option: str, wanted: str) -> Any:
    """A library of an extra."""
    try:
        return __import__(name)
    except ImportError as error:
        raise UserError(
            option,
            f"be used where {name} is installed",
            got="a Python without it",
            remedy=f"run {sys.executable} -m pip install '{wanted}'",
        ) from error
