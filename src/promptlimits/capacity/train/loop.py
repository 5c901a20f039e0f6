"""One problem on its own: the smallest case of `promptlimits.capacity.train.engine`."""

from __future__ import annotations

from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.engine import train_many
from promptlimits.capacity.train.problem import Problem, ProblemKey
from promptlimits.capacity.train.progress import Fit, Observer, StepReport, Stopper
from promptlimits.capacity.train.state import TrainingState
from promptlimits.nets.protocol import FrozenModel, PackedPairs, PromptKind

__all__ = ["Fit", "Observer", "StepReport", "Stopper", "train"]


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
        on_step: Called after every step with its report and the state to resume from.
        should_stop: Asked before every step; an outcome ends the run.

    Returns:
        The ending, with the best prompt found and the pairs it holds.
    """
    problem = Problem(key=0, pairs=pairs, config=config, state=state, kind=kind)

    def observe(_: ProblemKey, report: StepReport, after: TrainingState) -> None:
        if on_step is not None:
            on_step(report, after)

    (fit,) = train_many(
        model,
        [problem],
        budget_bytes=budget_bytes,
        on_step=None if on_step is None else observe,
        should_stop=should_stop,
    )
    return fit
