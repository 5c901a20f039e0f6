"""How a training run ended, with a remedy for each ending.

Expected failures of training are values, not exceptions.
"""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """How a training run ended."""

    SOLVED = "solved"
    STALLED = "stalled"
    OUT_OF_STEPS = "out_of_steps"
    OUT_OF_BUDGET = "out_of_budget"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"
    OVERTAKEN = "overtaken"

    def remedy_for(self, units: str) -> str:
        """What to do about it, for a run that was to hold so many `units`."""
        return _REMEDIES[self].format(units=units)

    @property
    def final(self) -> bool:
        """Whether a later command would find nothing left to do in this run."""
        return self not in (Outcome.INTERRUPTED, Outcome.OUT_OF_BUDGET)


_REMEDIES = {
    Outcome.SOLVED: "nothing to do: every answer is exact",
    Outcome.STALLED: "use fewer {units}, more prompt tokens, or more starts",
    Outcome.OUT_OF_STEPS: "raise --max-steps, or use fewer {units} or more prompt tokens",
    Outcome.OUT_OF_BUDGET: "raise --budget or --steps: the command goes on where it stopped",
    Outcome.DIVERGED: "lower --learning-rate",
    Outcome.OVERTAKEN: "nothing to do: another start was solved first",
    Outcome.INTERRUPTED: "run the same command again: it goes on where it stopped",
}
