"""What training held and stock tools did not confirm: said with numbers, and never passed over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from promptlimits.base.typing import JsonObject
from promptlimits.capacity.floor import Floor


@dataclass(frozen=True, kw_only=True)
class ReplayLoss:
    """A floor below what its prompt held in training.

    Attributes:
        held_in_training: Pairs, or tokens of a text from the first on, that training held.
        confirmed: How many of them stock tools confirmed.
        unit: What is counted: "pair" or "token".
    """

    held_in_training: int
    confirmed: int
    unit: str

    def __str__(self) -> str:
        """In one sentence."""
        units = f"{self.unit}s" if self.held_in_training != 1 else self.unit
        return (
            f"training held {self.held_in_training} {units}, stock tools confirmed "
            f"{self.confirmed or 'none'} of them"
        )


def replay_loss(floor: Floor) -> ReplayLoss | None:
    """Compare what was confirmed with what was held in training."""
    confirmed = max(floor.held, default=-1) + 1 if floor.of_text else len(floor.held)
    if confirmed >= floor.held_in_training:
        return None
    return ReplayLoss(
        held_in_training=floor.held_in_training,
        confirmed=confirmed,
        unit="token" if floor.of_text else "pair",
    )


def loss_json(floor: Floor) -> JsonObject | None:
    """The record's `lost_in_replay`: None if nothing was lost."""
    loss = replay_loss(floor)
    return None if loss is None else asdict(loss)


def loss_warnings(floor: Floor, of: str) -> list[str]:
    """What a reader of the record must know of a loss."""
    loss = replay_loss(floor)
    return [] if loss is None else [f"{of}: {loss}; only those count"]


def losses(record: JsonObject, *, whole: bool) -> tuple[str, ...]:
    """What stock tools did not confirm of what training held."""
    return tuple(_losses(record, whole=whole))


def _losses(record: Any, *, whole: bool) -> Iterator[str]:
    for part in record.get("brackets", [record]):
        loss = part.get("floor", part)["lost_in_replay"]
        if loss is not None and (loss["confirmed"] == 0) == whole:
            kind = part.get("prompt_kind", part["kind"])
            of = f" of length {part['prompt_tokens']}" if "prompt_tokens" in part else ""
            yield f"{kind} prompt{of}: {ReplayLoss(**loss)}"
