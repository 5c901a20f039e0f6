"""Pairs as token ids, ready for a model, and the set that their answers come from."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.files import shown
from promptlimits.capacity.tables.form import KEY, Asking, joiner_between
from promptlimits.capacity.task.pairs import Pair, PairTask
from promptlimits.capacity.task.targets import Targets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from promptlimits.nets.protocol import EncodedPair, TextCodec


@dataclass(frozen=True, kw_only=True)
class EncodedTask:
    """Pairs as token ids, no two keys alike, in a fixed order.

    Attributes:
        name: Short name for people.
        pairs: The pairs; at least one.
        places: For each pair, where it comes from, such as "pairs.csv line 3".
        answer_set_size: How many answers there are to choose from, exactly.
        answer_set_text: That set in words.
        source: Where the pairs come from.
        notes: Facts a report must show.
    """

    answers_random: ClassVar[bool] = False
    """Whether each answer was drawn independently and uniformly from that set."""

    keys_as: ClassVar[Literal["text", "ids"]] = "text"
    """What a key is: text that the tokenizer reads, or token ids that no text may give."""

    name: str
    pairs: tuple[EncodedPair, ...]
    places: tuple[str, ...]
    answer_set_size: int
    answer_set_text: str
    source: str
    notes: tuple[str, ...] = ()

    @property
    def targets(self) -> Targets:
        """What is asked of a prompt, in the task's own order."""
        return Targets.of(self.pairs)

    @property
    def text_tokens(self) -> int | None:
        """Tokens of the one text that is to be written; None for a list of pairs."""
        return None

    @property
    def hash(self) -> str:
        """SHA-256 over all that is recorded of the pairs, in their order, in hexadecimal."""
        recorded = [
            [pair.key, pair.joiner, pair.value, pair.key_ids, pair.value_ids, *pair.also]
            for pair in self.pairs
        ]
        # A text of one pair is held token by token; a list of that pair is not.
        all_of_it = [self.text_tokens, recorded]
        return hashlib.sha256(json.dumps(all_of_it, separators=(",", ":")).encode()).hexdigest()


def encode(task: PairTask, codec: TextCodec, asking: Asking | None = None) -> EncodedTask:
    """Encode pairs with a model's codec, every character as it was given.

    The answers to choose from are the distinct values of the list, as token ids.

    Args:
        task: The pairs.
        codec: The model's codec.
        asking: How they are put to the model; by default the bare keys. The keys of the result
            are what it makes of them, so they can be typed as they stand.

    Returns:
        The pairs as token ids; each value ends in the end marker.

    Raises:
        UserError: A key or a value has no tokens, a value contains the end marker, or two
            keys have the same tokens. The message names the line. Or the template does not
            hold the key exactly once, or the tokenizer writes no chats.
    """
    asking = asking or Asking()
    if asking.template.count(KEY) != 1:
        raise UserError(
            "the template",
            f"hold {KEY} exactly once",
            got=shown(asking.template),
            remedy="write {key}:",
        )
    bare = functools.cache(codec.encode_value)
    pairs: dict[tuple[int, ...], EncodedPair] = {}
    owner: dict[tuple[int, ...], Pair] = {}
    for pair in task.pairs:
        encoded = _encoded(pair, codec, asking, bare)
        key_ids = encoded.key_ids
        if key_ids in owner:
            first = owner[key_ids]
            raise UserError(
                f"{pair.where}: key",
                "differ as tokens from every other key",
                got=f"{shown(pair.key)}, which the model reads like {shown(first.key)} of "
                f"{first.where}",
                remedy="change or delete one of the two",
            )
        owner[key_ids] = pair
        pairs[key_ids] = encoded
    answers = len({pair.value_ids for pair in pairs.values()})
    return EncodedTask(
        name=task.name,
        pairs=tuple(pairs.values()),
        places=tuple(pair.where for pair in task.pairs),
        answer_set_size=answers,
        answer_set_text=f"the {answers:,} distinct values of the list",
        source=task.source,
        notes=(
            *task.notes,
            *_asking_notes(task, asking),
            *_joiner_note([pair.joiner for pair in pairs.values()]),
            *_also_note(pairs.values()),
            *_lossy(pairs.values(), codec),
        ),
    )


def _encoded(
    pair: Pair, codec: TextCodec, asking: Asking, bare: Callable[[str], tuple[int, ...]]
) -> EncodedPair:
    """One pair as tokens, checked; `bare` gives the tokens of a joiner."""
    from promptlimits.nets.protocol import EncodedPair

    key = asking.template.replace(KEY, pair.key)
    if asking.chat or pair.turns:
        key = codec.chat(pair.turns or (("user", key),))
    key_ids = _tokens(pair.where, "key", key, codec.encode_key(key))
    joiner = _joiner(key, key_ids, pair.value, codec, asking)

    def answer_ids(text: str) -> tuple[int, ...]:
        return _answer_ids(pair.where, joiner + text, codec, shown_as=text, nothing=bare(joiner))

    value_ids = answer_ids(pair.value)
    also: dict[tuple[int, ...], str] = {}
    for text in pair.also:
        ids = answer_ids(text)
        if ids != value_ids:
            also.setdefault(ids, text)
    return EncodedPair(
        key=key,
        value=pair.value,
        key_ids=key_ids,
        value_ids=value_ids,
        joiner=joiner,
        also=tuple((text, ids) for ids, text in also.items()),
    )


