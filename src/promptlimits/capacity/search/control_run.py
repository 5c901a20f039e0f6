"""The planted control within its share of a command's budget, and what one is told of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from promptlimits.capacity.search.attempt import Attempt, Workplace
from promptlimits.capacity.search.budget import Budget
from promptlimits.capacity.search.control import Control, NoControl, control_size, run_control
from promptlimits.capacity.search.request import Listener
from promptlimits.capacity.search.search import SearchResult
from promptlimits.capacity.task.beginnings import unit_of
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.outcome import Outcome
from promptlimits.capacity.train.problem import StepReport
from promptlimits.nets.protocol import EncodedPair

CONTROL_SHARE: Final = 0.15
"""Share of the budget of a search and its control that the control may take."""


class SearchBudget:
    """The budget of a search: all there is, less the control's share once a control can run.

    A search in which no size failed has nothing to control (`control_size`), so it takes the
    control's share as well. From the moment that one has failed, the share is kept for the control.

    Args:
        budget: For search and control together.
        control: Whether a control was asked for.
        starts: Attempts after which a size has failed.
    """

    def __init__(self, budget: Budget, *, control: bool, starts: int) -> None:
        self._until = self._whole = budget
        self._less = budget.part(1 - CONTROL_SHARE) if control else budget
        self._starts = starts
        self._solved = 0
        self._unsolved: Counter[int] = Counter()

    def note(self, ended: Attempt) -> None:
        """Take account of an attempt."""
        if ended.outcome is Outcome.SOLVED:
            self._solved = max(self._solved, ended.pairs)
        elif ended.outcome.final:
            self._unsolved[ended.pairs] += 1
        failed = [size for size, count in self._unsolved.items() if count >= self._starts]
        controllable = max(failed, default=0) > self._solved
        self._until = self._less if controllable else self._whole

    def should_stop(self) -> Outcome | None:
        """`OUT_OF_BUDGET` once it is used up."""
        return self._until.should_stop()


def control_within(
    budget: Budget,
    place: Workplace,
    pairs: Sequence[EncodedPair],
    config: TrainingConfig,
    result: SearchResult,
    *,
    stage: str,
    listener: Listener,
) -> Control | NoControl | None:
    """Run the control of a search in its share of the budget, with progress."""
    size = control_size(result)
    if size is not None:
        listener.stage(stage, size)

    def stepped(report: StepReport) -> None:
        place.on_step(report)
        # Not listener.step: what is recovered here is not found.
        if report.best_exact:
            listener.advanced(report.best_exact)

    control = run_control(
        replace(place, on_step=stepped),
        pairs,
        config,
        result,
        should_stop=budget.at_most(CONTROL_SHARE).should_stop,
    )
    if control is not None:
        unit = "answers" if unit_of(pairs) == "pairs" else "tokens"
        listener.found(_in_short(control, unit))
    return control


def _in_short(control: Control | NoControl, unit: str) -> str:
    if isinstance(control, NoControl):
        return f"no planted control: {control.conclusion}"
    return (
        f"planted control: {control.recovered} of {control.pairs} planted {unit} recovered "
        f"in {control.steps} steps ({control.outcome.value})"
    )
