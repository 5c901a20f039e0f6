"""Which token ids say a text, and what ids say, to the last blank.

The class is written into every witness's replay.py as it stands, so that stock tools check a
witness by the same rules: it needs a tokenizer, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any


class Spelling:
    """From ids to their text and back, as a stock tokenizer has it.

    Many tokenizers write a space in front of every text, or drop the one that a text begins
    with. Behind other text they do neither. So what follows a key is read, and written, behind
    a first word: the ids of "Paris" may then say " Paris", and those of "    x" four blanks.

    Args:
        tokenizer: The stock tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def alone(self, ids: Sequence[int], *, special: bool = True) -> str:
        """Return the text of ids at the beginning; `special`: whether special tokens show."""
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False
        )
        return text

    def behind(self, ids: Sequence[int], *, special: bool = True) -> str:
        """Return the text of ids behind other text; `special`: whether special tokens show."""
        before = self.alone(self._word, special=special)
        longer = self.alone([*self._word, *ids], special=special)
        known = longer.startswith(before)
        return longer[len(before) :] if known else self.alone(ids, special=special)

    def ids_alone(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text at the beginning, without markers."""
        return next((ids for ids in self._forms(text) if self.alone(ids) == text), self.read(text))

    def ids_behind(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text behind other text, without markers.

        They say the text exactly wherever the tokenizer has ids that do. Some have none: they
        lower its case, or know a character not at all. Then the ids are those of the bare text.
        """
        exact = (ids for ids in self._forms(text) if self.behind(ids) == text)
        # A space of its own is not written twice.
        bare = text[1:] if text[:1] == " " and self._spaces_by_itself else text
        return next(exact, None) or self.read(bare)

    def read(self, text: str) -> tuple[int, ...]:
        """Return the ids that the tokenizer gives for a text, without markers."""
        return tuple(self._tokenizer(text, add_special_tokens=False).input_ids)

    def asked(self, text: str) -> tuple[int, ...]:
        """Return the ids of a key: with an opening marker if one is added, without a closing one.

        Behind a closing marker a model would take the text as finished.
        """
        ids = tuple(self._tokenizer(text).input_ids)
        return ids[: len(ids) - self._closing_markers]

    def _forms(self, text: str) -> Iterator[tuple[int, ...]]:
        """Ids that may say a text, the most natural first."""
        yield self.read(text)
        if text[:1] == " ":
            yield self.read(text[1:])
        for before in ("\n", "a", "."):
            head, whole = self.read(before), self.read(before + text)
            if whole[: len(head)] == head:
                yield whole[len(head) :]

    @cached_property
    def _word(self) -> tuple[int, ...]:
        """Ids to read others behind."""
        return self.read("a")

    @cached_property
    def _spaces_by_itself(self) -> bool:
        """Whether a space is put before every text, even before one that begins with one."""
        return self.read("a a") == self._word * 2 and self.read(" a") != self._word

    @cached_property
    def _closing_markers(self) -> int:
        """How many ids are added behind a text."""
        bare, marked = self._word, tuple(self._tokenizer("a").input_ids)
        for start in range(len(marked) - len(bare) + 1):
            if marked[start : start + len(bare)] == bare:
                return len(marked) - len(bare) - start
        return 0
