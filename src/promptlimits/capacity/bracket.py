"""Floor and ceiling at one prompt length, and what was tried in between."""

from __future__ import annotations

from collections.abc import Collection

from promptlimits.base.errors import RunFailed
from promptlimits.capacity.ceiling import TaskCeiling, floor_bits
from promptlimits.capacity.floor import Floor
from promptlimits.capacity.search.control import is_complete
from promptlimits.capacity.search.search import SearchResult, state_of
from promptlimits.record import parts
from promptlimits.record.parts import Bracket, Control, NoControl, State


def bracket_of(
    floor: Floor,
    ceiling: TaskCeiling,
    search: SearchResult,
    *,
    unprompted: Collection[int] = (),
    control: Control | NoControl | None = None,
    seconds: float = 0.0,
) -> Bracket:
    """What is found and what is proved at one prompt length, as the record shows it.

    No prompt gets credit for what the model answers without one (`unprompted`, indices).
    """
    _require_below(ceiling, len(floor.held), search.prompt_tokens)
    credited = tuple(index for index in floor.held if index not in unprompted)
    state = state_of(search, claimed=floor.claimed, credited=credited)
    pairs, length = floor.targets.pairs(credited), search.prompt_tokens
    bits, verified = floor_bits(ceiling, pairs), floor.verification
    return Bracket(
        state=state,
        kind=ceiling.kind.value,
        prompt_tokens=length,
        stored_bits=ceiling.stored_bits,
        floor=parts.Floor(
            status="not measured" if state is State.NOT_SEARCHED else "found",
            pairs=pairs,
            tokens=floor.targets.tokens(credited),
            bits=bits,
            bits_per_prompt_token=bits / length,
            bits_per_stored_bit=bits / ceiling.stored_bits,
            witness=floor.witness if credited else None,
            prompt_sha256=None if verified is None else verified.prompt_sha256,
            confirmed_by="" if verified is None else verified.confirmed_by,
            also_answered_unprompted=len(floor.held) - len(credited),
            lost_in_replay=floor.loss,
            answers=floor.answers(unprompted),
        ),
        ceiling=ceiling.stated,
        control=control,
        search=tuple(one.row for one in search.attempts),
        complete=is_complete(search, control),
        stopped_because=search.stopped_because,
        seconds=seconds,
    )


def _require_below(ceiling: TaskCeiling, held: int, prompt_tokens: int) -> None:
    """Refuse a contradiction before anyone sees it.

    Facts may pass the ceiling without one: the theorem speaks about random answers, and a model
    predicts facts.
    """
    most = ceiling.pairs
    if ceiling.answers_random and most is not None and held > most:
        raise RunFailed(
            f"{held} pairs are held at {prompt_tokens} prompt tokens, above the ceiling of {most}",
            remedy="trust neither and report this with the output folder: for random answers "
            f"its chance is under 2^{ceiling.share_log2}",
        )
