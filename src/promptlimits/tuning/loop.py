"""The training loop: B prompts on one frozen model, stoppable and resumable at every step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from promptlimits.models.protocol import FrozenModel, PackedPairs
from promptlimits.tuning.adam import adam_step
from promptlimits.tuning.config import TrainingConfig
from promptlimits.tuning.objective import Scores, score
from promptlimits.tuning.outcome import Outcome
from promptlimits.tuning.state import TrainingState


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What is shown and stored of one step.

    Attributes:
        step: Number of the step, from 1.
        exact: Pairs answered exactly by the best problem of this step.
        best_exact: Pairs answered exactly by the best prompt so far.
        pairs: K.
        loss_nats: Smallest loss among the problems.
        tokens_right: Largest share of right tokens among the problems.
        seconds: Time this step took.
    """

    step: int
    exact: int
    best_exact: int
    pairs: int
    loss_nats: float
    tokens_right: float
    seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """How a run ended.

    Attributes:
        outcome: The ending.
        prompt: (P, D) the best prompt.
        held: Indices of the pairs that it answers exactly.
        steps: Steps done, over all resumptions.
        state: State to go on from.
    """

    outcome: Outcome
    prompt: Tensor
    held: tuple[int, ...]
    steps: int
    state: TrainingState


Observer = Callable[[StepReport, TrainingState], None]
Stopper = Callable[[], Outcome | None]


def train(
    model: FrozenModel,
    pairs: PackedPairs,
    config: TrainingConfig,
    *,
    state: TrainingState,
    on_step: Observer | None = None,
    should_stop: Stopper | None = None,
) -> Fit:
    """Train prompts until one answers every pair exactly, or something ends the run.

    Args:
        model: The frozen model.
        pairs: The pairs, K of them.
        config: Settings.
        state: Where to start: `TrainingState.start`, or the state of an earlier run, which
            then goes on as if it had never stopped.
        on_step: Called after every step with its report and the state to resume from.
        should_stop: Asked before every step; an outcome ends the run.

    Returns:
        The ending, with the best prompt found and the pairs it holds.
    """
    while True:
        outcome = _ending(state, config) or (should_stop() if should_stop else None)
        if outcome is not None:
            return _fit(outcome, state)
        began = time.monotonic()
        scores, gradient = _evaluate(model, pairs, config, state.prompts)
        state = _advance(_remember(state, scores), gradient, config)
        if on_step is not None:
            on_step(_report(state, scores, time.monotonic() - began), state)


def _evaluate(
    model: FrozenModel, pairs: PackedPairs, config: TrainingConfig, prompts: Tensor
) -> tuple[Scores, Tensor]:
    """Scores of the prompts and the gradient of each problem's own loss."""
    leaf = prompts.detach().requires_grad_(True)
    logits = model.next_token_logits(leaf.to(model.dtype), pairs)
    scores = score(logits, pairs, sharpening=config.sharpening, relative_lead=config.relative_lead)
    # Problems do not mix, so the gradient of the sum is each problem's own gradient.
    (gradient,) = torch.autograd.grad(scores.loss_nats.sum(), leaf)
    return replace(scores, loss_nats=scores.loss_nats.detach()), gradient


def _remember(state: TrainingState, scores: Scores) -> TrainingState:
    """Keep the prompts that were just scored, where they beat the best so far."""
    before, now = state.best_exact.sum(dim=1), scores.exact.sum(dim=1)
    better = (now > before) | ((now == before) & (scores.loss_nats < state.best_loss))
    gained = bool((now.max() > before.max()).item())
    return replace(
        state,
        best_step=state.step + 1 if gained else state.best_step,
        best_prompts=torch.where(better[:, None, None], state.prompts, state.best_prompts),
        best_exact=torch.where(better[:, None], scores.exact, state.best_exact),
        best_loss=torch.where(better, scores.loss_nats.to(state.best_loss), state.best_loss),
    )


def _advance(state: TrainingState, gradient: Tensor, config: TrainingConfig) -> TrainingState:
    prompts, first, second = adam_step(
        state.prompts,
        gradient,
        state.first_moment,
        state.second_moment,
        step=state.step,
        learning_rate=config.learning_rate_at(state.step),
        clip_norm=config.clip_norm,
    )
    return replace(
        state, step=state.step + 1, prompts=prompts, first_moment=first, second_moment=second
    )


def _ending(state: TrainingState, config: TrainingConfig) -> Outcome | None:
    """The ending that a state has reached by itself, if any."""
    if bool(state.best_exact.all(dim=1).any()):
        return Outcome.SOLVED
    if not bool(torch.isfinite(state.prompts).all()):
        return Outcome.DIVERGED
    if state.step >= config.max_steps:
        return Outcome.OUT_OF_STEPS
    if state.step - state.best_step >= config.patience:
        return Outcome.STALLED
    return None


def _fit(outcome: Outcome, state: TrainingState) -> Fit:
    counts = state.best_exact.sum(dim=1)
    # Most pairs first, then the smallest loss.
    best = min(
        range(len(counts)), key=lambda index: (-int(counts[index]), float(state.best_loss[index]))
    )
    return Fit(
        outcome=outcome,
        prompt=state.best_prompts[best].clone(),
        held=tuple(state.best_exact[best].nonzero().flatten().tolist()),
        steps=state.step,
        state=state,
    )


def _report(state: TrainingState, scores: Scores, seconds: float) -> StepReport:
    return StepReport(
        step=state.step,
        exact=int(scores.exact.sum(dim=1).max()),
        best_exact=int(state.best_exact.sum(dim=1).max()),
        pairs=scores.exact.shape[1],
        loss_nats=float(scores.loss_nats.min()),
        tokens_right=float(scores.tokens_right.max()),
        seconds=seconds,
    )
