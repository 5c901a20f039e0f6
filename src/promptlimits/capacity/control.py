"""The planted control: targets that a known prompt makes, trained for like the real ones.

Where a search fails there are two reasons: no prompt of that size holds the pairs, or the
optimiser does not find one. The control takes the size at which the search failed, the same
keys, and as answers what the model itself says behind a planted prompt. So a prompt that
answers them all is known to exist. If training from a fresh start finds one, the optimiser can
reach such a size; if not, the floor may be the optimiser's limit and not the model's. It is one
measurement of one planted prompt: nothing is proved by it. Where the time was up before any size
failed there is no failure to explain, and none is run.

The planted prompt is drawn in random directions, at the norm of the prompt that the search
found. Measured on SmolLM2-135M with 32 capitals and one prompt token, the answers behind it were:
26 distinct without a prompt; 18 to 22 behind a row of the vocabulary, 18 or 19 behind a mean of
8 or 64 rows (many of them the model's habits, such as "The"); 22 to 27 behind a random direction
at the norm of a token, 28 to 31 at 10 to 100 times that, where trained prompts lie (75 times),
with 0 to 6 of them also said without a prompt. A trained prompt with noise gives 26 to 32, but
it is one that the optimiser could reach, which is the question. Such answers are no easier than
real ones: of 24 planted ones, 8 were recovered after 30 steps.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

import torch
from torch import Tensor

from promptlimits._typing import JsonObject, JsonValue
from promptlimits.capacity.attempt import Attempt, Workplace, attempt
from promptlimits.capacity.search import SearchResult
from promptlimits.models.protocol import EncodedPair, FrozenModel, Part, pack
from promptlimits.tuning.config import TrainingConfig
from promptlimits.tuning.evaluate import evaluate
from promptlimits.tuning.loop import Stopper
from promptlimits.tuning.objective import lead
from promptlimits.tuning.outcome import Outcome

CANDIDATES: Final = 3
"""Prompts drawn, of which the one whose answers begin most diversely is planted."""

SAMPLE: Final = 16
"""Keys that each candidate is asked for that choice, for one token each: that is cheap."""

UNFOUND_NORM: Final = 30.0
"""Norm of a planted token over that of a vocabulary row, where the search found no prompt."""

_NORM_ROWS = 256
_LOGIT_BYTES = 256 * 2**20
# Apart from the seeds of starts, which count up from the seed of the command.
_SEED_OF_PLANT = 2**31


@dataclass(frozen=True, kw_only=True)
class Planted:
    """Pairs whose answers a known prompt gives.

    Attributes:
        pairs: The pairs; their answers end where the real ones do, not in an end marker.
        token_norm: Mean L2 norm of the planted prompt's tokens.
        unprompted: How many of them the model also answers without a prompt.
    """

    pairs: tuple[EncodedPair, ...]
    token_norm: float
    unprompted: int


@dataclass(frozen=True, kw_only=True)
class Control:
    """What training recovered of planted pairs.

    Attributes:
        pairs: Planted pairs, of which a known prompt answers every one.
        recovered: How many of them the best trained prompt answers exactly.
        outcome: How the training ended.
        steps: Its steps, over all resumptions.
        seconds: Time those took.
        seed: Seed of its start, and of the plant.
        distinct_answers: Different answers among the planted pairs.
        list_distinct_answers: Different answers among as many pairs of the list.
        answer_entropy_bits: Entropy of the planted answers over the keys, of at most
            log2(pairs): that of the list at hand, an estimate of what any keys would give.
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

    TIME_WAS_UP = "time was up"
    NOTHING_PLANTED = "nothing planted"

    @property
    def conclusion(self) -> str:
        """What the floor is worth without one."""
        if self is NoControl.TIME_WAS_UP:
            return (
                "the time was up before any size had failed, so the floor is limited by time: "
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
    """The size at which a search failed.

    Args:
        result: The search.

    Returns:
        The smallest size above the largest solved one at which every start ended unsolved; None
        if there is none, because the whole list is held or the time was up first.
    """
    solved = {one.pairs for one in result.attempts if _is_solved(one)}
    # A start that can go on may yet be solved, whatever became of the others.
    open_sizes = {one.pairs for one in result.attempts if not one.outcome.final}
    low = max(solved, default=0)
    failed = {one.pairs for one in result.attempts if one.pairs > low}
    return min(failed - open_sizes, default=None)


def why_no_size_failed(result: SearchResult, total: int) -> NoControl | None:
    """What to say of a search in which no size failed (`control_size`).

    Args:
        result: The search.
        total: Pairs in the list.

    Returns:
        That the time was up; None if the whole list is held.
    """
    held = max((one.pairs for one in result.attempts if _is_solved(one)), default=0)
    return None if held == total else NoControl.TIME_WAS_UP


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

    Args:
        place: Model, store and provenance.
        pairs: The whole list, in the order in which it was to be held.
        config: Settings of the search; its prompt length is the search's.
        result: The search.
        should_stop: Asked before every step.

    Returns:
        The control, or why there is none; None if the search held the whole list.
    """
    size = control_size(result)
    if size is None:
        return why_no_size_failed(result, len(pairs))
    best = result.best
    norm = None if best is None else float(best.prompt.norm(dim=1).mean())
    planted = _planted_once(place, pairs, config, size=size, token_norm=norm, stop=should_stop)
    if planted is None:
        return _not_begun(size, config, should_stop() or Outcome.OUT_OF_TIME)
    if not planted.pairs:
        return NoControl.NOTHING_PLANTED
    done = attempt(place, planted.pairs, config, warm=None, should_stop=should_stop)
    answers = Counter(pair.value_ids for pair in planted.pairs)
    return Control(
        pairs=len(planted.pairs),
        recovered=len(done.held),
        outcome=done.outcome,
        steps=done.steps,
        seconds=done.seconds,
        seed=config.seed,
        distinct_answers=len(answers),
        list_distinct_answers=len({pair.value_ids for pair in pairs[: len(planted.pairs)]}),
        answer_entropy_bits=entropy_bits(tuple(answers.values())),
        answered_unprompted=planted.unprompted,
        token_norm=planted.token_norm,
    )


def _is_solved(one: Attempt) -> bool:
    return one.outcome is Outcome.SOLVED


def entropy_bits(counts: Sequence[int]) -> float:
    """Entropy, in bits, of the shares that go with counts of at least one each.

    Args:
        counts: How often each answer occurs.

    Returns:
        -sum p log2 p; 0 for a single answer.
    """
    total = sum(counts)
    # + 0.0 turns the -0.0 of a single answer into 0.
    return -sum(each / total * math.log2(each / total) for each in counts) + 0.0


def plant(
    model: FrozenModel,
    pairs: Sequence[EncodedPair],
    config: TrainingConfig,
    *,
    size: int,
    token_norm: float | None,
    should_stop: Stopper,
) -> Planted | None:
    """Draw a few known prompts and take the answers of the one that begins most diversely.

    A pair whose planted answer has a token that wins by less than `relative_lead` is passed
    over for the next key of the list: training would not count it, though a prompt for it is
    known. An end marker among the tokens is a token like any other.

    Args:
        model: The frozen model.
        pairs: Keys in their order, with real answers whose numbers of tokens are kept.
        config: Prompt length, lead and seed.
        size: Pairs wanted; there may be fewer.
        token_norm: L2 norm of each planted token; None for `UNFOUND_NORM` vocabulary rows.
        should_stop: Asked before every pass.

    Returns:
        The planted pairs, in the order of the list; None if it was stopped.
    """
    generator = torch.Generator().manual_seed(_SEED_OF_PLANT + config.seed)
    norm = _norm_of_rows(model, generator) * UNFOUND_NORM if token_norm is None else token_norm
    best: Tensor | None = None
    most = -1
    for _ in range(CANDIDATES):
        prompt = _random_directions(model, config.prompt_tokens, norm, generator)
        if should_stop() is not None:
            return None
        heads = [pair.key_ids for pair in pairs[: min(size, SAMPLE)]]
        distinct = len(set(_next_tokens(model, prompt, heads)[0]))
        best, most = (prompt, distinct) if distinct > most else (best, most)
    if best is None:
        raise AssertionError("at least one candidate is drawn")
    kept: list[EncodedPair] = []
    asked = 0
    while len(kept) < size and asked < len(pairs):
        keys = pairs[asked : asked + size - len(kept)]
        said = _answers(model, best, keys, config, should_stop)
        if said is None:
            return None
        kept += said
        asked += len(keys)
    return Planted(pairs=tuple(kept), token_norm=norm, unprompted=_unprompted(model, kept))


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
    known = place.store.get("plant", key)
    if known is not None:
        return _from_json(known)
    made = plant(place.model, pairs, config, size=size, token_norm=token_norm, should_stop=stop)
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


def _norm_of_rows(model: FrozenModel, generator: torch.Generator) -> float:
    """Mean L2 norm of a sample of the vocabulary's rows."""
    plain = torch.tensor(model.codec.plain_token_ids(), dtype=torch.long)
    drawn = plain[torch.randint(len(plain), (_NORM_ROWS,), generator=generator)]
    with torch.no_grad():
        return float(model.embed(drawn.to(model.device)).float().norm(dim=-1).mean())


def _random_directions(
    model: FrozenModel, prompt_tokens: int, norm: float, generator: torch.Generator
) -> Tensor:
    """(P, D) tokens of one norm, drawn on the CPU so that every device gets the same."""
    drawn = torch.randn(prompt_tokens, model.card.dim, generator=generator)
    planted: Tensor = norm * drawn / drawn.norm(dim=1, keepdim=True)
    return planted.to(model.device)


def _unprompted(model: FrozenModel, pairs: Sequence[EncodedPair]) -> int:
    if not pairs:
        return 0
    nothing = torch.zeros(0, model.card.dim, device=model.device)
    return len(evaluate(model, nothing, pairs).held)


def _answers(
    model: FrozenModel,
    prompt: Tensor,
    pairs: Sequence[EncodedPair],
    config: TrainingConfig,
    should_stop: Stopper,
) -> list[EncodedPair] | None:
    """Each key with what the model says behind a prompt, near ties left out; None if stopped."""
    said: list[tuple[int, ...]] = [() for _ in pairs]
    sure = [True] * len(pairs)
    for position in range(max(len(pair.value_ids) for pair in pairs)):
        if should_stop() is not None:
            return None
        going = [
            index
            for index, pair in enumerate(pairs)
            if sure[index] and position < len(pair.value_ids)
        ]
        heads = [pairs[index].key_ids + said[index] for index in going]
        tokens, leads = _next_tokens(model, prompt, heads)
        for index, token, ahead in zip(going, tokens, leads, strict=True):
            said[index] += (token,)
            sure[index] = ahead > config.relative_lead
    return [
        EncodedPair(
            key=pair.key, value=model.codec.decode(ids), key_ids=pair.key_ids, value_ids=ids
        )
        for pair, ids, certain in zip(pairs, said, sure, strict=True)
        if certain
    ]


@torch.no_grad()
def _next_tokens(
    model: FrozenModel, prompt: Tensor, heads: Sequence[tuple[int, ...]]
) -> tuple[list[int], list[float]]:
    """The likeliest next token behind each sequence, and the lead by which it wins."""
    tokens: list[int] = []
    leads: list[float] = []
    most = max(1, _LOGIT_BYTES // (4 * model.card.vocabulary))
    for start in range(0, len(heads), most):
        # One position is read; what would stand there is not known yet.
        probes = [
            EncodedPair(key="", value="", key_ids=ids, value_ids=(0,))
            for ids in heads[start : start + most]
        ]
        packed = pack(probes, device=model.device)
        batch = model.prepare([Part(prompt_tokens=prompt.shape[0], pairs=packed)])
        logits = model.head.logits(batch.read_states(prompt.to(model.dtype)))
        top = logits.argmax(dim=-1)
        tokens += top.tolist()
        leads += lead(logits, top).tolist()
    return tokens, leads
