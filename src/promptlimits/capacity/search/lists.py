"""The most pairs of a list that a prompt of one length holds, found by training on working sets.

After each round the prompt is asked the list. The next working set has the pairs that it holds, for
those that are left out are soon lost, and at most as many that it gets wrong: the nearest to being
right where the prompt may choose. The first round trains for `first_size` pairs, and need not hold
all of them; any other goes on from the best prompt so far, with Adam's moments, until it is solved,
nothing more comes right or it has had its steps: the last pairs of a set are slow, and if they are
still near they come again. The wrong part grows while half of it comes right
and shrinks where a round brings nothing more, so that the search ends with a number of pairs that
is held, and one more that is not, in every start.

What comes next follows from the rounds that have ended. So a search can be stopped at any step: run
again, every finished round comes out of the store and the unfinished one goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from promptlimits.capacity.search.attempt import Attempt, RunContext, attempt, race
from promptlimits.capacity.search.choice import over_the_list
from promptlimits.capacity.search.search import LEAST_STEPS, SearchConfig, SearchResult
from promptlimits.capacity.task.targets import Targets
from promptlimits.capacity.train.problem import Outcome, Stopper
from promptlimits.capacity.train.state import TrainingState

FIRST_PAIRS: Final = 24
"""Pairs to begin with. Fewer can be harder: of three starts of one vector for 8 capitals of
SmolLM2-135M, searched in bfloat16, one held 6 after 293 steps."""

ROUND_PATIENCE: Final = 15
"""Steps in which nothing more comes right, after which another working set is drawn."""

FIRST_STEPS: Final = 70
"""Most steps of a round before which nothing was held: it holds many of its pairs by then."""

_ASKED: Final = 16
"""Most pairs of the list that are asked after a round, as a multiple of its own: their forward pass
takes some five of its steps."""

Room = Callable[[int, float], bool]
"""Whether a budget has so many steps left, of so many seconds each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Standing:
    """A prompt, and what the whole list says of it."""

    state: TrainingState | None  # where its training ended; None before there is one
    held: frozenset[int]  # indices of the pairs that it answers
    nearest: tuple[int, ...]  # all indices by the loss of the answer, the least first


@dataclass(kw_only=True)
class _Search:
    """A running search; local to one call of `search_list`."""

    place: RunContext
    targets: Targets
    config: SearchConfig
    nearest_first: bool
    should_stop: Stopper
    has_room: Room
    on_attempt: Callable[[Attempt], None]
    best: _Standing  # from which the next round goes on
    fresh: int  # wrong pairs of the next set
    attempts: list[Attempt] = field(default_factory=list)

    # --- a working set ------------------------------------------------------------------

    def next_set(self) -> Targets | None:
        """The next working set, a smaller one if the budget is short; None if it is too short."""
        fresh = self.fresh
        while not self._room_for(chosen := self._with_fresh(fresh)):
            fresh //= 2
            if not fresh:
                return None
        return chosen

    def _with_fresh(self, fresh: int) -> Targets:
        held, nearest = self.best.held, self.best.nearest
        come = nearest if self.nearest_first else self.targets.order
        wrong = [index for index in come if index not in held][:fresh]
        return self.targets.in_order([*wrong, *(index for index in nearest if index in held)])

    def _room_for(self, chosen: Targets) -> bool:
        steps = sum(one.steps for one in self.attempts)
        if not steps:
            return True
        pairs = sum(one.steps * one.size for one in self.attempts)
        seconds = sum(one.seconds for one in self.attempts) * len(chosen) / pairs
        return self.has_room(LEAST_STEPS, seconds)

    @property
    def decides(self) -> bool:
        """Whether the next set, where no start solves it, has a size that failed."""
        return self.fresh == 1

    # --- a round ------------------------------------------------------------------------

    def train(self, chosen: Targets) -> tuple[Attempt, _Standing | None]:
        """Train for a set from the best prompt and, where that is to decide, from other starts.

        Returns:
            The last attempt, and what the whole list says of its prompt; None if it was cut off.
        """
        training, state, decides = self.config.training, self.best.state, self.decides
        first = training
        if state is not None:
            share = self.config.warm_learning_rate_share
            first = replace(first, learning_rate=share * training.learning_rate)
        if not decides and self.best.held:
            first = replace(
                first,
                max_steps=min(training.max_steps, LEAST_STEPS),
                patience=min(training.patience, ROUND_PATIENCE),
            )
        elif not decides:
            first = replace(first, max_steps=min(training.max_steps, FIRST_STEPS))
        (one,), found = self._told(
            [attempt(self.place, chosen, first, warm=state, should_stop=self.should_stop)],
            decides=decides,
        )
        failed = one.outcome.final and one.outcome is not Outcome.SOLVED
        others = self.config.other_starts
        if not (decides and failed) or self.gains(found) or not others:
            return one, found
        done, found = self._told(
            race(self.place, chosen, others, should_stop=self.should_stop), decides=True
        )
        return done[-1], found

    def _told(
        self, done: Sequence[Attempt], *, decides: bool
    ) -> tuple[list[Attempt], _Standing | None]:
        """Attempts as they are kept, and what the whole list says of the last one."""
        asked = max(_ASKED * done[-1].size, _ASKED * self.config.first_size)
        found = self.standing(done[-1].state, asked) if done[-1].outcome.final else None
        kept = [replace(one, decides=decides and not self.gains(found)) for one in done]
        if found is not None:
            kept[-1] = replace(kept[-1], of_list=tuple(sorted(found.held)))
        self.attempts += kept
        for one in kept:
            self.on_attempt(one)
        return kept, found

    def gains(self, found: _Standing | None) -> bool:
        """Whether a prompt holds more than the best one so far."""
        return found is not None and len(found.held) > len(self.best.held)

    def standing(self, state: TrainingState, asked: int) -> _Standing | None:
        """What the first pairs of the list say of the best prompt; None if that was cut off."""
        listed = over_the_list(
            self.place,
            self.targets,
            state.best_prompt,
            relative_lead=self.config.training.relative_lead,
            first=asked,
            should_stop=self.should_stop,
        )
        order = self.targets.order
        if len(listed.right) < min(asked, len(order)):
            return None
        by_loss = sorted(range(len(listed.right)), key=listed.loss_nats.__getitem__)
        return _Standing(
            state=state,
            held=frozenset(self.targets.held(listed.right)),
            nearest=(*(order[place] for place in by_loss), *order[len(by_loss) :]),
        )

    def result(self, reason: str, *, complete: bool) -> SearchResult:
        """What was found, and what ended the search."""
        return SearchResult(
            prompt_tokens=self.config.training.prompt_tokens,
            attempts=tuple(self.attempts),
            stopped_because=reason,
            complete=complete,
        )


