"""A text as a list of its beginnings, so that one searches it as one searches a list of pairs.

The list has one member for each token: the beginning that ends in it, the shortest first. A
prompt that writes one of them has written all before it, so the first n of the list are held
where the n-th is, and it alone is trained for. The last member is the whole text, and only there
must the end marker come: what the model writes behind a beginning is nobody's claim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from promptlimits.capacity.task.encoded import EncodedTask
    from promptlimits.nets.protocol import EncodedPair, TextCodec


@dataclass(frozen=True, kw_only=True)
class Beginnings(Sequence["EncodedPair"]):
    """The beginnings of one text, the shortest first.

    Attributes:
        longest: The last of them.
        tokens: How many there are; an end marker behind the last token is not one more.
        decode: From token ids to their text.
    """

    longest: EncodedPair
    tokens: int
    decode: Callable[[Sequence[int]], str] = field(compare=False, repr=False)

    def __len__(self) -> int:
        return self.tokens

    @overload
    def __getitem__(self, index: int) -> EncodedPair: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[EncodedPair]: ...

    def __getitem__(self, index: int | slice) -> EncodedPair | Sequence[EncodedPair]:
        chosen = range(self.tokens)[index]
        if isinstance(chosen, int):
            return self._of(chosen + 1)
        if chosen and chosen == range(len(chosen)):
            return replace(self, longest=self._of(len(chosen)), tokens=len(chosen))
        return tuple(self._of(each + 1) for each in chosen)

    def held_by(self, in_a_row: int) -> tuple[int, ...]:
        """Which of them a prompt writes."""
        whole = in_a_row == len(self.longest.value_ids)
        return tuple(range(self.tokens if whole else min(in_a_row, self.tokens - 1)))

    def _of(self, tokens: int) -> EncodedPair:
        if tokens == self.tokens:
            return self.longest
        ids = self.longest.value_ids[:tokens]
        return replace(self.longest, value=self.decode(ids), value_ids=ids)


def beginnings(task: EncodedTask, codec: TextCodec) -> Beginnings | None:
    """The beginnings of a task's text."""
    if task.text_tokens is None:
        return None
    return Beginnings(longest=task.pairs[0], tokens=task.text_tokens, decode=codec.decode)


def trained_for(pairs: Sequence[EncodedPair]) -> Sequence[EncodedPair]:
    """What is trained for so that all of `pairs` are held: of beginnings, the longest."""
    return (pairs.longest,) if isinstance(pairs, Beginnings) else pairs


def unit_of(pairs: Sequence[EncodedPair]) -> str:
    """What the members of a list stand for, in the plural: tokens of a text, or pairs."""
    return "tokens" if isinstance(pairs, Beginnings) else "pairs"
