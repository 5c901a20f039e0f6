"""Random keys with random answers: the case of which the counting theorem speaks exactly."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from promptlimits.base.checks import require_positive_int
from promptlimits.base.errors import UserError
from promptlimits.capacity.task.encoded import EncodedTask

if TYPE_CHECKING:
    from promptlimits.nets.protocol import TextCodec

MAX_COUNT: Final = 1_000_000
MAX_TOKENS: Final = 10_000
_TRIES_PER_KEY: Final = 100
_SPARE_TRIES: Final = 100_000


class RandomTask(EncodedTask):
    """Random keys with random answers, asked as token ids."""

    answers_random: ClassVar[bool] = True
    keys_as: ClassVar[Literal["text", "ids"]] = "ids"


def random_pairs(
    codec: TextCodec, *, count: int, key_tokens: int = 1, value_tokens: int = 1, seed: int
) -> RandomTask:
    """Draw random pairs.

    Each token of each value is independent and uniform over the codec's plain tokens; nothing
    is rejected, so each value is uniform over all sequences of that length. Keys are drawn
    without replacement, and only those are kept that a user can type: no white space at their
    ends, and the stock tokenizer reads their text as the same tokens.

    Args:
        codec: The model's codec.
        count: Pairs.
        key_tokens: Tokens of each key.
        value_tokens: Tokens of each value, without the end marker.
        seed: The same seed gives the same pairs; a larger count extends them, keys and values.

    Returns:
        The pairs.

    Raises:
        UserError: A size is no whole number above 0, the count is too large, or the model's
            plain tokens do not give that many distinct keys.
    """
    from promptlimits.nets.protocol import EncodedPair

    require_sizes(count=count, key_tokens=key_tokens, value_tokens=value_tokens)
    seed = require_seed(seed)
    plain = tuple(token for token in codec.plain_token_ids() if token != codec.end_id)
    keys = _draw_keys(codec, plain, key_tokens, count, random.Random(2 * seed))
    # A stream of its own, so that values do not depend on which keys were kept.
    values = random.Random(2 * seed + 1)
    pairs = []
    for key_ids in keys:
        value_ids = tuple(plain[values.randrange(len(plain))] for _ in range(value_tokens))
        pairs.append(
            EncodedPair(
                key=codec.decode(key_ids),
                value=codec.decode_value(value_ids),
                key_ids=key_ids,
                value_ids=(*value_ids, codec.end_id),
            )
        )
    tokens = "token" if value_tokens == 1 else "tokens"
    return RandomTask(
        name=f"random:{count},{key_tokens},{value_tokens}",
        pairs=tuple(pairs),
        places=tuple(f"random pair {number}" for number in range(1, count + 1)),
        answer_set_size=len(plain) ** value_tokens,
        answer_set_text=(
            f"all sequences of {value_tokens} {tokens} out of {len(plain):,} plain tokens"
        ),
        source=f"drawn with seed {seed}",
    )


def require_sizes(*, count: int, key_tokens: int = 1, value_tokens: int = 1) -> None:
    """Check the sizes of random pairs as far as that goes without a model."""
    for name, size, most in (
        ("key tokens", key_tokens, MAX_TOKENS),
        ("value tokens", value_tokens, MAX_TOKENS),
        ("count of random pairs", count, MAX_COUNT),
    ):
        if require_positive_int(name, size) > most:
            raise UserError(name, f"be at most {most:,}", got=f"{size:,}", remedy="ask for fewer")


def require_seed(seed: object) -> int:
    """Return `seed` if it is an integer of at least 0."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UserError(
            "seed", "be a whole number of at least 0", got=seed, remedy="give 0, 1, 2, ..."
        )
    return seed


def _draw_keys(
    codec: TextCodec, plain: tuple[int, ...], length: int, count: int, source: random.Random
) -> list[tuple[int, ...]]:
    """Draw `count` distinct keys without white space at their ends, read back as they are."""
    possible = len(plain) ** length
    keys = []
    if count <= possible:
        tries = _SPARE_TRIES + _TRIES_PER_KEY * count
        for index in islice(_without_replacement(possible, source), tries):
            ids = _digits(index, plain, length)
            text = codec.decode(ids)
            if text == text.strip() and codec.encode_key(text) == ids:
                keys.append(ids)
                if len(keys) == count:
                    return keys
    most, kind = possible, f"{length} of the model's {len(plain):,} plain tokens"
    if count <= possible:
        most, kind = len(keys), f"{kind} that its tokenizer reads back from their text"
    raise UserError(
        "count of random pairs",
        f"be at most {most:,}, the distinct keys of {kind}",
        got=f"{count:,}",
        remedy="ask for fewer pairs or longer keys, as in random:64,2",
    )


def _without_replacement(total: int, source: random.Random) -> Iterator[int]:
    """All of range(total) in a random order: a shuffle that stores only what it moved."""
    moved: dict[int, int] = {}
    for position in range(total):
        chosen = source.randrange(position, total)
        yield moved.get(chosen, chosen)
        moved[chosen] = moved.pop(position, position)


def _digits(index: int, plain: tuple[int, ...], length: int) -> tuple[int, ...]:
    """The index-th sequence of plain tokens, read as a number in base len(plain)."""
    ids = []
    for _ in range(length):
        index, digit = divmod(index, len(plain))
        ids.append(plain[digit])
    return tuple(ids)
