"""The longest beginning of a text that a prompt of one length makes the model write.

Whether a soft prompt gets hold of the first token is decided in its first steps and depends on
where it starts and how far those steps throw it: some have it after ten, others keep losing it for
hundreds while the rest of the text is learned. So each start of a search is a line of runs:

1. scouts: many prompts learn the first token alone, a pass of a few rows;
2. heats: those that have it first learn the first lines side by side, and fewer go on each time;
3. growth: one goes on alone to longer and longer beginnings, each above all that it holds so far.

Where a beginning is not held, the next one ends between it and what is held; once those are
neighbours the line has ended, and the next start draws scouts of its own. What a step does to a
soft prompt depends on its size in relation to the prompt, whose norm grows to hundreds: after the
scouts the learning rate is a share of the prompt's root mean square.

A prefix has the first token anyway: a line of its is one fresh run that grows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from typing import Final, NamedTuple

import torch

from promptlimits.capacity.search.attempt import Attempt, RunContext, race
from promptlimits.capacity.search.search import SearchConfig, SearchResult
from promptlimits.capacity.task.targets import Targets
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.problem import Outcome, Stopper
from promptlimits.capacity.train.state import TrainingState
from promptlimits.nets.protocol import PromptKind


class Heat(NamedTuple):
    """Prompts that learn a beginning side by side."""

    share: float  # tokens of the beginning, in units of the first size
    entrants: int  # prompts that begin
    enough: int  # once so many hold it the others stop
    most_steps: int  # steps of each


@dataclass(frozen=True, kw_only=True)
class LineSettings:
    """How a line of runs for soft prompts goes on.

    Attributes:
        scouts: Prompts that learn the first token alone.
        scout_steps: Most steps of each.
        scout_rates: Multiples of the learning rate, taken in turn. Large: a larger vector learns
            the rest in fewer steps, and a larger step has the first token sooner.
        scout_lead: Lead of the first token there, far above the usual one: the rest of the text
            will pull at it.
        heats: What follows, up to the first size.
        growth: The next beginning in units of what is held.
        relative_rate: Learning rate after the scouts, in units of the prompt's root mean square
            and of the learning rate that is asked for.
        decay_steps: Steps over which it falls in each run.
        copy_share: Size of a token in front of a shorter prompt, in units of the token behind it,
            whose copy it is. Any other token there loses the text; a copy loses the end of it.
    """

    scouts: int = 16
    scout_steps: int = 40
    scout_rates: tuple[float, ...] = (8.0, 3.0)
    scout_lead: float = 0.05
    heats: tuple[Heat, ...] = (Heat(0.5, 6, 3, 80), Heat(1.0, 3, 1, 120))
    growth: float = 1.5
    relative_rate: float = 0.3
    decay_steps: int = 300
    copy_share: float = 0.5


LINE: Final = LineSettings()
FIRST_TOKENS: Final = 8
"""Tokens to begin with behind the first one."""


@dataclass(kw_only=True, eq=False)
class _Runs:
    """The runs of one search, in order; local to one call of `search_text`."""

    place: RunContext
    targets: Targets
    config: SearchConfig
    line: LineSettings
    should_stop: Stopper
    on_attempt: Callable[[Attempt], None] | None
    attempts: list[Attempt] = field(default_factory=list)

    def run(
        self,
        size: int,
        starts: Sequence[tuple[TrainingConfig, TrainingState | None]],
        *,
        enough: int = 1,
    ) -> list[Attempt]:
        """Train for a beginning, side by side; the best come first."""
        targets = self.targets.first(size)
        done = race(self.place, targets, starts, enough=enough, should_stop=self.should_stop)
        self.attempts += done
        ranked = sorted(done, key=_standing)
        if ranked and self.on_attempt is not None:
            self.on_attempt(ranked[0])
        return ranked

    @property
    def cut_off(self) -> int | None:
        """The beginning that was trained for when the budget was used up."""
        return next((one.size for one in self.attempts if not one.outcome.final), None)

    @property
    def total(self) -> int:
        """Tokens of the text."""
        return len(self.targets)


def search_text(
    place: RunContext,
    targets: Targets,
    config: SearchConfig,
    *,
    warm: TrainingState | None,
    should_stop: Stopper,
    on_attempt: Callable[[Attempt], None] | None = None,
    line: LineSettings = LINE,
) -> SearchResult:
    """Search for the longest beginning that a prompt holds.

    The first line starts from `warm`, where a shorter prompt ended, if there is one, and from all
    that one held. Every attempt made is returned; `on_attempt` is told of the best of
    those that ran side by side.
    """
    runs = _Runs(
        place=place,
        targets=targets,
        config=config,
        line=line,
        should_stop=should_stop,
        on_attempt=on_attempt,
    )
    most = 0
    for start in range(config.starts):
        first = warm if start == 0 else None
        best = _begun(runs, start) if first is None else _first_run(runs, first)
        if best is not None and runs.cut_off is None:
            most = max(most, _grown(runs, best))
        if runs.cut_off is not None or most == runs.total:
            break
    return SearchResult(
        prompt_tokens=config.training.prompt_tokens,
        attempts=tuple(runs.attempts),
        stopped_because=_reason(runs, most),
        complete=runs.cut_off is None,
    )


def train_text(
    place: RunContext,
    targets: Targets,
    config: TrainingConfig,
    *,
    warm: TrainingState | None,
    should_stop: Stopper,
) -> Attempt:
    """One start of a search for the whole of `targets`, told as one attempt at that size."""
    result = search_text(
        place,
        targets,
        SearchConfig(training=config, starts=1),
        warm=warm,
        should_stop=should_stop,
    )
    # Where nothing is held, any of them stands for that.
    best = result.best or result.attempts[-1]
    whole = len(best.held) == len(targets)
    unsolved = Outcome.STALLED if result.complete else Outcome.OUT_OF_BUDGET
    return replace(
        best,
        size=len(targets),
        outcome=Outcome.SOLVED if whole else unsolved,
        steps=result.steps,
        seconds=sum(one.seconds for one in result.attempts),
    )


def next_length(
    held: int, failed: Collection[int], *, total: int, growth: float = LINE.growth
) -> int | None:
    """The next beginning to train for, in tokens, from what is held and what was not.

    A pure function of what is known, so a search resumes by asking again.
    """
    above = [size for size in failed if size > held]
    if not above:
        return None if held >= total else min(total, max(held + 1, math.ceil(growth * held)))
    high = min(above)
    return None if high - held <= 1 else (held + high + 1) // 2


# --- a line of runs -----------------------------------------------------------------------------


def _begun(runs: _Runs, start: int) -> Attempt | None:
    """The prompt of a fresh start that is to grow; None if the budget was used up before."""
    config, line = runs.config.training, runs.line
    if runs.place.kind is PromptKind.PREFIX:
        fresh = replace(config, seed=config.seed + start)
        return runs.run(min(runs.config.first_size, runs.total), [(fresh, None)])[0]
    entrants = runs.run(1, _scouts(config, line, start), enough=line.heats[0].entrants)
    for number, heat in enumerate(line.heats):
        if runs.cut_off is not None:
            return None
        # Adam begins anew: the gradients of one token are far larger than those of a text.
        states = [
            TrainingState.start(one.prompt, 1) if number == 0 else one.state
            for one in entrants[: heat.entrants]
        ]
        size = min(runs.total, max(1, int(heat.share * runs.config.first_size)))
        starts = [
            (_goes_on(runs, state, seed=one.seed, most_steps=heat.most_steps), state)
            for one, state in zip(entrants, states, strict=False)
        ]
        entrants = runs.run(size, starts, enough=heat.enough)
    return entrants[0] if entrants else None


def _scouts(
    config: TrainingConfig, line: LineSettings, start: int
) -> list[tuple[TrainingConfig, None]]:
    """Fresh runs for the first token alone."""
    steps = min(line.scout_steps, config.max_steps)
    rates = islice(cycle(line.scout_rates), line.scouts)
    return [
        (
            replace(
                config,
                learning_rate=rate * config.learning_rate,
                relative_lead=max(line.scout_lead, config.relative_lead),
                max_steps=steps,
                patience=steps,
                seed=config.seed + start * line.scouts + number,
            ),
            None,
        )
        for number, rate in enumerate(rates)
    ]


def _first_run(runs: _Runs, warm: TrainingState) -> Attempt:
    """The run that goes on from a shorter prompt."""
    size = min(max(1, int(warm.best_held)), runs.total)
    if runs.place.kind is PromptKind.SOFT:
        warm = _lengthened(warm, runs.config.training.prompt_tokens, runs.line.copy_share)
    config = _goes_on(runs, warm, seed=runs.config.training.seed)
    return runs.run(size, [(config, warm)])[0]


def _lengthened(state: TrainingState, prompt_tokens: int, share: float) -> TrainingState:
    """A state with more tokens in front: shrinking copies of its first one."""
    first = state.best_prompt[:1]
    halves = range(prompt_tokens - len(state.best_prompt), 0, -1)
    copies = [share**power * first for power in halves]
    return state.for_pairs(1, start=torch.cat([*copies, state.best_prompt]))


def _grown(runs: _Runs, best: Attempt) -> int:
    """Train for longer and longer beginnings, and tell how many tokens were held."""
    failed = set() if best.outcome is Outcome.SOLVED else {best.size}
    while runs.cut_off is None:
        size = next_length(len(best.held), failed, total=runs.total, growth=runs.line.growth)
        if size is None:
            break
        config = _goes_on(runs, best.state, seed=best.seed)
        (done,) = runs.run(size, [(config, best.state)])
        if done.outcome is not Outcome.SOLVED:
            failed.add(size)
        best = max(best, done, key=lambda one: len(one.held))
    return len(best.held)


def _goes_on(
    runs: _Runs, state: TrainingState, *, seed: int, most_steps: int | None = None
) -> TrainingConfig:
    """Settings of a run that goes on from a state."""
    config = runs.config.training
    steps = config.max_steps if most_steps is None else min(most_steps, config.max_steps)
    patience = config.patience if most_steps is None else steps
    if runs.place.kind is PromptKind.PREFIX:
        share = runs.config.warm_learning_rate_share
        rate, decay = share * config.learning_rate, config.decay_steps
    else:
        size = float(state.best_prompt.square().mean().sqrt())
        rate = runs.line.relative_rate * config.learning_rate * size
        decay = runs.line.decay_steps
    return replace(
        config,
        learning_rate=rate,
        decay_steps=decay,
        max_steps=steps,
        patience=patience,
        seed=seed,
    )


def _standing(one: Attempt) -> tuple[bool, int, int, float]:
    """Those solved first in the order of their steps, then by what they hold and their loss."""
    solved = one.outcome is Outcome.SOLVED
    steps = one.steps if solved else 0
    return not solved, steps, -len(one.held), float(one.state.best_loss)


def _reason(runs: _Runs, most: int) -> str:
    """What ended the search, in words."""
    if runs.cut_off is not None:
        return f"the budget was used up while it trained for {runs.cut_off} {runs.targets.units}"
    if most == runs.total:
        return f"the whole {runs.targets.whole} is held"
    return f"{most} {runs.targets.units} were held and {most + 1} were not, in every start"
