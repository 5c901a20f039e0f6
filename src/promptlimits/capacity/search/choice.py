"""Which of the prompts that a search found goes to disk: the one that holds most of the list.

A prompt is trained for some pairs and may answer others of the list, too: one trained for 8
capitals was seen to hold 44 of them, and a later one, trained for 16, 40. So candidates are
compared over the whole list. The best one is remembered with the work it came from: the same
work with a larger budget never ends with less.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import safetensors.torch
from torch import Tensor

from promptlimits.base.typing import JsonObject
from promptlimits.capacity.search.attempt import Attempt
from promptlimits.capacity.search.request import about
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.beginnings import Beginnings
from promptlimits.capacity.task.encoded import EncodedTask
from promptlimits.capacity.train.evaluate import evaluate, tokens_in_a_row
from promptlimits.capacity.train.problem import Stopper
from promptlimits.capacity.witness.format import prompt_sha256
from promptlimits.nets.protocol import FrozenModel, PromptKind

CANDIDATES = 2
"""Prompts of a search that are run over the whole list; each costs a forward pass of it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """A prompt and the pairs of the whole list that it answers.

    Attributes:
        prompt: (P, W), on the CPU.
        held: Indices, into the task's pairs or the beginnings of its text, of those that it
            answers with the required lead.
    """

    prompt: Tensor
    held: tuple[int, ...]


def choose(
    model: FrozenModel,
    task: EncodedTask,
    attempts: Sequence[Attempt],
    *,
    store: Store,
    work: JsonObject,
    relative_lead: float,
    order: Sequence[int] | None = None,
    uncredited: Callable[[Collection[int]], Collection[int]] = lambda _held: (),
    kind: PromptKind = PromptKind.SOFT,
    beginnings: Beginnings | None = None,
    should_stop: Stopper | None = None,
) -> Choice | None:
    """Choose the prompt that gets credit for most pairs of the list."""
    found = sorted((one for one in attempts if one.held), key=lambda one: -len(one.held))
    before = store.get("choice", work)
    prompts = [] if before is None else [_from_hex(str(before["prompt"]))]
    at_least = len(prompts) + 1
    prompts += [one.prompt for one in found[:CANDIDATES]]
    asking = _Asking(
        model=model,
        task=task,
        beginnings=beginnings,
        order=tuple(range(len(task.pairs)) if order is None else order),
        store=store,
        relative_lead=relative_lead,
        kind=kind,
    )
    choices: list[Choice] = []
    for prompt in prompts:
        if len(choices) >= at_least and should_stop is not None and should_stop() is not None:
            break
        choices.append(Choice(prompt=prompt, held=asking.held(prompt, should_stop)))

    def credit(one: Choice) -> int:
        return len(set(one.held) - set(uncredited(one.held)))

    best = max(choices, key=credit, default=None)
    if best is None or not best.held:
        return None
    remembered: JsonObject = {"prompt": _to_hex(best.prompt)}
    if remembered != before:
        store.put("choice", work, remembered)
    return best


@dataclass(frozen=True, kw_only=True, eq=False)
class _Asking:
    """How prompts are run over the whole list."""

    model: FrozenModel
    task: EncodedTask
    beginnings: Beginnings | None
    order: tuple[int, ...]
    store: Store
    relative_lead: float
    kind: PromptKind

    def held(self, prompt: Tensor, should_stop: Stopper | None) -> tuple[int, ...]:
        """Indices of what a prompt holds, those of earlier calls from the store."""
        key: JsonObject = {
            **about(self.model, self.task),
            "order": list(self.order),
            "prompt": prompt_sha256(prompt),
            "relative_lead": self.relative_lead,
            "of_text": self.beginnings is not None,
        }
        known = self.store.get("evaluation", key) or {"held": [], "asked": 0}
        held, asked = _indices(known["held"]), int(str(known["asked"]))
        if asked < len(self.order):
            more, done = self._ask(prompt.to(self.model.device), asked, should_stop)
            held, asked = (*held, *more), asked + done
            self.store.put("evaluation", key, {"held": list(held), "asked": asked})
        return tuple(sorted(held))

    def _ask(
        self, prompt: Tensor, asked: int, should_stop: Stopper | None
    ) -> tuple[tuple[int, ...], int]:
        """What it holds of the pairs behind the first `asked`, and how many were run."""
        if self.beginnings is not None:
            longest, lead = self.beginnings.longest, self.relative_lead
            in_a_row = tokens_in_a_row(
                self.model, prompt, longest, relative_lead=lead, kind=self.kind
            )
            return self.beginnings.held_by(in_a_row), len(self.order)
        left = self.order[asked:]
        found = evaluate(
            self.model,
            prompt,
            [self.task.pairs[index] for index in left],
            relative_lead=self.relative_lead,
            kind=self.kind,
            should_stop=should_stop,
        )
        return tuple(left[position] for position in found.held), len(found.exact)


def _indices(stored: object) -> tuple[int, ...]:
    return tuple(int(str(index)) for index in stored) if isinstance(stored, list) else ()


def _to_hex(prompt: Tensor) -> str:
    return safetensors.torch.save({"prompt": prompt.contiguous()}).hex()


def _from_hex(text: str) -> Tensor:
    return safetensors.torch.load(bytes.fromhex(text))["prompt"]
