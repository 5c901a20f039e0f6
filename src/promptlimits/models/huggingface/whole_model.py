"""Prompts through transformers' own forward pass: for families this package has no code for.

Parts run one after the other, and what is read of them are logits, so the head is the
identity. Slower than `decoder`, exact all the same, and open to every causal model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from promptlimits.models.protocol import PackedPairs, Part, PromptKind

PartLogits: TypeAlias = Callable[[Tensor, PackedPairs], Tensor]
"""From one prompt (P, W) and K pairs to logits (R, V)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlainBatch:
    """Parts as they are: nothing is computed before the prompts are known.

    Attributes:
        parts: The parts.
        kind: What the prompts are.
        logits_of: Runs one part.
        dtype: What the model computes with.
    """

    parts: tuple[Part, ...]
    kind: PromptKind
    logits_of: PartLogits
    dtype: torch.dtype

    def read_states(self, prompts: Tensor) -> Tensor:
        """Logits (R, V) at the read positions of all parts, one part after the other."""
        each = prompts.to(self.dtype).split([part.prompt_tokens for part in self.parts])
        return torch.cat(
            [
                self.logits_of(prompt, part.pairs)
                for prompt, part in zip(each, self.parts, strict=True)
            ]
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class IdentityHead:
    """The head of a model whose states are its logits.

    Attributes:
        vocabulary: V.
    """

    vocabulary: int

    def logits(self, states: Tensor) -> Tensor:
        """The states."""
        return states

    def pull_back(self, gradient: Tensor) -> Tensor:
        """The gradient."""
        return gradient
