"""Pairs as token ids, ready for a model, and the set that their answers come from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from promptlimits.errors import UserError
from promptlimits.tasks.files import shown
from promptlimits.tasks.pairs import Pair, PairTask

if TYPE_CHECKING:
    from collections.abc import Iterable

    from promptlimits.models.protocol import EncodedPair, TextCodec


@dataclass(frozen=True, kw_only=True)
class EncodedTask:
    """Pairs as token ids, no two keys alike, in a fixed order.

    Attributes:
        name: Short name for people.
        pairs: The pairs; at least one.
        places: For each pair, where it comes from, such as "pairs.csv line 3".
        answer_set_size: How many answers there are to choose from, exactly.
        answer_set_text: That set in words.
        answers_random: Whether each answer was drawn independently and uniformly from it.
        source: Where the pairs come from.
        notes: Facts a report must show.
        text_tokens: Tokens of the one text that is to be written; None for a list of pairs.
    """

    name: str
    pairs: tuple[EncodedPair, ...]
    places: tuple[str, ...]
    answer_set_size: int
    answer_set_text: str
    answers_random: bool
    source: str
    notes: tuple[str, ...] = ()
    text_tokens: int | None = None

    @property
    def hash(self) -> str:
        """SHA-256 over the token ids of all pairs in their order, in hexadecimal."""
        ids = [[pair.key_ids, pair.value_ids] for pair in self.pairs]
        return hashlib.sha256(json.dumps(ids, separators=(",", ":")).encode()).hexdigest()


KEY: Final = "{key}"
"""Stands for the key in a template."""


def encode(task: PairTask, codec: TextCodec, *, template: str = KEY) -> EncodedTask:
    """Encode pairs with a model's codec.

    The answers to choose from are the distinct values of the list, as token ids.

    Args:
        task: The pairs.
        codec: The model's codec.
        template: How a key is put to the model, such as "{key}:"; the keys of the result are
            what it makes of them, so they can be typed as they stand.

    Returns:
        The pairs as token ids; each value ends in the end marker.

    Raises:
        UserError: A key or a value has no tokens, a value contains the end marker, or two
            keys have the same tokens. The message names the line. Or the template does not
            hold the key exactly once.
    """
    from promptlimits.models.protocol import EncodedPair

    require_template(template)
    pairs: dict[tuple[int, ...], EncodedPair] = {}
    owner: dict[tuple[int, ...], Pair] = {}
    for pair in task.pairs:
        key = template.replace(KEY, pair.key)
        key_ids = _tokens(pair.where, "key", key, codec.encode_key(key))
        value_ids = _tokens(pair.where, "value", pair.value, codec.encode_value(pair.value))
        if codec.end_id in value_ids:
            raise UserError(
                f"{pair.where}: value",
                "not contain the end marker, at which answers stop",
                got=shown(pair.value),
                remedy="delete the marker: it is added behind each value",
            )
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
        pairs[key_ids] = EncodedPair(
            key=key, value=pair.value, key_ids=key_ids, value_ids=(*value_ids, codec.end_id)
        )
    answers = len({pair.value_ids for pair in pairs.values()})
    return EncodedTask(
        name=task.name,
        pairs=tuple(pairs.values()),
        places=tuple(pair.where for pair in task.pairs),
        answer_set_size=answers,
        answer_set_text=f"the {answers:,} distinct values of the list",
        answers_random=False,
        source=task.source,
        notes=task.notes + _template_note(template) + _lossy(pairs.values(), codec),
    )


def require_template(template: str) -> str:
    """Return `template` if it holds the key exactly once.

    Args:
        template: A template.

    Returns:
        The template.

    Raises:
        UserError: It does not.
    """
    if template.count(KEY) != 1:
        raise UserError(
            "the template", f"hold {KEY} exactly once", got=shown(template), remedy="write {key}:"
        )
    return template


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


def _template_note(template: str) -> tuple[str, ...]:
    return () if template == KEY else (f"keys are put to the model as {shown(template)}",)


def _lossy(pairs: Iterable[EncodedPair], codec: TextCodec) -> tuple[str, ...]:
    """A note on values that come back from their tokens as another text."""
    changed = [
        (pair.value, text)
        for pair in pairs
        if (text := codec.decode(pair.value_ids[:-1]).strip()) != pair.value
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
    """Check that a prompt and each pair fit into the model's context together.

    Args:
        task: The pairs.
        context_length: Most tokens of one sequence.
        prompt_tokens: Tokens of the prompt in front.

    Raises:
        UserError: A pair does not fit; the message names the longest one and its line.
    """
    place, pair = max(
        zip(task.places, task.pairs, strict=True), key=lambda item: len(item[1].input_ids)
    )
    needed = prompt_tokens + len(pair.input_ids)
    if needed > context_length:
        raise UserError(
            place,
            f"fit into the model's context of {context_length} tokens with the prompt in front",
            got=f"{len(pair.input_ids)} tokens behind {prompt_tokens} prompt tokens, {needed} "
            "together",
            remedy="shorten or delete the pair, use fewer prompt tokens, or take a model with a "
            "longer context",
        )