def search_list(
    place: RunContext,
    targets: Targets,
    config: SearchConfig,
    *,
    warm: TrainingState | None,
    nearest_first: bool,
    should_stop: Stopper,
    has_room: Room = lambda _steps, _seconds: True,
    on_attempt: Callable[[Attempt], None] = lambda _attempt: None,
) -> SearchResult:
    """Search for the most pairs that a prompt holds.

    Args:
        place: Where rounds are kept.
        targets: The list, in the order in which its pairs are to be held.
        config: Settings.
        warm: Where the training of a shorter prompt ended, whose pairs are the first
            `first_size` of `targets`; None for a fresh start.
        nearest_first: Whether the prompt may choose which wrong pairs come next; otherwise
            they come in the order of `targets`.
        should_stop: Asked before every step.
        has_room: Asked before each round but the first: none begins that cannot get `LEAST_STEPS`.
        on_attempt: Called after each attempt.

    Returns:
        Every attempt, and what ended the search.
    """
    known = _Search(
        place=place,
        targets=targets,
        config=config,
        nearest_first=nearest_first,
        should_stop=should_stop,
        has_room=has_room,
        on_attempt=on_attempt,
        # With the tokens that a longer prompt has besides, a shorter one holds next to nothing: the
        # first round brings its pairs back, in some 16 steps.
        best=_Standing(state=warm, held=frozenset(), nearest=targets.order),
        fresh=config.first_size,
    )
    while len(known.best.held) < len(targets):
        chosen = known.next_set()
        if chosen is None:
            reason = f"the budget had no room for {LEAST_STEPS} steps of another round"
            return known.result(reason, complete=False)
        one, found = known.train(chosen)
        if found is None:
            reason = f"the budget was used up while it trained for {len(chosen)} {targets.units}"
            return known.result(reason, complete=False)
        if known.gains(found):
            known.best = found
            most = 2 * len(one.held) >= 2 * len(chosen) - known.fresh
            as_many = max(len(found.held), config.first_size)
            known.fresh = min(known.fresh * (2 if most else 1), as_many)
        elif known.fresh == 1:
            held = len(known.best.held)
            reason = f"{held} {targets.units} are held and {held + 1} were not, in every start"
            return known.result(reason, complete=True)
        else:
            known.fresh //= 2
    return known.result(f"the whole {targets.whole} is held", complete=True)
