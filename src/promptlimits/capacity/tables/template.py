"""How the cells of a row are written into what is asked: "{question} in {country}:".

A field in braces is the name of a column; `{key}` is the key. `{{` and `}}` are braces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.files import shown

KEY_FIELD: Final = "key"
_BRACES: Final = {"{{": "{", "}}": "}"}
_PIECE: Final = re.compile(r"(\{\{|\}\}|[^{}]+)|\{([^{}]+)\}|([{}])")


@dataclass(frozen=True, kw_only=True)
class Template:
    """A template, taken apart.

    Attributes:
        text: The template as given.
        pieces: Its pieces in order: a text and None, or "" and the name of a field.
    """

    text: str
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
