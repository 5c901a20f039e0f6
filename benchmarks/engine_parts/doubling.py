"""The plain search: sizes that double while they are solved, and are then bisected.

Each size starts from the best prompt so far at half the rate, with Adam anew; where that fails,
other starts follow side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from promptlimits.capacity.search.attempt import Attempt, RunContext, attempt, race
from promptlimits.capacity.search.search import SearchConfig, SearchResult, best_of
from promptlimits.capacity.task.targets import Targets
from promptlimits.capacity.train.problem import Outcome, Stopper
from promptlimits.capacity.train.state import TrainingState


def doubling(
    place: RunContext,
    targets: Targets,
    config: SearchConfig,
    *,
    warm: TrainingState | None,
    should_stop: Stopper,
    on_attempt: Callable[[Attempt], None] | None = None,
) -> SearchResult:
    """Search for the largest size that a prompt holds."""
    solved: set[int] = set()
    failed: set[int] = set()
    attempts: list[Attempt] = []
    while (size := next_size(solved, failed, len(targets), config.first_size)) is not None:
        done = _tried(place, targets.first(size), config, warm, should_stop)
        attempts += done
        for one in done:
            if on_attempt is not None:
                on_attempt(one)
        best = best_of(attempts)
        warm = warm if best is None else TrainingState.start(best.prompt, 1)
        if not done[-1].outcome.final:
            break
        (solved if done[-1].outcome is Outcome.SOLVED else failed).add(size)
    return SearchResult(
        prompt_tokens=config.training.prompt_tokens,
        attempts=tuple(attempts),
        stopped_because="",
        complete=size is None,
    )


def next_size(
    solved: Collection[int], failed: Collection[int], total: int, first: int
) -> int | None:
    """The next size; None where one is solved and the next is not."""
    low = max(solved, default=0)
    above = [size for size in failed if size > low]
    if not above:
        return None if low >= total else min(total, max(first, 2 * low))
    high = min(above)
    return None if high - low <= 1 else (low + high) // 2


def _tried(
    place: RunContext,
    targets: Targets,
    config: SearchConfig,
    warm: TrainingState | None,
    stop: Stopper,
) -> list[Attempt]:
    """A warm start, then fresh ones side by side."""
    training = config.training
    share = 1.0 if warm is None else config.warm_learning_rate_share
    first = replace(training, learning_rate=share * training.learning_rate)
    done = [attempt(place, targets, first, warm=warm, should_stop=stop)]
    if done[0].outcome is Outcome.SOLVED or not done[0].outcome.final or not config.other_starts:
        return done
    return [*done, *race(place, targets, config.other_starts, should_stop=stop)]
