"""Running the counterexample of an erratum, and what it gives.

What a counterexample needs is imported when it runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Final

from promptlimits.base.errors import UserError
from promptlimits.base.typing import JsonObject
from promptlimits.lab.errata.statements import Erratum, erratum


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


# Module, function, and which options it takes. E8 and E11 are integer arithmetic; the others
# import torch.
_RUNNERS: Final[dict[str, tuple[str, str, frozenset[str]]]] = {
    "E3": ("shares", "share_of_volume", frozenset({"seed"})),
    "E4": ("shares", "share_of_an_interval", frozenset()),
    "E8": ("arithmetic", "covering", frozenset()),
    "E9": ("measures", "prompt_written_twice", frozenset({"seed"})),
    "E10": ("measures", "rademacher_prompts", frozenset()),
    "E11": ("arithmetic", "dimension", frozenset({"heads"})),
    "E12": ("shares", "reachable_zero", frozenset({"heads", "seed"})),
    "E13": ("single_layer", "floor_of_errors", frozenset({"heads", "seed"})),
    "E14": ("single_layer", "offset_of_targets", frozenset()),
    "E15": ("single_layer", "codimension", frozenset({"heads", "seed"})),
    "E17": ("measures", "running_mean", frozenset()),
    "W4": ("trap", "contracting_blocks", frozenset({"seed"})),
}


def run(key: str, *, heads: int | None = None, seed: int | None = None) -> Counterexample | None:
    """Run the counterexample of an erratum."""
    entry = erratum(key)
    given = {name: value for name, value in (("heads", heads), ("seed", seed)) if value is not None}
    _require_values(given)
    module, function, takes = _RUNNERS.get(entry.key, ("", "", frozenset[str]()))
    for name in given:
        if name not in takes:
            raise _superfluous(name, entry)
    if entry.key not in _RUNNERS:
        return None
    # Names from the table above, never from the user.
    runner = getattr(import_module(f"promptlimits.lab.errata.{module}"), function)
    counterexample: Counterexample = runner(**given)
    return counterexample


def _require_values(given: dict[str, int]) -> None:
    if given.get("heads", 1) < 1:
        raise UserError("--heads", "be 1 or more", got=given["heads"], remedy="give 4")
    if not 0 <= given.get("seed", 0) < 2**63:
        raise UserError("--seed", "be from 0 to 2^63 - 1", got=given["seed"], remedy="give 0")


def _superfluous(name: str, entry: Erratum) -> UserError:
    able = ", ".join(key for key, (_, _, takes) in _RUNNERS.items() if name in takes)
    return UserError(
        f"--{name}", f"come with one of {able}", got=f"it with {entry.key}", remedy="leave it out"
    )


def require_heads(heads: int, *, most: int, usual: int) -> None:
    """Refuse more heads than a counterexample can afford."""
    if not 1 <= heads <= most:
        raise UserError(
            "--heads", f"be from 1 to {most}", got=heads, remedy=f"leave it out for {usual}"
        )
