"""Floor and ceiling at one prompt length, and what was tried in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from promptlimits.base.errors import RunFailed
from promptlimits.base.typing import JsonObject, JsonValue
from promptlimits.capacity.ceiling import TaskCeiling, floor_bits
from promptlimits.capacity.floor import Floor, answer_rows
from promptlimits.capacity.replay_loss import loss_json
from promptlimits.capacity.search.control import Control, NoControl, is_complete
from promptlimits.capacity.search.search import SearchResult, State, state_of
from promptlimits.capacity.task.encoded import EncodedTask


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """What is found and what is proved at one prompt length.

    Attributes:
        floor: Found: the pairs a prompt on disk holds.
        ceiling: Proved: how long lists of random answers can be that prompts of this length hold.
        search: Every attempt behind the floor.
        seconds: Time spent at this length, over all resumptions.
        unprompted: Indices of the pairs that the model answers without a prompt, or of the
            beginnings of a text that it writes: no prompt gets credit for them.
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

    def to_json(self, task: EncodedTask, *, order: Sequence[int]) -> JsonObject:
        """The bracket as the record shows it."""
        length, floor = self.search.prompt_tokens, self.floor
        tokens = _text_tokens(task, self.credited)
        pairs = len(self.credited) if tokens is None else int(tokens == task.text_tokens)
        bits = floor_bits(self.ceiling, pairs)
        verified = floor.verification
        control = None if self.control is None else self.control.to_json()
        attempts: list[JsonValue] = [_in_unit(task, one.to_json()) for one in self.search.attempts]
        return {
            "state": self.state.value,
            "kind": self.ceiling.kind.value,
            "prompt_tokens": length,
            "stored_bits": self.ceiling.stored_bits,
            "floor": {
                "status": "not measured" if self.state is State.NOT_SEARCHED else "found",
                "pairs": pairs,
                "tokens": tokens,
                "bits": bits,
                "bits_per_prompt_token": bits / length,
                "bits_per_stored_bit": bits / self.ceiling.stored_bits,
                "witness": floor.witness if self.credited else None,
                "prompt_sha256": None if verified is None else verified.prompt_sha256,
                "confirmed_by": "" if verified is None else verified.confirmed_by,
                "also_answered_unprompted": len(floor.held) - len(self.credited),
                "lost_in_replay": loss_json(floor),
                "answers": answer_rows(
                    floor, order if tokens is None else floor.claimed, self.unprompted
                ),
            },
            "ceiling": self.ceiling.to_json(),
            "control": None if control is None else _in_unit(task, control),
            "search": attempts,
            "complete": self.complete,
            "stopped_because": self.search.stopped_because,
            "seconds": self.seconds,
        }


def _text_tokens(task: EncodedTask, credited: Sequence[int]) -> int | None:
    """Tokens of a text that are held from the first on; None for a list."""
    if task.text_tokens is None:
        return None
    return max(credited, default=-1) + 1


def _in_unit(task: EncodedTask, fields: JsonObject) -> JsonObject:
    """A size tried: for a text the number is one of tokens, and so it is called."""
    if task.text_tokens is None:
        return fields
    renamed = {"tokens" if name == "pairs" else name: value for name, value in fields.items()}
    if "remedy" in fields:
        renamed["remedy"] = str(fields["remedy"]).replace("fewer pairs", "fewer tokens")
    return renamed
