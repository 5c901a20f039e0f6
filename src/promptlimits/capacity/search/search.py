"""The largest number of pairs that a prompt of one length holds exactly.

Sizes follow `next_size`. Each attempt starts warm from the best prompt so
far, of this length or of a shorter one; where it fails, fresh starts follow, side by side. Every
prompt counts for what it holds: a failed attempt at 64 pairs that holds 60 beats a solved one
at 32. Of a text a size is a number of tokens (`capacity.task.targets`). All of it can be stopped at
any step: run again, every finished attempt comes out of the store and the unfinished one goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from promptlimits.base.errors import require_positive, require_positive_int
from promptlimits.capacity.search.attempt import Attempt, RunContext, attempt, race
from promptlimits.capacity.task.targets import Targets
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.problem import Outcome, Stopper
from promptlimits.capacity.train.state import TrainingState
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


@dataclass(kw_only=True)
class _Progress:
    """What a running search knows; local to one call of `search`."""

    warm: TrainingState | None
    solved: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    attempts: list[Attempt] = field(default_factory=list)


def best_of(attempts: Sequence[Attempt]) -> Attempt | None:
    """The attempt that holds most pairs, the first of equals; None if none holds any."""
    return max((one for one in attempts if one.held), key=lambda one: one.most_held, default=None)


def next_size(
    solved: Collection[int], failed: Collection[int], *, total: int, first: int
) -> int | None:
    """The next number of pairs to train for.

    Sizes double while they are solved; after a failure the largest solved and the smallest
    failed size above it are bisected until they are neighbours. If even the first size fails,
    it is halved. A pure function of what is known, so a search resumes by asking again.
    """
    low = max(solved, default=0)
    above = [size for size in failed if size > low]
    if not above:
        return None if low >= total else min(total, max(first, 2 * low))
    high = min(above)
    return None if high - low <= 1 else (low + high) // 2


def search(
    place: RunContext,
    targets: Targets,
    config: SearchConfig,
    *,
    warm: TrainingState | None,
    should_stop: Stopper,
    on_attempt: Callable[[Attempt], None] | None = None,
) -> SearchResult:
    """Search for the largest size that a prompt holds, from where a shorter one ended.

    Every attempt made is returned; `on_attempt` is called after each.
    """
    known = _Progress(warm=warm)
    while True:
        size = next_size(known.solved, known.failed, total=len(targets), first=config.first_size)
        if size is None:
            return _result(config, known, _end_of_plan(known, targets), complete=True)
        last = _try_size(place, targets.first(size), config, known, should_stop, on_attempt)
        if not last.outcome.final:
            reason = f"the budget was used up while it trained for {size} {targets.units}"
            return _result(config, known, reason, complete=False)
        (known.solved if last.outcome is Outcome.SOLVED else known.failed).add(size)


def train_all(
    place: RunContext,
    targets: Targets,
    config: SearchConfig,
    *,
    should_stop: Stopper,
    on_attempt: Callable[[Attempt], None] | None = None,
) -> SearchResult:
    """Train for all of the targets alone, from one start, then from others side by side.

    On a CPU a race costs as many times the work, so the first start runs alone.
    """
    known = _Progress(warm=None)
    last = _try_size(place, targets, config, known, should_stop, on_attempt)
    return _result(config, known, last.outcome.value, complete=last.outcome.final)


def _try_size(
    place: RunContext,
    targets: Targets,
    config: SearchConfig,
    known: _Progress,
    should_stop: Stopper,
    on_attempt: Callable[[Attempt], None] | None,
) -> Attempt:
    """Attempts at one size until one is solved, the time is up, or the starts are used."""
    share = 1.0 if known.warm is None else config.warm_learning_rate_share
    first = replace(config.training, learning_rate=share * config.training.learning_rate)
    done = [attempt(place, targets, first, warm=known.warm, should_stop=should_stop)]
    _note(known, done, on_attempt)
    if done[-1].outcome is not Outcome.SOLVED and done[-1].outcome.final and config.starts > 1:
        # Only the first start is warm: the others are there to escape where it led.
        fresh = [
            (replace(config.training, seed=config.training.seed + start), None)
            for start in range(1, config.starts)
        ]
        done += race(place, targets, fresh, should_stop=should_stop)
        _note(known, done[1:], on_attempt)
    return done[-1]


def _note(
    known: _Progress, done: Sequence[Attempt], on_attempt: Callable[[Attempt], None] | None
) -> None:
    """Keep attempts, and start the next one from the best prompt so far."""
    known.attempts += done
    best = best_of(known.attempts)
    if best is not None:
        # Adam begins anew.
        known.warm = TrainingState.start(best.prompt, 1)
    if on_attempt is not None:
        for one in done:
            on_attempt(one)


def _end_of_plan(known: _Progress, targets: Targets) -> str:
    held = max(known.solved, default=0)
    if held == len(targets):
        return f"the whole {targets.whole} is held"
    return f"{held} {targets.units} were solved and {held + 1} were not, in every start"


def _result(config: SearchConfig, known: _Progress, reason: str, *, complete: bool) -> SearchResult:
    return SearchResult(
        prompt_tokens=config.training.prompt_tokens,
        attempts=tuple(known.attempts),
        stopped_because=reason,
        complete=complete,
    )
