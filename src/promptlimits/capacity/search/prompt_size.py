"""What the prompts of one bracket are: a kind and a length."""

from __future__ import annotations

from typing import NamedTuple

from promptlimits.base.typing import JsonObject
from promptlimits.nets.protocol import PromptKind


class PromptSize(NamedTuple):
    """A kind of prompt and a number of tokens.

    Attributes:
        kind: What the prompts are.
        tokens: P.
    """

    kind: PromptKind
    tokens: int

    @property
    def in_words(self) -> str:
        """Such as "2 prompt tokens", "a prefix of 1 token"."""
        plural = "s" if self.tokens > 1 else ""
        if self.kind is PromptKind.SOFT:
            return f"{self.tokens} prompt token{plural}"
        return f"a prefix of {self.tokens} token{plural}"

    @property
    def file_name(self) -> str:
        """What files about such prompts have in their names."""
        of_kind = "" if self.kind is PromptKind.SOFT else f"{self.kind.value}-"
        return f"{of_kind}{self.tokens}-tokens"

    @property
    def key(self) -> JsonObject:
        """What names it in the store."""
        return {"prompt_tokens": self.tokens, "kind": self.kind.value}
