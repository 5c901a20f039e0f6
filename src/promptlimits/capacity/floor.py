"""From the best prompt of a search to a floor: saved, decoded again by stock tools, counted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from promptlimits.base.errors import UserError
from promptlimits.base.files import JsonObject
from promptlimits.capacity.search.attempt import RunContext
from promptlimits.capacity.search.choice import Choice
from promptlimits.capacity.search.request import Listener
from promptlimits.capacity.task.encoded import EncodedTask
from promptlimits.capacity.task.targets import Targets
from promptlimits.capacity.witness.files import prompt_sha256
from promptlimits.capacity.witness.format import (
    read_prompt,
    read_witness,
    save_witness,
)
from promptlimits.capacity.witness.fresh_process import Verifier, confirm, default_batch_size
from promptlimits.capacity.witness.stock import stock_tools
from promptlimits.capacity.witness.verification import Verification
from promptlimits.nets.protocol import EncodedPair, PromptKind
from promptlimits.record.parts import Answer, ReplayLoss


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What a prompt on disk makes the model answer under stock greedy decoding."""

    targets: Targets  # what was asked of it
    # Name of the witness folder in the output folder; None if nothing was held.
    witness: str | None = None
    verification: Verification | None = None  # what stock tools confirmed; None if nothing was held
    claimed: tuple[int, ...] = ()  # indices of what was put to the test
    held_in_training: int = 0  # pairs, or tokens of a text from the first on, that training held

    @property
    def held(self) -> tuple[int, ...]:
        """Indices of what was confirmed."""
        if self.verification is None:
            return ()
        answers = zip(self.claimed, self.verification.answers, strict=True)
        return tuple(index for index, answer in answers if answer.exact)

    @property
    def loss(self) -> ReplayLoss | None:
        """What training held and stock tools did not confirm; None if nothing was lost."""
        confirmed = self.targets.count(self.held)
        if confirmed >= self.held_in_training:
            return None
        return ReplayLoss(
            held_in_training=self.held_in_training,
            confirmed=confirmed,
            unit=self.targets.units.removesuffix("s"),
        )

    def answers(self, unprompted: Collection[int]) -> tuple[Answer, ...]:
        """All that was put to the test with what was decoded for it, in the order of the search."""
        if self.verification is None:
            return ()
        decoded = dict(zip(self.claimed, self.verification.answers, strict=True))
        return tuple(
            Answer(
                key=decoded[index].key,
                value=decoded[index].value,
                decoded=decoded[index].decoded,
                exact=decoded[index].exact,
                unprompted=index in unprompted,
                counted=decoded[index].exact and index not in unprompted,
                fault=decoded[index].fault,
            )
            for index in self.targets.shown(self.claimed)
        )


def find_floor(
    place: RunContext,
    task: EncodedTask,
    targets: Targets,
    choice: Choice | None,
    *,
    folder: Path,
    extra: JsonObject,
    listener: Listener,
    verifier: Verifier,
) -> Floor:
    """Save a prompt with all that it holds as a witness, and have that confirmed.

    Where stock tools write less of a text, that much is saved and put to the test in its place.
    """
    if choice is None:
        return Floor(targets=targets)
    listener.stage("decoding the best prompt with stock tools in a fresh process", len(choice.held))
    claimed = targets.claim(choice.held)
    while True:
        verification = _confirmed(
            place,
            task,
            choice.prompt,
            [targets.member(index) for index in claimed],
            folder=folder,
            beginning=targets.is_beginning(claimed),
            extra=extra,
            listener=listener,
            verifier=verifier,
        )
        generated = [answer.generated_ids for answer in verification.answers]
        smaller = targets.smaller_claim(claimed, generated)
        if not smaller:
            break
        claimed = smaller
    return Floor(
        targets=targets,
        witness=folder.name,
        verification=verification,
        claimed=claimed,
        held_in_training=targets.count(choice.held),
    )


def _confirmed(
    place: RunContext,
    task: EncodedTask,
    prompt: Tensor,
    claimed: Sequence[EncodedPair],
    *,
    folder: Path,
    beginning: bool,
    extra: JsonObject,
    listener: Listener,
    verifier: Verifier,
) -> Verification:
    """What stock tools say of these pairs, from the store if the witness is still on disk."""
    card = place.model.card
    key: JsonObject = {
        "weights": card.model_hash,
        "dtype": card.compute_dtype,
        "prompt": prompt_sha256(prompt),
        "pairs": [pair.to_json() for pair in claimed],
        # What other versions lost may hold under these.
        "tools": stock_tools(card.compute_dtype),
        "batch_size": default_batch_size(card.compute_dtype),
    }
    stored = place.store.get("verification", key)
    known = None if stored is None else Verification.from_json(stored)
    if known is None or not _on_disk(folder, prompt, known):
        save_witness(
            folder,
            prompt=prompt,
            card=card,
            task_name=task.name,
            task_hash=task.hash,
            pairs=claimed,
            prefix_shape=place.model.prefix_shape if place.kind is PromptKind.PREFIX else None,
            keys_as=task.keys_as,
            beginning=beginning,
            extra=extra,
        )
        known = confirm(
            folder,
            verifier,
            on_progress=lambda done, _of: listener.advanced(done) if done else None,
        )
        place.store.put("verification", key, known.to_json())
    return known


def _on_disk(folder: Path, prompt: Tensor, verification: Verification) -> bool:
    """Whether the folder is still the witness that the stored verification is about."""
    try:
        witness = read_witness(folder)
        # Refuses an adapter that is not, to the bit, what was verified.
        saved = read_prompt(folder, witness)
    except UserError:
        # Missing, half made or altered: it is simply made again.
        return False
    return witness.verification == verification and torch.equal(saved, prompt)
