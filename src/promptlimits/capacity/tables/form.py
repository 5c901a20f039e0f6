"""The form in which pairs are put to a model: what is written around a key and before a value."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from promptlimits.base.errors import UserError

KEY: Final = "{key}"
"""Stands for the key in a template."""

SURROGATE: Final = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair: no character, and no tokenizer takes it."""

AUTO: Final = "auto"
NONE: Final = "none"

_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
# Scripts of Southeast Asia whose words stand without spaces, as Unicode names their characters.
_UNSPACED: Final = (
    *("THAI ", "LAO ", "KHMER ", "MYANMAR ", "TIBETAN ", "TAI ", "NEW TAI LUE "),
    *("JAVANESE ", "BALINESE ", "AHOM "),
)


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How the pairs of a list are put to a model.

    Attributes:
        template: What is made of a key before it is asked, such as "{key}:".
        chat: Whether that is then written as a user's message by the tokenizer's chat template.
        joiner: What stands between a key and its value, as part of the value, in every pair;
            None for a space where words of a spaced script meet, and nothing elsewhere.
    """

    template: str = KEY
    chat: bool = False
    joiner: str | None = None


def asking_of(
    template: str | None, *, chat: bool = False, joiner: str = AUTO, choices: bool = False
) -> Asking:
    """How a user has pairs asked."""
    if template is not None:
        template = unescaped(template, name="the template")
    elif choices:
        template = f"{KEY}\n{{choices}}" + ("" if chat else "\nAnswer:")
    else:
        template = KEY if chat else f"{KEY}:"
    return Asking(template=template, chat=chat, joiner=parse_joiner(joiner))


def parse_joiner(text: str) -> str | None:
    """The joiner that a user typed."""
    if text == AUTO:
        return None
    return "" if text == NONE else unescaped(text, name="joiner")


def unescaped(text: str, *, name: str) -> str:
    """A text from the command line, with the newlines and tabs that a shell does not take."""
    if SURROGATE.search(text):
        raise UserError(name, "be Unicode text", got=ascii(text), remedy="type it in UTF-8")
    return re.sub(r"\\([ntr\\])", lambda found: _ESCAPES[found[1]], text)


def joiner_between(asked: str, value: str) -> str:
    """What belongs between a key and its value where nobody says so."""
    meeting = (*asked[-1:], *value[:1])
    apart = any(character.isspace() or _is_unspaced(character) for character in meeting)
    return "" if apart else " "


def _is_unspaced(character: str) -> bool:
    """Whether no space stands between words in this script: Han, kana, Thai and their like."""
    name = unicodedata.name(character, "")
    if name.startswith(_UNSPACED):
        return True
    # What is as wide as a Han character, but for Korean, which has spaces, and for emoji.
    wide = unicodedata.east_asian_width(character) in ("W", "F", "H")
    return wide and "HANGUL" not in name and unicodedata.category(character) not in ("So", "Sk")
