"""Which of the prompts that a search found goes to disk: the one that holds most of the list.

A prompt is trained for some pairs and may answer others of the list, too: one trained for 8
capitals was seen to hold 44 of them, and a later one, trained for 16, 40. So candidates are
compared over the whole list. The best one is remembered with the work it came from: the same
work with a larger budget never ends with less.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import safetensors.torch
from torch import Tensor

from promptlimits._typing import JsonObject
from promptlimits.capacity.attempt import Attempt
from promptlimits.capacity.witness_format import prompt_sha256
from promptlimits.models.protocol import EncodedPair, FrozenModel, PromptKind
from promptlimits.store.sqlite import Store
from promptlimits.tasks.beginnings import Beginnings
from promptlimits.tasks.encoded import EncodedTask
from promptlimits.tuning.evaluate import evaluate, tokens_in_a_row

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
    unprompted: Collection[int] = (),
    kind: PromptKind = PromptKind.SOFT,
    beginnings: Beginnings | None = None,
) -> Choice | None:
    """Choose the prompt that gets credit for most pairs of the list.

    Args:
        model: The frozen model.
        task: All pairs.
        attempts: What a search did.
        store: Where evaluations, and the best choice of the work so far, are kept.
        work: What names the work, whatever its budget: its best choice so far is a candidate.
        relative_lead: Lead by which a token must win, so that rounding cannot turn it.
        unprompted: Indices of pairs that no prompt gets credit for.
        kind: What the prompts are.
        beginnings: Those of the task's text, where they count and not the text as a whole.

    Returns:
        The choice, or None if nothing was held.
    """
    found = sorted((one for one in attempts if one.held), key=lambda one: -len(one.held))
    prompts = [one.prompt for one in found[:CANDIDATES]]
    before = store.get("choice", work)
    if before is not None:
        prompts.append(_from_hex(str(before["prompt"])))
    pairs = task.pairs if beginnings is None else beginnings

    def held(prompt: Tensor) -> tuple[int, ...]:
        return _held(model, task.hash, pairs, prompt, store, relative_lead, kind)

    choices = [Choice(prompt=prompt, held=held(prompt)) for prompt in prompts]
    best = max(choices, key=lambda one: len(set(one.held) - set(unprompted)), default=None)
    if best is None or not best.held:
        return None
    remembered: JsonObject = {"prompt": _to_hex(best.prompt)}
    if remembered != before:
        store.put("choice", work, remembered)
    return best


def _held(
    model: FrozenModel,
    task_hash: str,
    pairs: Sequence[EncodedPair],
    prompt: Tensor,
    store: Store,
    relative_lead: float,
    kind: PromptKind,
) -> tuple[int, ...]:
    """The pairs of the list that a prompt answers, from the store if it was asked before."""
    key: JsonObject = {
        "model": model.card.model_hash,
        "dtype": model.card.compute_dtype,
        "task": task_hash,
        "prompt": prompt_sha256(prompt),
        "relative_lead": relative_lead,
        # Lists are named as they were before texts were searched by their beginnings.
        **({"tokens": len(pairs)} if isinstance(pairs, Beginnings) else {}),
    }
    known = store.get("evaluation", key)
    if known is None:
        on_device = prompt.to(model.device)
        known = {"held": list(_answered(model, pairs, on_device, relative_lead, kind))}
        store.put("evaluation", key, known)
    held = known["held"]
    return tuple(int(str(index)) for index in held) if isinstance(held, list) else ()


def _answered(
    model: FrozenModel,
    pairs: Sequence[EncodedPair],
    prompt: Tensor,
    relative_lead: float,
    kind: PromptKind,
) -> tuple[int, ...]:
    if not isinstance(pairs, Beginnings):
        return evaluate(model, prompt, pairs, relative_lead=relative_lead, kind=kind).held
    return pairs.held_by(
        tokens_in_a_row(model, prompt, pairs.longest, relative_lead=relative_lead, kind=kind)
    )


def _to_hex(prompt: Tensor) -> str:
    return safetensors.torch.save({"prompt": prompt.contiguous()}).hex()


def _from_hex(text: str) -> Tensor:
    return safetensors.torch.load(bytes.fromhex(text))["prompt"]
