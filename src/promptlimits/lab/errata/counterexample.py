"""What running a counterexample gives."""

from __future__ import annotations

from dataclasses import dataclass

from promptlimits.base.typing import JsonObject


@dataclass(frozen=True, kw_only=True)
class Counterexample:
    """The numbers of a counterexample, as computed.

    Attributes:
        key: Whose it is, such as "E13".
        refutes: Whether these numbers contradict the published statement.
        measured: What was computed, in a sentence.
        numbers: The numbers, by name.
    """

    key: str
    refutes: bool
    measured: str
    numbers: JsonObject

    def to_json(self) -> JsonObject:
        """As plain JSON; the numbers stand at the top."""
        return {
            "erratum": self.key,
            "refutes": self.refutes,
            "measured": self.measured,
            **self.numbers,
        }
