"""What a prompt is to make a model write: the answers of a list, or one text token by token.

A search asks for the first n of it, for growing n. Of a list, n counts pairs, in an order that may
be chosen. Of a text it counts tokens: a prompt that writes a beginning of it has written every
shorter one, so the longest beginning asked for is trained for, alone. The end marker must come
behind the whole text only: what the model writes behind a beginning is nobody's claim.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from promptlimits.nets.protocol import EncodedPair


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The answers of a list, the first things first.

    What is held is given by indices: into the pairs of the list, or into the beginnings of a text,
    of which number i has i + 1 tokens.
    """

    units: ClassVar[str] = "pairs"  # what a size counts, in the plural
    whole: ClassVar[str] = "list"  # what all of it is called
    planted_units: ClassVar[str] = "answers"  # what a planted control counts
    own_order: ClassVar[str | None] = None  # its order in words, where it has one of its own

    every: tuple[EncodedPair, ...]  # the pairs of the list
    order: tuple[int, ...]  # indices of those asked for, in their order

    @classmethod
    def of(cls, pairs: Sequence[EncodedPair]) -> Targets:
        """All of a list, as it stands."""
        return Targets(every=tuple(pairs), order=tuple(range(len(pairs))))

    def __len__(self) -> int:
        return len(self.order)

    def first(self, size: int) -> Self:
        """The targets of a smaller size."""
        return replace(self, order=self.order[:size])

    def in_order(self, indices: Sequence[int]) -> Self:
        """The same in another order."""
        return replace(self, order=tuple(indices))

    def held_first(self, held: Collection[int]) -> Self:
        """The order for a longer prompt: what a shorter one holds must not be lost."""
        return self.in_order(sorted(self.order, key=lambda index: index not in held))

    @property
    def trained(self) -> tuple[EncodedPair, ...]:
        """The pairs that a prompt is trained for and asked for."""
        return tuple(self.every[index] for index in self.order)

    def member(self, index: int) -> EncodedPair:
        """A pair of the list, or a beginning of the text, as a witness records it."""
        return self.every[index]

    def held(self, right: Sequence[int]) -> tuple[int, ...]:
        """What is held, from how many tokens of each of `trained` come right in a row."""
        asked = zip(self.order, right, strict=False)
        return tuple(index for index, n in asked if n == len(self.every[index].value_ids))

    def held_in_training(self, exact: Sequence[int], in_a_row: int) -> tuple[int, ...]:
        """What is held, from which of `trained` are exact, or a text's tokens from the first on."""
        return tuple(self.order[place] for place in exact)

    def count_in_training(self, exact: int, in_a_row: int) -> int:
        """How many units that are, from how many of `trained` are exact."""
        return exact

    def right_in_training(self, size: int, held: Collection[int]) -> list[int]:
        """Of each of `trained`, the tokens that come right, if training for a size tells; else [].

        For a pair that is not held 0 stands for any number that is too small.
        """
        if size < len(self):
            return []
        return [len(self.every[index].value_ids) if index in held else 0 for index in self.order]

    def count(self, held: Collection[int]) -> int:
        """How many units are held."""
        return len(held)

    def tokens(self, held: Collection[int]) -> int | None:
        """How many tokens of the text are held, from the first one on; None for a list."""
        return None

    def pairs(self, held: Collection[int]) -> int:
        """How many pairs are held; a text is one."""
        return len(held)

    def tally(self, number: int, said: str) -> str:
        """So many units, and what is said of them, in words."""
        return f"{number} of {len(self)} pairs {said}"

    # --- a witness ------------------------------------------------------------------------

    def claim(self, held: tuple[int, ...]) -> tuple[int, ...]:
        """What a witness of a prompt that holds so much claims."""
        return held

    def smaller_claim(
        self, claimed: tuple[int, ...], generated: Sequence[Sequence[int]]
    ) -> tuple[int, ...]:
        """What to claim instead where stock tools wrote something else; () for nothing."""
        return ()

    def is_beginning(self, claimed: tuple[int, ...]) -> bool:
        """Whether what is claimed ends before its end marker."""
        return False

    def shown(self, claimed: tuple[int, ...]) -> tuple[int, ...]:
        """What is claimed in the order of a record."""
        found = set(claimed)
        return tuple(index for index in self.order if index in found)

    # --- without a trained prompt -----------------------------------------------------------

    def to_ask(self, held: Collection[int]) -> Sequence[int]:
        """The pairs to ask without a prompt, to know which of `held` need none."""
        return sorted(set(held))

    def tokens_right(self, right: Sequence[int]) -> int | None:
        """How many tokens of a text come, from how many of each pair do; None for a list."""
        return None

    def unprompted(self, exact: Collection[int], tokens: int | None) -> frozenset[int]:
        """What needs no prompt, from the pairs answered without one and a text's tokens."""
        return frozenset(exact)

    # --- the planted control ----------------------------------------------------------------

    def planted_keys(self, size: int) -> tuple[tuple[EncodedPair, ...], int]:
        """The pairs whose keys a planted prompt is asked, and how many answers are wanted."""
        # Others are in reserve, for answers that win by too little.
        return self.trained, size

    def planted(self, pairs: tuple[EncodedPair, ...], size: int) -> Targets:
        """Targets of a size with planted answers."""
        return Targets.of(pairs)

    @property
    def answers(self) -> list[tuple[int, ...]]:
        """Token ids of the answers whose diversity is told: single tokens of a text."""
        return [pair.value_ids for pair in self.trained]


