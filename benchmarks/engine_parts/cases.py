"""Sizes that are measured, and random pairs of those sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from promptlimits.nets.protocol import EncodedPair, PackedPairs, pack


@dataclass(frozen=True, kw_only=True)
class Case:
    """K pairs behind one prompt.

    A pair has `tokens` tokens, key and value together. Its last token is only a target, so that
    the model reads one token less; a value token is scored at the position before it.

    Attributes:
        pairs: K.
        prompt_tokens: P.
        tokens: Tokens of a pair, key and value, m.
        values: Those of the value.
    """

    pairs: int
    prompt_tokens: int
    tokens: int
    values: int

    @classmethod
    def halves(cls, pairs: int, prompt_tokens: int, tokens: int) -> Case:
        """Pairs whose second half is the value."""
        return cls(
            pairs=pairs, prompt_tokens=prompt_tokens, tokens=tokens, values=tokens - tokens // 2
        )

    @classmethod
    def texts(cls, pairs: int, prompt_tokens: int, tokens: int) -> Case:
        """Texts: all but the first token is the value."""
        return cls(pairs=pairs, prompt_tokens=prompt_tokens, tokens=tokens, values=tokens - 1)

    @property
    def inputs(self) -> int:
        """Tokens of a pair that the model reads."""
        return self.tokens - 1

    @property
    def input_tokens(self) -> int:
        """T, of all pairs."""
        return self.pairs * self.inputs

    @property
    def reads(self) -> int:
        """R, positions read of all pairs."""
        return self.pairs * self.values

    @property
    def places_read(self) -> range:
        """Which places of a pair are read, from 1: how many of its own keys each one sees."""
        return range(self.inputs - self.values + 1, self.inputs + 1)


SMALL_CASES: Final = (
    Case.halves(64, 8, 8),
    Case.halves(64, 64, 8),
    Case.halves(256, 128, 4),
    Case.texts(16, 1, 128),
)
SMOLLM2_CASES: Final = (
    Case.halves(64, 8, 8),
    Case.halves(64, 64, 8),
    Case.texts(16, 1, 128),
)


def random_pairs(case: Case, *, vocabulary: int, seed: int = 0) -> list[EncodedPair]:
    """Pairs of random tokens, each pair with another first half of its key.

    Args:
        case: Sizes.
        vocabulary: V; token 0 is left out, the end marker of the small model.
        seed: Seed of the tokens.

    Returns:
        K pairs. They have no text: nothing here is decoded.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (case.pairs, case.tokens)
    rows = torch.randint(1, vocabulary, shape, generator=generator)
    # Two equal keys with two values could not both be held.
    rows[:, 0] = 1 + torch.randperm(vocabulary - 1, generator=generator)[: case.pairs]
    split = case.tokens - case.values
    return [
        EncodedPair(key="", value="", key_ids=tuple(row[:split]), value_ids=tuple(row[split:]))
        for row in rows.tolist()
    ]


def random_packed(case: Case, *, vocabulary: int, seed: int = 0) -> PackedPairs:
    """The same pairs, packed."""
    return pack(random_pairs(case, vocabulary=vocabulary, seed=seed))
