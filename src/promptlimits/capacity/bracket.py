"""Floor and ceiling at one prompt length, and what was tried in between."""

from __future__ import annotations

from dataclasses import dataclass

from promptlimits.base.errors import RunFailed
from promptlimits.base.typing import JsonObject
from promptlimits.capacity.ceiling import TaskCeiling, floor_bits
from promptlimits.capacity.floor import Floor
from promptlimits.capacity.search.control import Control, NoControl, is_complete
from promptlimits.capacity.search.search import SearchResult, State, state_of


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """What is found and what is proved at one prompt length.

    Attributes:
        floor: Found: the pairs a prompt on disk holds.
        ceiling: Proved: how long lists of random answers can be that prompts of this length hold.
        search: Every attempt behind the floor.
        seconds: Time spent at this length, over all resumptions.
        unprompted: Indices of what the model answers without a prompt: no prompt gets credit for
            it.
        control: What the optimiser made of a planted prompt of the size that failed, or why none
            was run; None where the search held the whole list, or it was not asked for.
    """

    floor: Floor
    ceiling: TaskCeiling
    search: SearchResult
    seconds: float = 0.0
    unprompted: frozenset[int] = frozenset()
    control: Control | NoControl | None = None

    @property
    def state(self) -> State:
        """What became of this length."""
        return state_of(self.search, claimed=self.floor.claimed, credited=self.credited)

    @property
    def complete(self) -> bool:
        """Whether a larger budget would change nothing: neither search nor control goes on."""
        return is_complete(self.search, self.control)

    @property
    def credited(self) -> tuple[int, ...]:
        """Indices of what was confirmed and what the prompt gets credit for."""
        return tuple(index for index in self.floor.held if index not in self.unprompted)

    def __post_init__(self) -> None:
        """Refuse a contradiction before anyone sees it.

        Facts may pass the ceiling without one: the theorem speaks about random answers, and a
        model predicts facts.
        """
        held, most = len(self.floor.held), self.ceiling.pairs
        if self.ceiling.answers_random and most is not None and held > most:
            raise RunFailed(
                f"{held} pairs are held at {self.search.prompt_tokens} prompt tokens, above the "
                f"ceiling of {most}",
                remedy="trust neither and report this with the output folder: for random answers "
                f"its chance is under 2^{self.ceiling.to_json()['share_log2']}",
            )

    def to_json(self) -> JsonObject:
        """The bracket as the record shows it."""
        length, floor = self.search.prompt_tokens, self.floor
        pairs = floor.targets.pairs(self.credited)
        bits = floor_bits(self.ceiling, pairs)
        verified = floor.verification
        return {
            "state": self.state.value,
            "kind": self.ceiling.kind.value,
            "prompt_tokens": length,
            "stored_bits": self.ceiling.stored_bits,
            "floor": {
                "status": "not measured" if self.state is State.NOT_SEARCHED else "found",
                "pairs": pairs,
                "tokens": floor.targets.tokens(self.credited),
                "bits": bits,
                "bits_per_prompt_token": bits / length,
                "bits_per_stored_bit": bits / self.ceiling.stored_bits,
                "witness": floor.witness if self.credited else None,
                "prompt_sha256": None if verified is None else verified.prompt_sha256,
                "confirmed_by": "" if verified is None else verified.confirmed_by,
                "also_answered_unprompted": len(floor.held) - len(self.credited),
                "lost_in_replay": floor.loss_json,
                "answers": floor.answer_rows(self.unprompted),
            },
            "ceiling": self.ceiling.to_json(),
            "control": None if self.control is None else self.control.to_json(),
            "search": [one.to_json() for one in self.search.attempts],
            "complete": self.complete,
            "stopped_because": self.search.stopped_because,
            "seconds": self.seconds,
        }
