"""The planted control: targets that a known prompt makes, trained for like the real ones.

Where a search fails there are two reasons: no prompt of that size holds the pairs, or the
optimiser does not find one. The control takes the size at which the search failed, the same
keys, and as answers what the model itself says behind a planted prompt. So a prompt that
answers them all is known to exist. If training from a fresh start finds one, the optimiser can
reach such a size; if not, the floor may be the optimiser's limit and not the model's. It is one
measurement of one planted prompt: nothing is proved by it. Where the budget was used up before any
size failed there is no failure to explain, and none is run.

Of a text, the planted answer is as long as the beginning that failed, behind the same key.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from promptlimits.base.typing import JsonObject, JsonValue
from promptlimits.capacity.search.attempt import Attempt, Workplace, attempt
from promptlimits.capacity.search.planting import Planted, plant
from promptlimits.capacity.search.search import SearchResult
from promptlimits.capacity.task.beginnings import Beginnings
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.outcome import Outcome
from promptlimits.capacity.train.problem import Stopper
from promptlimits.nets.protocol import EncodedPair, PromptKind


@dataclass(frozen=True, kw_only=True)
class Control:
    """What training recovered of planted pairs.

    Attributes:
        pairs: Planted pairs, of which a known prompt answers every one; of a text, tokens.
        recovered: How many of them the best trained prompt answers exactly; of a text, in a row
            from the first one on.
        outcome: How the training ended.
        steps: Its steps, over all resumptions.
        seconds: Time those took.
        seed: Seed of its start, and of the plant.
        distinct_answers: Different answers among the planted pairs.
        list_distinct_answers: Different answers among as many pairs of the list.
        answer_entropy_bits: Entropy of the planted answers over the keys, of at most
            log2(pairs): that of the list at hand, an estimate of what any keys would give. Of a
            text, this and both numbers of distinct answers are about its single tokens.
        answered_unprompted: Planted pairs that the model also answers without a prompt.
        token_norm: Mean L2 norm of the planted prompt's tokens.
    """

    pairs: int
    recovered: int
    outcome: Outcome
    steps: int
    seconds: float
    seed: int
    distinct_answers: int
    list_distinct_answers: int
    answer_entropy_bits: float
    answered_unprompted: int
    token_norm: float

    @property
    def conclusion(self) -> str:
        """What the control allows one to say, and no more."""
        if not self.outcome.final:
            return (
                f"not finished: {self.recovered} of {self.pairs} after {self.steps} steps, "
                "so nothing follows from it yet"
            )
        if self.outcome is Outcome.SOLVED:
            return "the optimiser finds a prompt of this size where one is known to exist"
        return (
            "a prompt that answers them all exists and was not found, so the floor may be the "
            "optimiser's limit, not the model's"
        )

    def to_json(self) -> JsonObject:
        """The control as the record shows it."""
        return {
            "status": "measured",
            **asdict(self),
            "outcome": self.outcome.value,
            "finished": self.outcome.final,
            "conclusion": self.conclusion,
        }


class NoControl(StrEnum):
    """Why no control was run, though the list is not held."""

    BUDGET_USED_UP = "budget used up"
    NOTHING_PLANTED = "nothing planted"

    @property
    def conclusion(self) -> str:
        """What the floor is worth without one."""
        if self is NoControl.BUDGET_USED_UP:
            return (
                "the budget was used up before any size had failed, so it limits the floor: "
                "nothing shows that the optimiser or the model is at its limit"
            )
        return (
            "the known prompt answers no key by the lead that training asks for, so nothing "
            "tells whether the floor is the optimiser's limit or the model's"
        )

    def to_json(self) -> JsonObject:
        """The reason as the record shows it."""
        return {"status": "not run", "reason": self.value, "conclusion": self.conclusion}


def control_size(result: SearchResult) -> int | None:
    """The size at which a search failed."""
    solved = {one.pairs for one in result.attempts if _is_solved(one)}
    # A start that can go on may yet be solved, whatever became of the others.
    open_sizes = {one.pairs for one in result.attempts if not one.outcome.final}
    low = max(solved, default=0)
    failed = {one.pairs for one in result.attempts if one.pairs > low}
    return min(failed - open_sizes, default=None)


def is_complete(result: SearchResult, control: Control | NoControl | None) -> bool:
    """Whether a larger budget would change nothing: neither search nor control goes on."""
    controlled = not isinstance(control, Control) or control.outcome.final
    return result.complete and controlled


def why_no_size_failed(result: SearchResult, total: int) -> NoControl | None:
    """What to say of a search in which no size failed (`control_size`)."""
    held = max((one.pairs for one in result.attempts if _is_solved(one)), default=0)
    return None if held == total else NoControl.BUDGET_USED_UP


def run_control(
    place: Workplace,
    pairs: Sequence[EncodedPair],
    config: TrainingConfig,
    result: SearchResult,
    *,
    should_stop: Stopper,
) -> Control | NoControl | None:
    """Plant answers at the size where a search failed, and train for them from a fresh start.

    Both the planted pairs and the run are kept in the store, so the same call goes on where it
    was cut off.
    """
    size = control_size(result)
    if size is None:
        return why_no_size_failed(result, len(pairs))
    best = result.best
    norm = None if best is None else float(best.prompt.norm(dim=1).mean())
    keys, wanted = _keys_for(pairs, size)
    planted = _planted_once(place, keys, config, size=wanted, token_norm=norm, stop=should_stop)
    if planted is None:
        return _not_begun(size, config, should_stop() or Outcome.OUT_OF_BUDGET)
    if not planted.pairs:
        return NoControl.NOTHING_PLANTED
    targets = _targets(planted, pairs, size)
    done = attempt(place, targets, config, warm=None, should_stop=should_stop)
    answers = Counter(_answers(targets))
    return Control(
        pairs=len(targets),
        recovered=len(done.held),
        outcome=done.outcome,
        steps=done.steps,
        seconds=done.seconds,
        seed=config.seed,
        distinct_answers=len(answers),
        list_distinct_answers=len(set(_answers(pairs[: len(targets)]))),
        answer_entropy_bits=entropy_bits(tuple(answers.values())),
        # A planted text is written without a prompt as a whole, or it is not.
        answered_unprompted=planted.unprompted * (len(targets) // len(planted.pairs)),
        token_norm=planted.token_norm,
    )


def _keys_for(pairs: Sequence[EncodedPair], size: int) -> tuple[Sequence[EncodedPair], int]:
    """What a planted prompt is asked for, and how many answers of it are wanted."""
    # A list has other keys in reserve, for answers that win by too little; a text has one.
    return ((pairs[size - 1],), 1) if isinstance(pairs, Beginnings) else (pairs, size)


def _targets(planted: Planted, pairs: Sequence[EncodedPair], size: int) -> Sequence[EncodedPair]:
    """What training is asked to recover: a planted text is trained for as the real one was."""
    if not isinstance(pairs, Beginnings):
        return planted.pairs
    return replace(pairs, longest=planted.pairs[0], tokens=size)


def _answers(pairs: Sequence[EncodedPair]) -> list[tuple[int, ...]]:
    """The answers whose diversity is told: values of a list, single tokens of a text."""
    if isinstance(pairs, Beginnings):
        return [(token,) for token in pairs.longest.value_ids]
    return [pair.value_ids for pair in pairs]


def _is_solved(one: Attempt) -> bool:
    return one.outcome is Outcome.SOLVED


def entropy_bits(counts: Sequence[int]) -> float:
    """Entropy, in bits, of the shares that go with counts of at least one each."""
    total = sum(counts)
    # + 0.0 turns the -0.0 of a single answer into 0.
    return -sum(each / total * math.log2(each / total) for each in counts) + 0.0


def _planted_once(
    place: Workplace,
    pairs: Sequence[EncodedPair],
    config: TrainingConfig,
    *,
    size: int,
    token_norm: float | None,
    stop: Stopper,
) -> Planted | None:
    """The planted pairs of the store, made now if they are not there; None if stopped."""
    key: JsonObject = {
        "model": place.model.card.model_hash,
        "dtype": place.model.card.compute_dtype,
        "keys": [[*pair.key_ids, -len(pair.value_ids)] for pair in pairs],
        "size": size,
        "prompt_tokens": config.prompt_tokens,
        "token_norm": token_norm,
        "relative_lead": config.relative_lead,
        "seed": config.seed,
    }
    if place.kind is not PromptKind.SOFT:
        key["kind"] = place.kind.value
    known = place.store.get("plant", key)
    if known is not None:
        return _from_json(known)
    made = plant(
        place.model,
        pairs,
        config,
        size=size,
        token_norm=token_norm,
        should_stop=stop,
        kind=place.kind,
    )
    if made is not None:
        place.store.put("plant", key, _to_json(made))
    return made


def _to_json(planted: Planted) -> JsonObject:
    rows: list[JsonValue] = [
        [pair.key, pair.value, [*pair.key_ids], [*pair.value_ids]] for pair in planted.pairs
    ]
    return {**asdict(planted), "pairs": rows}


def _from_json(record: JsonObject) -> Planted:
    rows = record["pairs"]
    if not isinstance(rows, list):
        raise AssertionError("a stored plant has a list of pairs")
    return Planted(
        pairs=tuple(_pair(row) for row in rows),
        token_norm=float(str(record["token_norm"])),
        unprompted=int(str(record["unprompted"])),
    )


def _pair(row: object) -> EncodedPair:
    if not isinstance(row, list):
        raise AssertionError("a stored pair is a list")
    key, value, key_ids, value_ids = row
    return EncodedPair(key=key, value=value, key_ids=tuple(key_ids), value_ids=tuple(value_ids))


def _not_begun(size: int, config: TrainingConfig, outcome: Outcome) -> Control:
    return Control(
        pairs=size,
        recovered=0,
        outcome=outcome,
        steps=0,
        seconds=0.0,
        seed=config.seed,
        distinct_answers=0,
        list_distinct_answers=0,
        answer_entropy_bits=0.0,
        answered_unprompted=0,
        token_norm=0.0,
    )
