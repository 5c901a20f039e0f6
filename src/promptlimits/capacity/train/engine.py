"""Many independent problems on one frozen model, each step one pass over all of them.

Problems that end leave the batch and waiting ones take their place; what does not depend on
the prompts is computed again only then. Each problem has its own state, learning rate and
ending, and comes out as it would alone, to rounding: the order of a sum inside a matrix
product may depend on its size. The same problems in the same order and micro-batches, on as
many threads, give the same bits. No randomness is drawn here.

A problem may search in a faster twin of the model (`Problem.searching`). What the twin scores
decides which prompt is best and when the search is over; the model goes on from that prompt, and
only what it scores itself counts as exact.

It can be stopped between any two lines: a problem's own state, which `on_step` can ask for after
each step, is all that is needed to go on.

States are values: a step makes new ones. So where the device has a queue of its own, the next step
is begun before anyone knows how the last one came out (`device`), and forgotten if a problem ends.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Final

import torch
from torch import Tensor

from promptlimits.base.errors import require_positive_int
from promptlimits.capacity.train.adam import StepSettings, step_numbers
from promptlimits.capacity.train.batch import Batch
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.memory import (
    MemoryBudget,
    bytes_of,
    is_out_of_memory,
    keep_freed_memory,
)
from promptlimits.capacity.train.problem import (
    Fit,
    KeyedObserver,
    Observer,
    Outcome,
    Problem,
    ProblemKey,
    Status,
    StepReport,
    Stopper,
)
from promptlimits.capacity.train.state import BatchScores, PackedState, TrainingState
from promptlimits.nets.device import Fetched, has_queue
from promptlimits.nets.protocol import FrozenModel, PackedPairs, PromptKind

_STEPS_AT_ONCE: Final = 32
"""Steps whose learning rates are sent to the device together."""


def train(
    model: FrozenModel,
    pairs: PackedPairs,
    config: TrainingConfig,
    *,
    state: TrainingState,
    kind: PromptKind = PromptKind.SOFT,
    budget_bytes: int | None = None,
    on_step: Observer | None = None,
    should_stop: Stopper | None = None,
) -> Fit:
    """Train a prompt until it answers every pair exactly, or something ends the run.

    Args:
        model: The frozen model.
        pairs: The pairs, K of them.
        config: Settings.
        state: Where to start: `TrainingState.start`, or the state of an earlier run, which
            then goes on as if it had never stopped.
        kind: What the prompt is.
        budget_bytes: Memory for one pass; None for half of what is free.
        on_step: Called after every step with its report and what gives the state to resume from.
        should_stop: Asked before every step; an outcome ends the run.

    Returns:
        The ending, with the best prompt found and the pairs it holds.
    """
    (fit,) = train_many(
        model,
        [Problem(key=0, pairs=pairs, config=config, state=state, kind=kind)],
        budget_bytes=budget_bytes,
        on_step=None if on_step is None else lambda _, report, after: on_step(report, after),
        should_stop=should_stop,
    )
    return fit


def train_many(
    model: FrozenModel,
    problems: Iterable[Problem],
    *,
    slots: int | None = None,
    budget_bytes: int | None = None,
    on_step: KeyedObserver | None = None,
    should_stop: Stopper | None = None,
) -> Iterator[Fit]:
    """Train prompts side by side until each has ended.

    Args:
        model: The frozen model.
        problems: The problems; taken one by one, as there is room for them.
        slots: Most problems at once; None for as many as fit into one pass of the budget.
            More than that run in micro-batches.
        budget_bytes: Memory for one pass; None for half of what is free. When memory runs
            out all the same, the budget is halved and the step is done again.
        on_step: Called after every step, for each problem with its report and what gives the
            state to resume from.
        should_stop: Asked before every step; an outcome ends the problems that are running,
            and those still waiting are not asked for.

    Yields:
        Each problem's ending, as soon as it has ended.

    Raises:
        UserError: The budget cannot hold one pair, or slots is not a whole number above 0.
    """
    if slots is not None:
        require_positive_int("slots", slots)
    keep_freed_memory(model.device)
    running = _Running(model, MemoryBudget.on(model.device, budget_bytes), on_step)
    waiting = _Waiting(iter(problems))
    while True:
        running.finish_searches()
        yield from running.leave()
        if running.admit(waiting, slots):
            continue
        if not running.problems:
            return
        outcome = should_stop() if should_stop is not None else None
        if outcome is not None:
            yield from running.abandon(outcome)
            return
        running.step()


class _Waiting:
    """Problems not yet begun, the first of which can be looked at."""

    def __init__(self, problems: Iterator[Problem]) -> None:
        self._problems = problems
        self._first: Problem | None = None

    def peek(self) -> Problem | None:
        """The next problem, or None."""
        if self._first is None:
            self._first = next(self._problems, None)
        return self._first

    def pop(self) -> None:
        """Go on to the one after it."""
        self._first = None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Begun:
    """A step that the device was asked for."""

    after: PackedState  # the state after it, but for its best steps, which the numbers decide
    numbers: Fetched  # (B, 6) what decides and reports
    activation_bytes: int


class _Running:
    """The problems of the moment, and everything about them that a step changes."""

    def __init__(
        self, model: FrozenModel, budget: MemoryBudget, on_step: KeyedObserver | None
    ) -> None:
        self.problems: list[Problem] = []
        self._model = model
        self._budget = budget
        self._on_step = on_step
        self._statuses: list[Status] = []
        self._won: set[ProblemKey] = set()
        # Most memory kept in a step so far, by problem.
        self._activation: dict[ProblemKey, int] = {}
        self._bytes: dict[ProblemKey, int] = {}
        # All are None while the composition has changed and no step was done since.
        self._batch: Batch | None = None
        self._state: PackedState | None = None
        self._ahead: _Begun | None = None
        # (steps, B, 3) numbers of steps to come, from step number `[0]` of the first problem on.
        self._numbers: tuple[int, Tensor] | None = None

    # --- who runs -----------------------------------------------------------------------

    def finish_searches(self) -> None:
        """Have the model itself go on with the problems whose search is over."""
        over = [
            problem.searching and status.search_is_over(problem.config)
            for problem, status in zip(self.problems, self._statuses, strict=True)
        ]
        if not any(over):
            return
        self._unpack()
        self.problems = [
            replace(problem, state=problem.state.finish()) if ended else problem
            for problem, ended in zip(self.problems, over, strict=True)
        ]
        self._statuses = Status.of([problem.state for problem in self.problems])

    def leave(self) -> Iterator[Fit]:
        """Take out the problems that have ended, those solved in fewest steps first."""
        endings = [
            None if problem.searching else status.ending(problem.config)
            for problem, status in zip(self.problems, self._statuses, strict=True)
        ]
        for problem, outcome in zip(self.problems, endings, strict=True):
            if outcome is Outcome.SOLVED and problem.race is not None:
                self._won.add(problem.race)
        outcomes = [
            outcome or (Outcome.OVERTAKEN if problem.race in self._won else None)
            for problem, outcome in zip(self.problems, endings, strict=True)
        ]
        if all(outcome is None for outcome in outcomes):
            return
        fits = self._take_out(outcomes)
        yield from sorted(fits, key=lambda fit: (fit.outcome is not Outcome.SOLVED, fit.steps))

    def abandon(self, outcome: Outcome) -> list[Fit]:
        """Take out every problem."""
        return self._take_out([outcome] * len(self.problems))

    def admit(self, waiting: _Waiting, slots: int | None) -> bool:
        """Take in waiting problems while there is room; whether any came."""
        before = len(self.problems)
        while (problem := waiting.peek()) is not None and self._has_room(problem, slots):
            if len(self.problems) == before:
                self._unpack()
            self.problems.append(problem)
            waiting.pop()
        came = [problem.state for problem in self.problems[before:]]
        if came:
            self._statuses += Status.of(came)
        return bool(came)

    def _has_room(self, problem: Problem, slots: int | None) -> bool:
        if not self.problems:
            return True
        if problem.layout != self.problems[0].layout:
            return False
        if slots is not None:
            return len(self.problems) < slots
        taken = sum(self._bytes_of(one) for one in (*self.problems, problem))
        return taken <= self._budget.part_bytes

    def _bytes_of(self, problem: Problem) -> int:
        """What a pass of a problem takes; asked of the model once, not before each step."""
        if problem.key not in self._bytes:
            self._bytes[problem.key] = bytes_of(self._model, problem, problem.pairs)
        return self._bytes[problem.key]

    def _take_out(self, outcomes: Sequence[Outcome | None]) -> list[Fit]:
        """End the problems that have an outcome; the others stay."""
        self._unpack()
        members = list(zip(self.problems, self._statuses, outcomes, strict=True))
        self.problems = [problem for problem, _, outcome in members if outcome is None]
        self._statuses = [status for _, status, outcome in members if outcome is None]
        return [
            Fit.of(
                problem.key,
                outcome,
                problem.state,
                exact=self._exact(problem) if problem.searching else None,
                activation_bytes=self._activation.pop(problem.key, 0),
            )
            for problem, _, outcome in members
            if outcome is not None
        ]

    def _exact(self, problem: Problem) -> Tensor:
        """(K,) which pairs the best prompt of a search answers in the model itself."""
        state = problem.state.finish()
        batch = Batch(self._model, [replace(problem, state=state)], self._budget)
        return batch.score(state.prompt).exact

    def _unpack(self) -> None:
        """Give each problem its own state back, before the composition changes."""
        if self._state is not None:
            self.problems = [
                replace(problem, state=state)
                for problem, state in zip(self.problems, self._state.unpacked(), strict=True)
            ]
        self._batch = self._state = self._ahead = self._numbers = None

    # --- a step -------------------------------------------------------------------------

    def step(self) -> None:
        """Take one step in every problem, in smaller micro-batches if memory runs out."""
        began = time.monotonic()
        step = self._ahead or self._begun(
            self._state or PackedState.of([problem.state for problem in self.problems])
        )
        self._ahead = self._begun(step.after) if has_queue(self._model.device) else None
        self._settle(step, step.numbers.rows(), began)

    def _begun(self, state: PackedState) -> _Begun:
        """Ask the device for a step, without waiting for anything."""
        batch, scores, gradient = self._scored(state)
        kept, best_exact, gained = state.remembering(scores)
        after = kept.advanced(gradient, self._numbers_of(state, like=gradient))
        # One transfer from the device for everything that decides and reports.
        columns = (
            scores.loss_nats,
            scores.tokens_right,
            scores.exact_pairs,
            best_exact,
            gained,
            after.finite(),
        )
        dtype = torch.float64 if batch.on_cpu else torch.float32
        return _Begun(
            after=after,
            numbers=Fetched(torch.stack([column.to(dtype) for column in columns], dim=1)),
            activation_bytes=batch.activation_bytes or 0,
        )

    def _numbers_of(self, state: PackedState, *, like: Tensor) -> Tensor:
        """(B, 3) what Adam is told of the next step, of those that are sent together."""
        steps = state.steps
        if self._numbers is None or steps[0] - self._numbers[0] >= len(self._numbers[1]):
            settings = [
                [
                    StepSettings(
                        moment_steps=moments + ahead,
                        learning_rate=problem.learning_rate_at(
                            step + ahead, layers=self._model.card.layers
                        ),
                        clip_norm=problem.config.clip_norm,
                    )
                    for problem, step, moments in zip(
                        self.problems, steps, state.moment_steps, strict=True
                    )
                ]
                for ahead in range(_STEPS_AT_ONCE)
            ]
            self._numbers = steps[0], step_numbers(settings, like=like)
        first, numbers = self._numbers
        return numbers[steps[0] - first]

    def _scored(self, state: PackedState) -> tuple[Batch, BatchScores, Tensor]:
        """Run the problems, again on half the memory for as long as it runs out."""
        while True:
            try:
                if self._batch is None:
                    self._batch = Batch(self._model, self.problems, self._budget)
                return self._batch, *self._batch.run(state.prompt, state.most_right)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside the handler: the error keeps alive the frames that hold its tensors.
            batch, self._batch = self._batch, None
            used = self._budget.part_bytes if batch is None else batch.largest_bytes
            del batch
            self._budget = self._budget.halved(used)

    def _settle(self, step: _Begun, numbers: list[list[float]], began: float) -> None:
        """Note what a step has changed, and tell the observer."""
        after, activation = step.after, step.activation_bytes
        pairs = [problem.pairs.num_pairs for problem in self.problems]
        self._statuses = [
            Status(
                step=done,
                # Not of the state: where it was begun ahead, those were not known yet.
                best_step=done if row[4] else before.best_step,
                solved=row[3] == count,
                finite=bool(row[5]),
            )
            for done, before, row, count in zip(
                after.steps, self._statuses, numbers, pairs, strict=True
            )
        ]
        best_steps = tuple(status.best_step for status in self._statuses)
        self._state = replace(after, best_steps=best_steps)
        for problem in self.problems:
            before = self._activation.get(problem.key, 0)
            self._activation[problem.key] = max(before, activation)
        if self._on_step is None:
            return
        seconds = (time.monotonic() - began) / len(pairs)
        state = self._state
        unpacked = cache(lambda: state.on_host().unpacked())

        def of_problem(at: int) -> TrainingState:
            return unpacked()[at]

        told = zip(self.problems, self._statuses, numbers, strict=True)
        # Those behind first: however often it is killed here, no start of a race gets more
        # than one stored step ahead of another.
        for at, (problem, status, row) in sorted(enumerate(told), key=lambda one: one[1][1].step):
            report = StepReport(
                step=status.step,
                exact=int(row[2]),
                best_exact=int(row[3]),
                pairs=problem.pairs.num_pairs,
                loss_nats=row[0],
                tokens_right=row[1],
                seconds=seconds,
                problems=len(pairs),
                activation_bytes=activation,
            )
            self._on_step(problem.key, report, partial(of_problem, at))
