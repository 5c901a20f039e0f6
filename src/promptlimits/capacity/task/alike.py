"""Notes on texts that a reader would take for one another, and on what does not show."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from promptlimits.capacity.task.pairs import Pair

_JOINERS: Final = "\u200c\u200d"
"""Zero-width characters that several scripts and emoji need."""

_HIDDEN: Final = re.compile(
    "[\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)
_UNSEEN: Final = re.compile(f"{_HIDDEN.pattern}|[{_JOINERS}]")
_SHOWN: Final = 40


def notes_on_texts(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """What a reader of the pairs might not see."""
    texts = [(pair.where, text) for pair in pairs for text in (pair.key, pair.value)]
    keys = [(pair.where, pair.key) for pair in pairs]
    values: dict[str, str] = {}
    for pair in pairs:
        values.setdefault(pair.value, pair.where)
    return (
        *_counted(
            texts,
            lambda text: text != text.strip(),
            "keys and values that begin or end in white space",
        ),
        *_counted(
            texts,
            lambda text: _HIDDEN.search(text) is not None,
            "keys and values with characters that do not show",
        ),
        *_alike("keys", keys),
        *_alike("values", [(where, text) for text, where in values.items()]),
    )


def _counted(
    texts: Iterable[tuple[str, str]], odd: Callable[[str], bool], what: str
) -> tuple[str, ...]:
    found = [(where, text) for where, text in texts if odd(text)]
    if not found:
        return ()
    where, text = found[0]
    return (f"{what}, kept as they are: {len(found)}, the first is {_ascii(text)}, {where}",)


def _alike(called: str, texts: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    same, same_first = _repeats(texts, _look)
    loose, loose_first = _repeats(texts, _loosely)
    notes = []
    if same_first:
        notes.append(
            f"{called} that look like an earlier one, in another Unicode form or with characters "
            f"that do not show: {same}, the first are {same_first}"
        )
    if loose > same:
        notes.append(
            f"{called} that differ from an earlier one only in case, white space or the form of "
            f"a character: {loose - same}, the first are {loose_first}"
        )
    return tuple(notes)


def _repeats(
    texts: Sequence[tuple[str, str]], form: Callable[[str], str]
) -> tuple[int, str | None]:
    """How many texts have the form of an earlier one; and the first such two that look unlike.

    Of `_look` the two always look the same.
    """
    seen: dict[str, tuple[str, str]] = {}
    number, example = 0, None
    for where, text in texts:
        first_where, first = seen.setdefault(form(text), (where, text))
        if text == first:
            continue
        number += 1
        if example is None and (form is _look or _look(text) != _look(first)):
            example = f"{_ascii(first)}, {first_where}, and {_ascii(text)}, {where}"
    return number, example


def _look(text: str) -> str:
    return unicodedata.normalize("NFC", _UNSEEN.sub("", text))


def _loosely(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", _look(text)).casefold().split())


def _ascii(text: str) -> str:
    return ascii(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
