"""Floor and ceiling at one prompt length, and what was tried in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from promptlimits._typing import JsonObject, JsonValue
from promptlimits.capacity.ceiling import TaskCeiling, floor_bits
from promptlimits.capacity.control import Control, NoControl
from promptlimits.capacity.floor import Floor, answer_rows
from promptlimits.capacity.search import SearchResult
from promptlimits.errors import RunFailed
from promptlimits.tasks.encoded import EncodedTask


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """What is found and what is proved at one prompt length.

    Attributes:
        floor: Found: the pairs a prompt on disk holds.
        ceiling: Proved: how long lists of random answers can be that prompts of this length hold.
        search: Every attempt behind the floor.
        seconds: Time spent at this length, over all resumptions.
        unprompted: Indices of the pairs that the model answers without a prompt: no prompt
            gets credit for them.
        control: What the optimiser made of a planted prompt of the size that failed, or why none
            was run; None where the search held the whole list, or it was not asked for.
    """

    floor: Floor
    ceiling: TaskCeiling
    search: SearchResult
    seconds: float
    unprompted: frozenset[int] = frozenset()
    control: Control | NoControl | None = None

    @property
    def credited(self) -> tuple[int, ...]:
        """Indices of the pairs that were confirmed and that the prompt gets credit for."""
        return tuple(index for index in self.floor.held if index not in self.unprompted)

    def __post_init__(self) -> None:
        """Refuse a contradiction before anyone sees it.

        Facts may pass the ceiling without one: the theorem speaks about random answers, and a
        model predicts facts.

        Raises:
            RunFailed: The floor is above the ceiling and the answers are random.
        """
        held, most = len(self.floor.held), self.ceiling.pairs
        if self.ceiling.answers_random and most is not None and held > most:
            raise RunFailed(
                f"{held} pairs are held at {self.search.prompt_tokens} prompt tokens, above the "
                f"ceiling of {most}",
                remedy="trust neither and report this with the output folder: for random answers "
                f"its chance is under 2^{self.ceiling.to_json()['share_log2']}",
            )

    def to_json(self, task: EncodedTask, *, order: Sequence[int]) -> JsonObject:
        """The bracket as the record shows it.

        Args:
            task: The pairs.
            order: Order in which they were to be held.
        """
        pairs, length, floor = len(self.credited), self.search.prompt_tokens, self.floor
        bits = floor_bits(self.ceiling, pairs)
        verified = floor.verification
        attempts: list[JsonValue] = [one.to_json() for one in self.search.attempts]
        return {
            "kind": self.ceiling.kind.value,
            "prompt_tokens": length,
            "stored_bits": self.ceiling.stored_bits,
            "floor": {
                "status": "found",
                "pairs": pairs,
                "tokens": _text_tokens(task, pairs),
                "bits": bits,
                "bits_per_prompt_token": bits / length,
                "bits_per_stored_bit": bits / self.ceiling.stored_bits,
                "witness": floor.witness if pairs else None,
                "prompt_sha256": None if verified is None else verified.prompt_sha256,
                "confirmed_by": "" if verified is None else verified.confirmed_by,
                "also_answered_unprompted": len(floor.held) - pairs,
                "answers": answer_rows(task, floor, order, self.unprompted),
            },
            "ceiling": self.ceiling.to_json(),
            "control": None if self.control is None else self.control.to_json(),
            "search": attempts,
            "stopped_because": self.search.stopped_because,
            "seconds": self.seconds,
        }


def _text_tokens(task: EncodedTask, pairs: int) -> int | None:
    """Tokens of a text that are held from the first on: all of them, or none that was confirmed."""
    return None if task.text_tokens is None else task.text_tokens * pairs
