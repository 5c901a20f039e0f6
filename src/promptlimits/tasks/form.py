"""The form in which pairs are put to a model: what is written around a key and before a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How the pairs of a list are put to a model.

    Attributes:
        template: What is made of a key before it is asked, such as "{key}:".
        chat: Whether that is then written as a user's message by the tokenizer's chat template.
        joiner: What stands between a key and its value, as part of the value, in every pair;
            None for a space where words of a spaced script meet, and nothing elsewhere.
    """

    template: str = "{key}"
    chat: bool = False
    joiner: str | None = None
