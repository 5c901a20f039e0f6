"""One vector for a text, searched with the engine: many starts for its first token, one for all.

Whether a vector gets hold of the first token is decided in its first steps and depends on where it
starts and how far those steps throw it: some have it after ten, others keep losing it for hundreds
while the rest of the text is learned. So

1. scouts: many starts learn the first token alone, a pass of a few rows; those that have it first
2. go into heats: some steps each on the whole text, side by side; the one with the least loss
3. goes on alone until every token is right, and from there to a longer beginning of the text.

What a step does to a vector depends on its size in relation to the vector, whose norm grows to
hundreds: from the heats on, the learning rate is a share of the vector's root mean square.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from benchmarks.engine_parts.models import Model

from promptlimits.capacity.train.config import TEXT_SHARPENING_SHARE, TrainingConfig
from promptlimits.capacity.train.engine import train_many
from promptlimits.capacity.train.problem import Fit, Outcome, Problem, StepReport
from promptlimits.capacity.train.state import TrainingState, from_vocabulary
from promptlimits.nets.protocol import EncodedPair, PackedPairs, pack

SCOUTS: Final = 16
SCOUT_STEPS: Final = 40
SCOUT_RATES: Final = (3.0, 1.0)
"""Taken in turn: the larger one is the first to have the first token more often than not."""
SCOUT_LEAD: Final = 0.05
"""Of the first token, far above the usual one: the rest of the text will pull at it."""
HEATS: Final = 3
HEAT_STEPS: Final = 40
RELATIVE_RATE: Final = 0.2
DECAY_STEPS: Final = 300


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """Training on the first tokens of a text.

    Attributes:
        tokens: How many.
        candidates: Vectors trained side by side.
        steps: Steps, those of all candidates being one.
        seconds: What they took.
        right: Largest share of tokens that a vector gave after the right ones before.
        fits: How the candidates ended, the best first.
    """

    tokens: int
    candidates: int
    steps: int
    seconds: float
    right: float
    fits: tuple[Fit, ...]

    @property
    def solved(self) -> bool:
        """Whether the best vector gives every token."""
        return self.fits[0].outcome is Outcome.SOLVED

    def to_json(self) -> dict[str, object]:
        """All but the vectors."""
        return {
            "tokens": self.tokens,
            "candidates": self.candidates,
            "steps": self.steps,
            "minutes": self.seconds / 60,
            "tokens_right": self.right,
            "outcome": self.fits[0].outcome.value,
        }


def search(
    model: Model, ids: Sequence[int], lengths: Sequence[int], *, most_steps: int, seconds: float
) -> list[Stage]:
    """Hold longer and longer beginnings of a text, until one is not held or the time is up.

    Args:
        model: The frozen model.
        ids: The text's tokens.
        lengths: How many of them, one after the other.
        most_steps: Steps of one vector after which a length counts as not held.
        seconds: Time for all stages.

    Returns:
        The stages in order: scouts, heats, then one for each length that was tried.
    """
    deadline = time.perf_counter() + seconds
    stages = [_scouts(model, ids[:1], deadline)]
    # Adam begins anew: the gradients of one token are far larger than those of a text.
    best = [TrainingState.start(fit.prompt, 1) for fit in stages[0].fits[:HEATS]]
    stages.append(_whole(model, ids[: lengths[0]], best, HEAT_STEPS, deadline))
    for length in lengths:
        best = [stages[-1].fits[0].state]
        stages.append(_whole(model, ids[:length], best, most_steps, deadline))
        if not stages[-1].solved:
            break
    return stages


def packed(model: Model, ids: Sequence[int]) -> PackedPairs:
    """The text as the value of one pair, whose key is the beginning-of-text token."""
    begin = (model.stock.config.bos_token_id,)
    return pack([EncodedPair(key="", value="", key_ids=begin, value_ids=tuple(ids))])


def _scouts(model: Model, ids: Sequence[int], deadline: float) -> Stage:
    generator = torch.Generator().manual_seed(0)
    starts = from_vocabulary(model.engine, count=SCOUTS, prompt_tokens=1, generator=generator)
    configs = [
        TrainingConfig(
            prompt_tokens=1,
            first_sharpening_share=TEXT_SHARPENING_SHARE,
            learning_rate=SCOUT_RATES[index % len(SCOUT_RATES)],
            relative_lead=SCOUT_LEAD,
            max_steps=SCOUT_STEPS,
            patience=SCOUT_STEPS,
        )
        for index in range(SCOUTS)
    ]
    states = [TrainingState.start(start, 1) for start in starts]
    return _stage(model, ids, configs, states, deadline=deadline, enough=HEATS)


def _whole(
    model: Model,
    ids: Sequence[int],
    states: Sequence[TrainingState],
    steps: int,
    deadline: float,
) -> Stage:
    """Go on from states, as far as they are about the vector, for some more steps."""
    configs = [
        TrainingConfig(
            prompt_tokens=1,
            first_sharpening_share=TEXT_SHARPENING_SHARE,
            learning_rate=RELATIVE_RATE * float(state.prompt.square().mean().sqrt()),
            decay_steps=state.step + DECAY_STEPS,
            max_steps=state.step + steps,
            patience=state.step + steps,
        )
        for state in states
    ]
    fresh = [
        replace(
            TrainingState.start(state.best_prompt, 1),
            step=state.step,
            best_step=state.step,
            moment_steps=state.moment_steps,
            first_moment=state.first_moment,
            second_moment=state.second_moment,
        )
        for state in states
    ]
    return _stage(model, ids, configs, fresh, deadline=deadline, enough=1)


def _stage(
    model: Model,
    ids: Sequence[int],
    configs: Sequence[TrainingConfig],
    states: Sequence[TrainingState],
    *,
    deadline: float,
    enough: int,
) -> Stage:
    """Train side by side until enough are solved, the steps are done or the time is up."""
    pairs = packed(model, ids)
    problems = [
        Problem(key=index, pairs=pairs, config=config, state=state)
        for index, (config, state) in enumerate(zip(configs, states, strict=True))
    ]
    fits: list[Fit] = []
    done = 0

    def note(key: object, report: StepReport, _state: object) -> None:
        nonlocal done
        done = max(done, report.step - begun[int(str(key))])

    def stop() -> Outcome | None:
        if sum(fit.outcome is Outcome.SOLVED for fit in fits) >= enough:
            return Outcome.OVERTAKEN
        # One step at least: there is no vector to speak of before it.
        return Outcome.OUT_OF_BUDGET if done and time.perf_counter() > deadline else None

    begun = [state.step for state in states]
    began = time.perf_counter()
    ended = train_many(model.engine, problems, slots=len(problems), on_step=note, should_stop=stop)
    # One by one: `stop` counts those that have ended.
    for fit in ended:
        fits.append(fit)  # noqa: PERF402
    stage = Stage(
        tokens=len(ids),
        candidates=len(problems),
        steps=done,
        seconds=time.perf_counter() - began,
        right=max(float(fit.state.most_right) for fit in fits),
        fits=tuple(sorted(fits, key=_standing)),
    )
    return _told(stage)


def _standing(fit: Fit) -> tuple[bool, int, float]:
    """Those solved first in the order of their steps, then by loss."""
    solved = fit.outcome is Outcome.SOLVED
    return not solved, fit.steps if solved else 0, float(fit.state.best_loss)


def _told(stage: Stage) -> Stage:
    print(
        f"cramming: {stage.candidates} vectors, {stage.tokens} tokens, "
        f"{stage.right:.0%} right after {stage.steps} steps, {stage.seconds / 60:.1f} minutes",
        file=sys.stderr,
    )
    return stage
