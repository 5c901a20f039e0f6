"""From the best prompt of a search to a floor: saved, decoded again by stock tools, counted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import torch
from torch import Tensor

from promptlimits.base.errors import UserError
from promptlimits.base.typing import JsonObject, JsonValue
from promptlimits.capacity.search.choice import Choice
from promptlimits.capacity.search.request import Listener
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.beginnings import Beginnings
from promptlimits.capacity.task.encoded import EncodedTask
from promptlimits.capacity.witness.decoding import stock_tools
from promptlimits.capacity.witness.format import (
    pair_json,
    prompt_sha256,
    read_prompt,
    read_witness,
    save_witness,
)
from promptlimits.capacity.witness.fresh_process import BATCH_SIZE, confirm, default_batch_size
from promptlimits.capacity.witness.verification import Verification
from promptlimits.nets.prefix_shape import reader_of_prefixes
from promptlimits.nets.protocol import EncodedPair, FrozenModel, PromptKind


@dataclass(frozen=True, kw_only=True)
class Floor:
    """Pairs that a prompt on disk answers under stock greedy decoding.

    Attributes:
        witness: Name of the witness folder in the output folder; None if nothing was held.
        verification: What stock tools confirmed; None if nothing was held.
        claimed: Indices, into the task, of the pairs that were put to the test; of a text, of the
            one beginning that was.
        held_in_training: Pairs, or tokens of a text from the first on, that training held.
        of_text: Whether it is the floor of a text, whose beginnings count.
    """

    witness: str | None
    verification: Verification | None
    claimed: tuple[int, ...]
    held_in_training: int = 0
    of_text: bool = False

    @property
    def held(self) -> tuple[int, ...]:
        """Indices, into the task or the beginnings of its text, of what was confirmed."""
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
    beginnings: Beginnings | None = None,
    listener: Listener,
) -> Floor:
    """Save a prompt with every pair of the task that it answers, and have that confirmed.

    Of a text it is the longest beginning. Where stock tools write less of it, that much is saved
    and put to the test in its place.
    """
    if choice is None:
        return Floor(witness=None, verification=None, claimed=())
    listener.stage("decoding the best prompt with stock tools in a fresh process", len(choice.held))

    def confirmed(tried: tuple[int, ...]) -> Floor:
        pairs = task.pairs if beginnings is None else beginnings
        verification = _confirmed(
            model,
            task,
            choice.prompt,
            [pairs[index] for index in tried],
            folder=folder / name,
            store=store,
            extra=extra,
            kind=kind,
            beginning=beginnings is not None and tried[0] + 1 < len(beginnings),
            listener=listener,
        )
        return Floor(
            witness=name,
            verification=verification,
            claimed=tried,
            held_in_training=len(choice.held) if beginnings is None else choice.held[-1] + 1,
            of_text=beginnings is not None,
        )

    if beginnings is None:
        return confirmed(choice.held)
    floor = confirmed(choice.held[-1:])
    while written := _tokens_written_short(floor, beginnings):
        floor = confirmed((written - 1,))
    return floor


def _tokens_written_short(floor: Floor, beginnings: Beginnings) -> int:
    """Tokens of the claimed beginning that stock tools wrote, where those are not all of them."""
    (index,) = floor.claimed
    wanted = beginnings[index].value_ids
    (answer,) = () if floor.verification is None else floor.verification.answers
    same = (one == other for one, other in zip(answer.generated_ids, wanted, strict=False))
    alike = sum(takewhile(bool, same))
    return min(alike, index) if alike < len(wanted) else 0


def _confirmed(
    model: FrozenModel,
    task: EncodedTask,
    prompt: Tensor,
    claimed: Sequence[EncodedPair],
    *,
    folder: Path,
    store: Store,
    extra: JsonObject,
    kind: PromptKind,
    beginning: bool,
    listener: Listener,
) -> Verification:
    """What stock tools say of these pairs, from the store if the witness is still on disk."""
    key: JsonObject = {
        "weights": model.card.model_hash,
        "dtype": model.card.compute_dtype,
        "prompt": prompt_sha256(prompt),
        "pairs": [pair_json(pair) for pair in claimed],
        # What other versions lost may hold under these.
        "tools": stock_tools(model.card.compute_dtype),
    }
    together = default_batch_size(model.card.compute_dtype)
    if together != BATCH_SIZE:
        # What was confirmed in batches, before it was known that they matter, is done again.
        key["batch_size"] = together
    known = store.get("verification", key)
    if known is None or not _on_disk(folder, prompt, known):
        save_witness(
            folder,
            prompt=prompt,
            card=model.card,
            task_name=task.name,
            task_hash=task.hash,
            pairs=claimed,
            prefix_shape=(
                reader_of_prefixes(model).prefix_shape if kind is PromptKind.PREFIX else None
            ),
            posed_as="ids" if task.answers_random else "text",
            beginning=beginning,
            extra=extra,
        )
        known = confirm(
            folder,
            model_path=model.card.path,
            on_progress=lambda done, _of: listener.advanced(done) if done else None,
        ).to_json()
        store.put("verification", key, known)
    return Verification.from_json(known)


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


def answer_rows(floor: Floor, order: Sequence[int], unprompted: Collection[int]) -> list[JsonValue]:
    """Every pair put to the test with what was decoded for it, in the order of the search."""
    if floor.verification is None:
        return []
    decoded = dict(zip(floor.claimed, floor.verification.answers, strict=True))
    return [
        {
            "key": decoded[index].key,
            "value": decoded[index].value,
            "decoded": decoded[index].decoded,
            "exact": decoded[index].exact,
            "unprompted": index in unprompted,
            "counted": decoded[index].exact and index not in unprompted,
            "fault": decoded[index].fault,
        }
        for index in order
        if index in decoded
    ]
