"""What a command may use: seconds, training steps, or both, over all its resumptions.

Seconds depend on the machine, steps do not: under a budget of steps alone, the same command ends
with the same result everywhere. A step is one step of one prompt; two prompts that are trained
side by side use two.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from promptlimits.capacity.store.provenance import spec_hash
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.train.problem import Outcome
from promptlimits.record.parts import Seconds

STAGES = tuple(Seconds.model_fields)
"""What seconds are counted for; what belongs to nothing else comes last."""


@dataclass(kw_only=True)
class StepCount:
    """Training steps of a command so far, those of earlier calls included as they are met again."""

    total: int = 0  # how many

    def add(self, steps: int) -> None:
        """Count so many more."""
        self.total += steps


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Seconds and training steps from a moment on."""

    seconds: float = math.inf  # time allowed; infinite for no limit
    steps: float = math.inf  # training steps allowed; infinite for no limit
    # The command's steps, shared by every part of its budget.
    count: StepCount = field(default_factory=StepCount)
    # Moment of the monotonic clock that it counts from.
    began: float = field(default_factory=time.monotonic)
    steps_before: int = 0  # the command's steps at that moment

    @property
    def elapsed_seconds(self) -> float:
        """Time since it began."""
        return time.monotonic() - self.began

    @property
    def ends(self) -> float:
        """Moment of the monotonic clock at which the seconds are used up; infinite for never."""
        return self.began + self.seconds

    @property
    def left_seconds(self) -> float:
        """Time left; negative once it has passed."""
        return self.seconds - self.elapsed_seconds

    @property
    def left_steps(self) -> float:
        """Steps left; negative where side by side more were done."""
        return self.steps - (self.count.total - self.steps_before)

    def should_stop(self) -> Outcome | None:
        """`OUT_OF_BUDGET` once either is used up: what training asks before every step."""
        used_up = self.left_seconds <= 0 or self.left_steps <= 0
        return Outcome.OUT_OF_BUDGET if used_up else None

    def time_is_up(self) -> Outcome | None:
        """`OUT_OF_BUDGET` once the seconds are used up: for work that takes no training steps."""
        return Outcome.OUT_OF_BUDGET if self.left_seconds <= 0 else None

    def part(self, share: float, *, keep_seconds: float = 0.0) -> Budget:
        """A share of what is left, after `keep_seconds` are set aside."""
        return self._from_now(share * (self.left_seconds - keep_seconds), share * self.left_steps)

    def at_most(self, share: float) -> Budget:
        """A share of the whole of it, or what is left where that is less."""
        return self._from_now(
            min(share * self.seconds, self.left_seconds), min(share * self.steps, self.left_steps)
        )

    def _from_now(self, seconds: float, steps: float) -> Budget:
        return Budget(
            seconds=max(0.0, seconds),
            # Whole steps, at least one while any are left.
            steps=math.ceil(steps) if 0 < steps < math.inf else max(0.0, steps),
            count=self.count,
            steps_before=self.count.total,
        )


class UsedTime:
    """The seconds of a command by stage, counted in its store over all calls.

    Those of a stage stand under the hash of the work and the stage's name; seconds that belong to
    no other stage are the rest.
    """

    def __init__(self, store: Store, work: str) -> None:
        self._store = store
        self._works = {stage: spec_hash({"work": work, "stage": stage}) for stage in STAGES}
        self._stage = STAGES[-1]
        self._committed = time.monotonic()
        self.before_seconds = sum(self.by_stage().values())

    def by_stage(self) -> dict[str, float]:
        """What was counted so far."""
        return {stage: self._store.seconds(work) for stage, work in self._works.items()}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what the block takes for a stage; within it another one may take its own."""
        self.commit()
        outer, self._stage = self._stage, name
        try:
            yield
            self.commit()
        finally:
            self._stage = outer

    def stepped(self, _report: object = None) -> None:
        """Count the time so far once a second: a kill loses no more, and a step writes less."""
        if time.monotonic() - self._committed >= 1:
            self.commit()

    def commit(self) -> None:
        """Count the time since the last call."""
        now = time.monotonic()
        self._store.add_seconds(self._works[self._stage], now - self._committed)
        self._committed = now
