"""A budget of seconds for one command, over all its resumptions."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from promptlimits.tuning.outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """A moment at which work has to stop.

    Attributes:
        budget_seconds: Time allowed from now on; infinite for no limit.
        began: Moment of the monotonic clock that it counts from.
    """

    budget_seconds: float
    began: float = field(default_factory=time.monotonic)

    @property
    def elapsed_seconds(self) -> float:
        """Time since it began."""
        return time.monotonic() - self.began

    @property
    def left_seconds(self) -> float:
        """Time left; negative once it has passed."""
        return self.budget_seconds - self.elapsed_seconds

    def should_stop(self) -> Outcome | None:
        """`OUT_OF_TIME` once it has passed: what `promptlimits.tuning.loop.train` asks."""
        return Outcome.OUT_OF_TIME if self.left_seconds <= 0 else None

    def part(self, share: float, *, keep_seconds: float = 0.0) -> Deadline:
        """A deadline for a share of the time left, after `keep_seconds` are set aside."""
        return Deadline(budget_seconds=max(0.0, share * (self.left_seconds - keep_seconds)))
