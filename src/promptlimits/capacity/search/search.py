"""What every search for a prompt is told and returns, and the one that asks for all at once.

Lists are searched by `lists`, texts by `texts`. Every prompt counts for what it holds: one that was
trained for 64 pairs, failed and holds 60 beats one that solved 32. All of it can be stopped at any
step: run again, every finished attempt comes out of the store and the unfinished one goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from promptlimits.base.errors import require_positive, require_positive_int
from promptlimits.capacity.search.attempt import Attempt, RunContext, attempt, race
from promptlimits.capacity.task.targets import Targets
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.problem import Outcome, Stopper
from promptlimits.record.parts import State


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Settings of a search.

    Attributes:
        training: Settings of each attempt; its seed is that of the first one.
        first_size: Number of pairs to begin with.
        starts: Attempts at a size before it is given up: a warm one, then fresh ones side by
            side.
        warm_learning_rate_share: Share of the learning rate at which a warm start goes on. At
            the full one, Adam's first steps throw away most of what the prompt held.
    """

    training: TrainingConfig
    first_size: int = 8
    starts: int = 2
    warm_learning_rate_share: float = 0.5

    @property
    def other_starts(self) -> list[tuple[TrainingConfig, None]]:
        """The starts after the first one, each fresh and with a seed of its own."""
        first = self.training
        return [(replace(first, seed=first.seed + n), None) for n in range(1, self.starts)]

    def __post_init__(self) -> None:
        """Check every number.

        Raises:
            UserError: One is not above 0: no pair, no attempt or no step is no search.
        """
        require_positive_int("first_size", self.first_size)
        require_positive_int("starts", self.starts)
        require_positive("warm_learning_rate_share", self.warm_learning_rate_share)


LEAST_STEPS: Final = 40
"""Training steps from which on a search that held nothing counts as one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchResult:
    """What a search found at one prompt length."""

    prompt_tokens: int  # P
    attempts: tuple[Attempt, ...]  # every attempt, in order
    stopped_because: str  # what ended the search, in words
    complete: bool  # whether another run of the same command would find nothing left to do

    @property
    def steps(self) -> int:
        """Training steps of all its attempts."""
        return sum(one.steps for one in self.attempts)

    @property
    def best(self) -> Attempt | None:
        """The attempt whose prompt holds most pairs; the first of equals."""
        return best_of(self.attempts)


def state_of(result: SearchResult, *, claimed: Sequence[int], credited: Sequence[int]) -> State:
    """What became of a search."""
    if credited:
        return State.FOUND
    tried = claimed or result.complete or result.steps >= LEAST_STEPS
    return State.NONE_FOUND if tried else State.NOT_SEARCHED


def best_of(attempts: Sequence[Attempt]) -> Attempt | None:
    """The attempt that holds most pairs, the first of equals; None if none holds any."""
    return max((one for one in attempts if one.held), key=lambda one: one.most_held, default=None)


def train_all(
    place: RunContext,
    targets: Targets,
    config: SearchConfig,
    *,
    should_stop: Stopper,
    on_attempt: Callable[[Attempt], None] = lambda _attempt: None,
) -> SearchResult:
    """Train for all of the targets alone, from one start, then from others side by side.

    On a CPU a race costs as many times the work, so the first start runs alone.
    """
    training = config.training
    attempts = [attempt(place, targets, training, warm=None, should_stop=should_stop)]
    on_attempt(attempts[0])
    first = attempts[0].outcome
    if first is not Outcome.SOLVED and first.final and config.other_starts:
        attempts += race(place, targets, config.other_starts, should_stop=should_stop)
        for one in attempts[1:]:
            on_attempt(one)
    return SearchResult(
        prompt_tokens=training.prompt_tokens,
        attempts=tuple(attempts),
        stopped_because=attempts[-1].outcome.value,
        complete=attempts[-1].outcome.final,
    )
