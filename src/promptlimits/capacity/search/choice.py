"""Which of the prompts that a search found goes to disk: the one that holds most of the list.

A prompt is trained for some pairs and may answer others of the list, too: one trained for 8
capitals was seen to hold 44 of them, and a later one, trained for 16, 40. So candidates are
compared over the whole list. The best one is remembered with the work it came from: the same
work with a larger budget never ends with less.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from promptlimits.base.files import JsonObject
from promptlimits.capacity.search.attempt import Attempt, RunContext, members_sha256
from promptlimits.capacity.task.targets import Targets
from promptlimits.capacity.train.evaluate import evaluate
from promptlimits.capacity.train.problem import Stopper
from promptlimits.capacity.train.state import TrainingState
from promptlimits.capacity.witness.files import prompt_sha256

CANDIDATES = 2
"""Prompts of a search that are run over what of the list they were not trained for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """A prompt and what it holds of all that is asked."""

    state: TrainingState  # where the training of the prompt ended, on the CPU
    # Indices, as `Targets` has them, of what it answers with the required lead.
    held: tuple[int, ...]

    @property
    def prompt(self) -> Tensor:
        """(P, W) the prompt."""
        return self.state.best_prompt


def choose(
    place: RunContext,
    targets: Targets,
    attempts: Sequence[Attempt],
    *,
    work: JsonObject,
    relative_lead: float,
    uncredited: Callable[[Collection[int]], Collection[int]] = lambda _held: (),
    should_stop: Stopper | None = None,
) -> Choice | None:
    """Choose the prompt that gets credit for most of the targets."""
    found = sorted((one for one in attempts if one.held), key=lambda one: -len(one.held))
    before = place.store.get("choice", work)
    # Each with what is known of the first targets.
    states: list[tuple[TrainingState, list[int]]] = []
    if before is not None:
        states.append((_from_hex(str(before["state"])), []))
    at_least = len(states) + 1
    states += [
        (one.state, targets.right_in_training(one.size, one.held)) for one in found[:CANDIDATES]
    ]
    choices: list[Choice] = []
    for state, known in states:
        if len(choices) >= at_least and should_stop is not None and should_stop() is not None:
            break
        held = _held(place, targets, state.best_prompt, known, relative_lead, should_stop)
        choices.append(Choice(state=state, held=held))

    def credit(one: Choice) -> int:
        return len(set(one.held) - set(uncredited(one.held)))

    best = max(choices, key=credit, default=None)
    if best is None or not best.held:
        return None
    remembered: JsonObject = {"state": best.state.to_bytes().hex()}
    if remembered != before:
        place.store.put("choice", work, remembered)
    return best


def _held(
    place: RunContext,
    targets: Targets,
    prompt: Tensor,
    known: list[int],
    relative_lead: float,
    should_stop: Stopper | None,
) -> tuple[int, ...]:
    """What a prompt holds; what training or earlier calls asked is not asked again."""
    asked = targets.trained
    key: JsonObject = {
        **place.about,
        "members": members_sha256(targets),
        "prompt": prompt_sha256(prompt),
        "relative_lead": relative_lead,
    }
    stored: Any = place.store.get("evaluation", key)
    right: list[int] = known if stored is None else stored["right"]
    if len(right) < len(asked):
        found = evaluate(
            place.model,
            prompt.to(place.model.device),
            asked[len(right) :],
            relative_lead=relative_lead,
            kind=place.kind,
            should_stop=should_stop,
        )
        right = [*right, *found.right]
        place.store.put("evaluation", key, {"right": [*right]})
    return tuple(sorted(targets.held(right)))


def _from_hex(text: str) -> TrainingState:
    return TrainingState.from_bytes(bytes.fromhex(text), device=torch.device("cpu"))