def _joiner(
    key: str, key_ids: tuple[int, ...], value: str, codec: TextCodec, asking: Asking
) -> str:
    """What stands between a key and its value."""
    if asking.joiner is not None:
        return asking.joiner
    # A last token that says no text is a marker behind which an answer begins.
    return joiner_between(key, value) if codec.decode(key_ids[-1:]) else ""


def _answer_ids(
    where: str, text: str, codec: TextCodec, *, shown_as: str, nothing: tuple[int, ...]
) -> tuple[int, ...]:
    """Ids of joiner and value and the end marker, checked."""
    found = codec.encode_value(text)
    ids = _tokens(where, "value", shown_as, () if found == nothing else found)
    if set(codec.end_ids) & set(ids):
        raise UserError(
            f"{where}: value",
            "not contain an end marker, at which answers stop",
            got=shown(shown_as),
            remedy="delete it: the model's own is added behind each value",
        )
    return (*ids, codec.end_id)


def _tokens(where: str, field: str, text: str, ids: Iterable[int]) -> tuple[int, ...]:
    tokens = tuple(int(token) for token in ids)
    if not tokens:
        raise UserError(
            f"{where}: {field}",
            "have at least one token",
            got=f"{shown(text)}, of which the tokenizer leaves nothing",
            remedy=f"change the {field} or delete the line",
        )
    return tokens


def _asking_notes(task: PairTask, asking: Asking) -> tuple[str, ...]:
    """What is made of keys before they are asked."""
    notes: tuple[str, ...] = ()
    turns = any(pair.turns for pair in task.pairs)
    if asking.template != KEY and not all(pair.turns for pair in task.pairs):
        notes += (f"keys are put to the model as {shown(asking.template)}",)
    if asking.chat or turns:
        what = "conversations" if turns else "keys"
        notes += (f"{what} are written by the tokenizer's chat template, up to the answer",)
    return notes


def _joiner_note(joiners: Sequence[str]) -> tuple[str, ...]:
    """What stands between keys and values, where anything does."""
    kinds = {joiner: joiners.count(joiner) for joiner in joiners if joiner}
    if not kinds:
        return ("nothing stands between key and value",)
    return tuple(
        f"{'a space' if joiner == ' ' else shown(joiner)} stands between key and value"
        + ("" if count == len(joiners) else f" in {count} of {len(joiners)} pairs")
        for joiner, count in kinds.items()
    )


def _also_note(pairs: Iterable[EncodedPair]) -> tuple[str, ...]:
    several = sum(bool(pair.also) for pair in pairs)
    if not several:
        return ()
    have = "1 pair has" if several == 1 else f"{several} pairs have"
    return (f"{have} further answers that count as well; the first is trained for",)


def _lossy(pairs: Iterable[EncodedPair], codec: TextCodec) -> tuple[str, ...]:
    """A note on values that come back from their tokens as another text."""
    changed = [
        (answer.value, text.removeprefix(answer.joiner))
        for pair in pairs
        for answer in pair.answers
        if (text := codec.decode_value(answer.value_ids[:-1])) != answer.joiner + answer.value
    ]
    if not changed:
        return ()
    value, text = changed[0]
    note = (
        f"{len(changed)} values change when they are encoded and decoded, such as "
        f"{shown(value)} to {shown(text)}: answers are compared as tokens"
    )
    return (note,)


def require_fits(task: EncodedTask, *, context_length: int, prompt_tokens: int) -> None:
    """Check that a prompt and each key fit into the model's context with what it may answer.

    A key may be answered wrongly, so a verification decodes as many tokens behind each one as the
    longest answer of all has.
    """
    placed = list(zip(task.places, task.pairs, strict=True))
    of_key, key = max(((at, len(one.key_ids)) for at, one in placed), key=lambda each: each[1])
    of_answer, answer = max(
        ((at, one.longest_answer) for at, one in placed), key=lambda each: each[1]
    )
    needed = prompt_tokens + key + answer
    if needed > context_length:
        raise UserError(
            of_key if key > answer else of_answer,
            f"fit into the model's context of {context_length} tokens with prompt and answer",
            got=f"{key} tokens of the longest key ({of_key}), {prompt_tokens} of the prompt and "
            f"{answer} of the longest answer ({of_answer}), {needed} together",
            remedy="leave out the longest keys and values, use fewer prompt tokens, or take a "
            "model with a longer context",
        )
