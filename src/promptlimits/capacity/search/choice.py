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
from promptlimits.capacity.train.evaluate import Evaluation, evaluate
from promptlimits.capacity.train.problem import Stopper
from promptlimits.capacity.train.state import TrainingState
from promptlimits.capacity.witness.files import prompt_sha256

CANDIDATES = 2
"""Prompts of a search that are run over what of the list they were not trained for."""

_WORST_NATS = 1e30
"""In place of a loss that is infinite or no number, so that it can be stored and sorted."""


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
    found = sorted((one for one in attempts if one.held), key=lambda one: -one.most_held)
    before = place.store.get("choice", work)
    # Each with what training tells of all targets, if it does.
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
        right = (
            known
            or over_the_list(
                place,
                targets,
                state.best_prompt,
                relative_lead=relative_lead,
                should_stop=should_stop,
            ).right
        )
        held = tuple(sorted(targets.held(right)))
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


def over_the_list(
    place: RunContext,
    targets: Targets,
    prompt: Tensor,
    *,
    relative_lead: float,
    first: int | None = None,
    should_stop: Stopper | None = None,
) -> Evaluation:
    """What the first pairs of a list, or all, say of a prompt; known answers are the store's."""
    asked = targets.trained[:first]
    key: JsonObject = {
        **place.about,
        "members": members_sha256(targets),
        "prompt": prompt_sha256(prompt),
        "relative_lead": relative_lead,
    }
    known: Any = place.store.get("evaluation", key) or {"right": [], "loss_nats": []}
    right, losses = known["right"], known["loss_nats"]
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
        finite = [min(_WORST_NATS, loss) for loss in found.loss_nats]
        losses = [*losses, *finite]
        place.store.put("evaluation", key, {"right": right, "loss_nats": losses})
    return Evaluation(
        right=tuple(right[: len(asked)]),
        lengths=tuple(len(pair.value_ids) for pair in asked[: len(right)]),
        loss_nats=tuple(losses[: len(asked)]),
    )


def _from_hex(text: str) -> TrainingState:
    return TrainingState.from_bytes(bytes.fromhex(text), device=torch.device("cpu"))
