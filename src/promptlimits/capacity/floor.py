"""From the best prompt of a search to a floor: saved, decoded again by stock tools, counted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from promptlimits._typing import JsonObject, JsonValue
from promptlimits.capacity.choice import Choice
from promptlimits.capacity.fresh_process import BATCH_SIZE, confirm, default_batch_size
from promptlimits.capacity.verification import Verification
from promptlimits.capacity.witness_format import (
    prompt_sha256,
    read_prompt,
    read_witness,
    save_witness,
)
from promptlimits.errors import UserError
from promptlimits.models.prefix_shape import reader_of_prefixes
from promptlimits.models.protocol import FrozenModel, PromptKind
from promptlimits.store.sqlite import Store
from promptlimits.tasks.encoded import EncodedTask


@dataclass(frozen=True, kw_only=True)
class Floor:
    """Pairs that a prompt on disk answers under stock greedy decoding.

    Attributes:
        witness: Name of the witness folder in the output folder; None if nothing was held.
        verification: What stock tools confirmed; None if nothing was held.
        claimed: Indices, into the task, of the pairs that were put to the test.
    """

    witness: str | None
    verification: Verification | None
    claimed: tuple[int, ...]

    @property
    def held(self) -> tuple[int, ...]:
        """Indices, into the task, of the pairs that were confirmed."""
        if self.verification is None:
            return ()
        answers = zip(self.claimed, self.verification.answers, strict=True)
        return tuple(index for index, answer in answers if answer.exact)


def find_floor(
    model: FrozenModel,
    task: EncodedTask,
    choice: Choice | None,
    *,
    folder: Path,
    name: str,
    store: Store,
    extra: JsonObject,
    kind: PromptKind = PromptKind.SOFT,
) -> Floor:
    """Save a prompt with every pair of the task that it answers, and have that confirmed.

    Args:
        model: The frozen model.
        task: All pairs; a prompt counts for those it was not trained for, too.
        choice: The prompt and the pairs to put to the test; None if the search found nothing.
        folder: The output folder.
        name: Name of the witness folder in it.
        store: Its store, which keeps every verification.
        extra: Facts for witness.json, such as the seed.
        kind: What the prompt is.

    Returns:
        The floor: what a fresh process with stock tools confirmed, and nothing else.
    """
    if choice is None:
        return Floor(witness=None, verification=None, claimed=())
    prompt, held = choice.prompt, choice.held
    claimed = [task.pairs[index] for index in held]
    key: JsonObject = {
        "weights": model.card.model_hash,
        "dtype": model.card.compute_dtype,
        "prompt": prompt_sha256(prompt),
        "pairs": [[list(pair.key_ids), list(pair.value_ids)] for pair in claimed],
    }
    together = default_batch_size(model.card.compute_dtype)
    if together != BATCH_SIZE:
        # What was confirmed in batches, before it was known that they matter, is done again.
        key["batch_size"] = together
    known = store.get("verification", key)
    if known is None or not _on_disk(folder / name, prompt, known):
        save_witness(
            folder / name,
            prompt=prompt,
            card=model.card,
            task_name=task.name,
            task_hash=task.hash,
            pairs=claimed,
            prefix_shape=(
                reader_of_prefixes(model).prefix_shape if kind is PromptKind.PREFIX else None
            ),
            posed_as="ids" if task.answers_random else "text",
            extra=extra,
        )
        known = confirm(folder / name, model_path=model.card.path).to_json()
        store.put("verification", key, known)
    verification = Verification.from_json(known)
    return Floor(witness=name, verification=verification, claimed=held)


def _on_disk(folder: Path, prompt: Tensor, verification: JsonObject) -> bool:
    """Whether the folder is still the witness that the stored verification is about."""
    try:
        witness = read_witness(folder)
        # Refuses an adapter that is not, to the bit, what was verified.
        saved = read_prompt(folder, witness)
    except UserError:
        # Missing, half made or altered: it is simply made again.
        return False
    return witness.verification == verification and torch.equal(saved, prompt)


def answer_rows(
    task: EncodedTask, floor: Floor, order: Sequence[int], unprompted: Collection[int]
) -> list[JsonValue]:
    """Every pair of the task with what was decoded for it, in the order of the search.

    Args:
        task: All pairs.
        floor: What was confirmed.
        order: Indices in the order in which pairs were to be held.
        unprompted: Indices of pairs that the model answers without a prompt.

    Returns:
        One JSON object for each pair that was put to the test.
    """
    if floor.verification is None:
        return []
    decoded = dict(zip(floor.claimed, floor.verification.answers, strict=True))
    return [
        {
            "key": task.pairs[index].key,
            "value": task.pairs[index].value,
            "decoded": decoded[index].decoded,
            "exact": decoded[index].exact,
            "unprompted": index in unprompted,
            "counted": decoded[index].exact and index not in unprompted,
            "fault": decoded[index].fault,
        }
        for index in order
        if index in decoded
    ]
