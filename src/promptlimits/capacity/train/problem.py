"""One problem: what is trained for, how it is doing, how it ended, and a remedy for each ending.

Expected failures of training are values, not exceptions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

import torch
from torch import Tensor

from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.state import TrainingState
from promptlimits.nets.protocol import PackedPairs, Part, PromptKind


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


ProblemKey: TypeAlias = int | str

PREFIX_RATE: Final = 1.5
"""A prefix's learning rate, times the number of layers, as a multiple of a soft prompt's."""


def searches(config: TrainingConfig, state: TrainingState) -> bool:
    """Whether training in that state takes its steps, and scores pairs, in the faster twin."""
    return config.search_dtype is not None and not state.finishing


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """A prompt to be trained, independent of every other one.

    Attributes:
        key: By which the caller knows it again; no two problems of one call share it.
        pairs: The K pairs that the prompt must answer.
        config: Its settings; each problem has its own.
        state: Where it starts: `TrainingState.start`, or the state of an earlier run, which
            then goes on as if it had never stopped.
        kind: What the prompt is.
        race: Problems of one race seek the same thing, such as starts from several seeds:
            once one is solved, the others leave as overtaken. None for no race.
    """

    key: ProblemKey
    pairs: PackedPairs
    config: TrainingConfig
    state: TrainingState
    kind: PromptKind = PromptKind.SOFT
    race: ProblemKey | None = None

    @property
    def searching(self) -> bool:
        """Whether its steps are taken, and its pairs scored, in the model's faster twin."""
        return searches(self.config, self.state)

    @property
    def part(self) -> Part:
        """The whole problem as one part of a batch."""
        return Part(prompt_tokens=self.state.prompt.shape[0], pairs=self.pairs)

    def learning_rate_at(self, step: int, *, layers: int) -> float:
        """Learning rate of step number `step`, counted from 0.

        A prefix acts in all layers at once, so that the more there are, the smaller its step must
        be. Of the rates that `benchmarks/optimisers.py` tries, those that are `PREFIX_RATE` over
        the number of layers are among the best for 4 layers and for 30.

        Args:
            step: Steps done.
            layers: L of the model.

        Returns:
            The rate.
        """
        share = 1.0 if self.kind is PromptKind.SOFT else PREFIX_RATE / layers
        return share * self.config.learning_rate_at(step)

    @property
    def layout(self) -> tuple[PromptKind, int, torch.dtype]:
        """What problems must share to lie end to end in one tensor."""
        return self.kind, self.state.prompt.shape[1], self.state.prompt.dtype


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What is shown and stored of one step of one problem.

    Attributes:
        step: Number of the step, from 1.
        exact: Pairs answered exactly by the prompt of this step.
        best_exact: Pairs answered exactly by the best prompt so far.
        pairs: K.
        loss_nats: Loss of the prompt of this step.
        tokens_right: Its share of right tokens.
        seconds: This problem's equal share of the time that the step took.
        problems: B, problems that took the step together.
        activation_bytes: Memory that autograd kept for the backward pass of all of them, in
            the largest micro-batch.
    """

    step: int
    exact: int
    best_exact: int
    pairs: int
    loss_nats: float
    tokens_right: float
    seconds: float
    problems: int = 1
    activation_bytes: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """How a problem ended.

    Attributes:
        key: Which problem.
        outcome: The ending.
        prompt: (P, W) the best prompt.
        held: Indices of the pairs that it answers exactly.
        steps: Steps done, over all resumptions.
        state: State to go on from.
        activation_bytes: Most memory that autograd kept in a step that it took part in here.
    """

    key: ProblemKey
    outcome: Outcome
    prompt: Tensor
    held: tuple[int, ...]
    steps: int
    state: TrainingState
    activation_bytes: int = 0

    @classmethod
    def of(
        cls,
        key: ProblemKey,
        outcome: Outcome,
        state: TrainingState,
        *,
        exact: Tensor | None = None,
        activation_bytes: int = 0,
    ) -> Fit:
        """The ending of a problem in a state, in memory of its own.

        `exact` (K,) are the pairs that its best prompt answers where the state does not tell.
        """
        state = state.clone()
        held = state.best_exact if exact is None else exact
        return cls(
            key=key,
            outcome=outcome,
            prompt=state.best_prompt,
            held=tuple(index for index, one in enumerate(held.tolist()) if one),
            steps=state.step,
            state=state,
            activation_bytes=activation_bytes,
        )


StateNow: TypeAlias = Callable[[], TrainingState]
"""Gives the state after a step, on the host: it is copied from the device when it is asked for."""
Observer: TypeAlias = Callable[[StepReport, StateNow], None]
KeyedObserver: TypeAlias = Callable[[ProblemKey, StepReport, StateNow], None]
Stopper: TypeAlias = Callable[[], Outcome | None]


@dataclass(frozen=True, kw_only=True)
class Status:
    """What decides whether a problem goes on, as plain numbers."""

    step: int  # steps done
    best_step: int  # step at which it last became better, in exact pairs or in right tokens
    solved: bool  # whether its best prompt answers every pair
    finite: bool  # whether every number of its prompt is finite

    @classmethod
    def of(cls, states: Sequence[TrainingState]) -> list[Status]:
        """Read them from states, at least one, of any widths."""
        flags = [
            torch.stack([state.best_exact.all(), torch.isfinite(state.prompt).all()])
            for state in states
        ]
        return [
            cls(step=state.step, best_step=state.best_step, solved=solved, finite=finite)
            for state, (solved, finite) in zip(states, torch.stack(flags).tolist(), strict=True)
        ]

    def search_is_over(self, config: TrainingConfig) -> bool:
        """Whether a search in the model's faster twin has ended: a step is left for the model."""
        return self.step + 1 >= config.max_steps or self.ending(config) is not None

    def ending(self, config: TrainingConfig) -> Outcome | None:
        """The ending that it has reached by itself, if any."""
        if self.solved:
            return Outcome.SOLVED
        if not self.finite:
            return Outcome.DIVERGED
        if self.step >= config.max_steps:
            return Outcome.OUT_OF_STEPS
        if self.step - self.best_step >= config.patience:
            return Outcome.STALLED
        return None
