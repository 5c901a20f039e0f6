"""Options that describe weights to be drawn, such as d=16,h=1,seed=0."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.files import shown


@dataclass(frozen=True, kw_only=True)
class DrawnWeights:
    """One such option.

    Attributes:
        option: As the user types it.
        names: Its names in words, for messages.
        example: A right value.
        defaults: Each name and its number where it is left out; 0 may stand for "derived".
        most: Largest number of each name.
        positive: Names whose numbers are at least 1; head sizes that are given are, too.
        scale: The factor on all weights where it is left out, as text.
    """

    option: str
    names: str
    example: str
    defaults: Mapping[str, int]
    most: Mapping[str, int]
    positive: tuple[str, ...]
    scale: str

    def parsed(self, text: str) -> tuple[dict[str, int], float, set[str]]:
        """Read what the user typed."""
        numbers, scale = dict(self.defaults), float(self.scale)
        seen: set[str] = set()
        for part in text.split(","):
            name, _, value = (piece.strip() for piece in part.partition("="))
            if name in seen or name not in (*self.defaults, "scale"):
                raise self._refused(text)
            seen.add(name)
            if name == "scale":
                scale = self._scale(value)
            elif value.isascii() and value.isdigit() and len(value) < 11:
                numbers[name] = int(value)
            else:
                raise self._refused(text)
        for name, most in self.most.items():
            least = 1 if name in self.positive or (name == "s" and "s" in seen) else 0
            if not least <= numbers[name] <= most:
                raise UserError(
                    f"{name} of {self.option}",
                    f"be from {least} to {most:,}",
                    got=numbers[name],
                    remedy=f"write {self.example}",
                )
        return numbers, scale, seen

    def _scale(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 1e-6 <= value <= 1e6:
            raise UserError(
                f"scale of {self.option}",
                "be from 1e-6 to 1e6",
                got=shown(text),
                remedy=f"write {self.scale}",
            )
        return value

    def _refused(self, text: str) -> UserError:
        return UserError(
            self.option,
            f"be NAME=NUMBER, separated by commas, of {self.names}",
            got=shown(text),
            remedy=f"write {self.example}",
        )
