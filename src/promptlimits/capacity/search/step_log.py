"""Steps of runs on their way to the store: every few seconds, those of all runs together.

A curve has every step. The state to resume from is copied from the device only when it is written.
A kill loses what was not written yet: the runs go on from their last stored states, where their
curves end. All runs are written in one transaction, so that none of a race gets ahead of another.
"""

from __future__ import annotations

import time
from typing import Final

from promptlimits.base.files import JsonObject
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.train.problem import StateNow

WRITE_SECONDS: Final = 2.0
"""Most training that a kill loses, but for the step that it hits."""


class StepLog:
    """What runs have done since it was last written.

    `with` writes what is left at the end, however that comes.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._written = time.monotonic()
        self._steps: dict[int, list[tuple[int, JsonObject]]] = {}
        self._states: dict[int, tuple[int, StateNow]] = {}

    def __enter__(self) -> StepLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.write()

    def add(self, run_id: int, *, step: int, metrics: JsonObject, state: StateNow) -> None:
        """Note a step and the state after it, and write all of them if it is time to."""
        self._steps.setdefault(run_id, []).append((step, metrics))
        self._states[run_id] = step, state
        if time.monotonic() - self._written >= WRITE_SECONDS:
            self.write()

    def write(self) -> None:
        """Put everything noted into the store.

        Ctrl-C may come between any two lines, and this is called again: a step that was noted
        without its state is left to be done again, one that the store has is not written twice.
        """
        if not self._states:
            return
        with self._store.together():
            for run_id, (step, state) in self._states.items():
                stored = self._store.run(run_id).steps
                new = [row for row in self._steps[run_id] if stored < row[0] <= step]
                if not new:
                    continue
                *before, (_, metrics) = new
                self._store.record_step(
                    run_id, step=step, metrics=metrics, state=state().to_bytes(), before=before
                )
        self._written = time.monotonic()
        self._states, self._steps = {}, {}
