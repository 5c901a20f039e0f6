"""How a problem is doing, how it ended, and what makes it end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.outcome import Outcome
from promptlimits.capacity.train.problem import ProblemKey
from promptlimits.capacity.train.state import TrainingState


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
        cls, key: ProblemKey, outcome: Outcome, state: TrainingState, *, activation_bytes: int = 0
    ) -> Fit:
        """The ending of a problem in a state, in memory of its own."""
        state = state.clone()
        return cls(
            key=key,
            outcome=outcome,
            prompt=state.best_prompt,
            held=tuple(state.best_exact.nonzero().flatten().tolist()),
            steps=state.step,
            state=state,
            activation_bytes=activation_bytes,
        )


Observer: TypeAlias = Callable[[StepReport, TrainingState], None]
KeyedObserver: TypeAlias = Callable[[ProblemKey, StepReport, TrainingState], None]
Stopper: TypeAlias = Callable[[], Outcome | None]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What decides whether a problem goes on, as plain numbers.

    Attributes:
        step: Steps done.
        best_step: Step at which it last became better, in exact pairs or in right tokens.
        solved: Whether its best prompt answers every pair.
        finite: Whether every number of its prompt is finite.
    """

    step: int
    best_step: int
    solved: bool
    finite: bool

    @classmethod
    def of(cls, state: TrainingState) -> Standing:
        """Read it from a state."""
        return cls(
            step=state.step,
            best_step=state.best_step,
            solved=bool(state.best_exact.all()),
            finite=bool(torch.isfinite(state.prompt).all()),
        )

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