@dataclass(frozen=True, kw_only=True)
class TextTargets(Targets):
    """The tokens of one text, from the first one on: a list of one pair, held in part or whole."""

    units = "tokens"
    whole = "text"
    planted_units = "tokens"
    own_order = "from the first token on"

    order: tuple[int, ...] = (0,)
    size: int  # tokens that are asked for; an end marker behind the last one is not one more
    # From token ids to their text.
    decode: Callable[[Sequence[int]], str] = field(compare=False, repr=False)

    def __len__(self) -> int:
        return self.size

    def first(self, size: int) -> Self:
        return replace(self, every=(self.member(size - 1),), size=size)

    def held_first(self, held: Collection[int]) -> Self:
        return self

    def member(self, index: int) -> EncodedPair:
        (longest,) = self.every
        if index + 1 == self.size:
            return longest
        ids = longest.value_ids[: index + 1]
        return replace(longest, value=self.decode(ids), value_ids=ids)

    def held(self, right: Sequence[int]) -> tuple[int, ...]:
        (tokens,) = right
        whole = tokens == len(self.every[0].value_ids)
        return tuple(range(self.size if whole else min(tokens, self.size - 1)))

    def held_in_training(self, exact: Sequence[int], in_a_row: int) -> tuple[int, ...]:
        return self.held([in_a_row])

    def count_in_training(self, exact: int, in_a_row: int) -> int:
        return len(self.held([in_a_row]))

    def right_in_training(self, size: int, held: Collection[int]) -> list[int]:
        found = self.count(held)
        if found == self.size:
            return [len(self.every[0].value_ids)]
        # A prompt that writes all it was trained for may write on.
        return [found] if found < size else []

    def count(self, held: Collection[int]) -> int:
        return max(held, default=-1) + 1

    def tokens(self, held: Collection[int]) -> int | None:
        return self.count(held)

    def pairs(self, held: Collection[int]) -> int:
        return int(self.count(held) == self.size)

    def tally(self, number: int, said: str) -> str:
        return f"{number} of {self.size} tokens {said}, from the first on"

    def claim(self, held: tuple[int, ...]) -> tuple[int, ...]:
        return held[-1:]

    def smaller_claim(
        self, claimed: tuple[int, ...], generated: Sequence[Sequence[int]]
    ) -> tuple[int, ...]:
        (index,), (ids,) = claimed, generated
        wanted = self.member(index).value_ids
        same = (one == other for one, other in zip(ids, wanted, strict=False))
        alike = sum(takewhile(bool, same))
        written = min(alike, index) if alike < len(wanted) else 0
        return (written - 1,) if written else ()

    def is_beginning(self, claimed: tuple[int, ...]) -> bool:
        return self.count(claimed) < self.size

    def shown(self, claimed: tuple[int, ...]) -> tuple[int, ...]:
        return claimed

    def to_ask(self, held: Collection[int]) -> Sequence[int]:
        return (0,)

    def tokens_right(self, right: Sequence[int]) -> int | None:
        return len(self.held(right))

    def unprompted(self, exact: Collection[int], tokens: int | None) -> frozenset[int]:
        return frozenset(range(tokens or 0))

    def planted_keys(self, size: int) -> tuple[tuple[EncodedPair, ...], int]:
        return (self.member(size - 1),), 1

    def planted(self, pairs: tuple[EncodedPair, ...], size: int) -> Targets:
        return replace(self, every=pairs, size=size)

    @property
    def answers(self) -> list[tuple[int, ...]]:
        return [(token,) for token in self.every[0].value_ids]
