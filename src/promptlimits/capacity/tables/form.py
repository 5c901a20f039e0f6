"""The form in which pairs are put to a model: what is written around a key and before a value.

A template writes the cells of a row: "{question} in {country}:". A field in braces is the name of a
column; `{key}` is the key. `{{` and `}}` are braces.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.files import shown

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


KEY_FIELD: Final = "key"
_BRACES: Final = {"{{": "{", "}}": "}"}
_PIECE: Final = re.compile(r"(\{\{|\}\}|[^{}]+)|\{([^{}]+)\}|([{}])")


@dataclass(frozen=True, kw_only=True)
class Template:
    """A template, taken apart."""

    text: str  # the template as given
    # Its pieces in order: a text and None, or "" and the name of a field.
    pieces: tuple[tuple[str, str | None], ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of its fields, in order, each once."""
        return tuple(dict.fromkeys(field for _, field in self.pieces if field is not None))

    @property
    def of_the_key_alone(self) -> bool:
        """Whether it writes the key once, and nothing else that has a meaning in braces."""
        braces = any("{" in text or "}" in text for text, _ in self.pieces)
        return [field for _, field in self.pieces if field] == [KEY_FIELD] and not braces

    def render(self, cells: Mapping[str, str]) -> str:
        """Write cells into the template."""
        return "".join(text if field is None else cells[field] for text, field in self.pieces)


def parse_template(text: str) -> Template:
    """Take a template apart."""
    pieces: list[tuple[str, str | None]] = []
    for literal, field, stray in _PIECE.findall(text):
        if stray:
            raise UserError(
                "the template",
                "hold braces around the names of columns alone",
                got=shown(text),
                remedy="write {{ and }} for braces of your own",
            )
        plain = _BRACES.get(literal, literal)
        pieces.append(("", field) if field else (plain, None))
    if not any(field for _, field in pieces):
        raise UserError(
            "the template",
            "hold a field in braces",
            got=shown(text),
            remedy="write {key} where the key belongs, or the name of a column in braces",
        )
    template = Template(text=text, pieces=tuple(pieces))
    if len(template.fields) < sum(field is not None for _, field in pieces):
        raise UserError(
            "the template",
            "hold each field once",
            got=shown(text),
            remedy="write {key} alone, or each column once",
        )
    return template
