"""How many values one number of a prompt can take.

A prompt is stored in one format and computed with in another. The model sees a function of
the stored number and computes with a function of what it sees, so the smaller of the two
counts limits what can make a difference.

Counted are the bit patterns of finite numbers, +0 and -0 as two: sums and products of a
transformer hardly tell them apart, but 1/x and copysign do, the counting theorem allows any
decoding rule, and the price is under 4e-10 bits per number (float32). Infinities and NaNs are
left out of the stored format, because a witness must be finite. A finite stored number can
still overflow when it is converted, so two images (one per sign) are added to the count of a
computing format that differs from the stored one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from promptlimits.base.errors import UserError

# Finite bit patterns: 2 signs * exponents that are not reserved * mantissas.
_FINITE_VALUES: Final = {
    "float64": 2 * 2047 * 2**52,
    "float32": 2 * 255 * 2**23,
    "bfloat16": 2 * 255 * 2**7,
    "float16": 2 * 31 * 2**10,
    "float8_e5m2": 2 * 31 * 2**2,
    "float8_e4m3fn": 2 * (16 * 2**3 - 1),  # no infinities, one NaN per sign
}


@dataclass(frozen=True, kw_only=True)
class NumberFormat:
    """What one number of a prompt can be.

    Attributes:
        name: The format in words. The name of a known format fixes the count, wherever in the
            words it stands; another format needs a name without one.
        values: How many different values reach the computation; at least 2.

    Raises:
        UserError: Fewer than two values, or another count than that of a format named.
    """

    name: str
    values: int

    def __post_init__(self) -> None:
        if isinstance(self.values, bool) or not isinstance(self.values, int) or self.values < 2:
            raise UserError(
                "values of a number format",
                "be a whole number of at least 2",
                got=self.values,
                remedy="count the values that one number of the prompt can take",
            )
        known = _known_values(self.name)
        if known is None and names_a_format(self.name):
            raise UserError(
                "name of a number format",
                "not hold the name of another format",
                got=self.name,
                remedy=f"name a format of your own without {', '.join(_FINITE_VALUES)}",
            )
        if known is not None and known != self.values:
            raise UserError(
                "values of a number format",
                f"be {known} for {self.name}",
                got=self.values,
                remedy="use number_format, or give a format of your own its own name",
            )


def number_format(stored: str, computed: str | None = None) -> NumberFormat:
    """How many values a prompt's number can take, from the names of its formats.

    Args:
        stored: Format the prompt is saved in, such as "float32".
        computed: Format the model computes with; the stored one if None.

    Returns:
        The format with the smaller count.

    Raises:
        UserError: A name is not known.
    """
    values = _finite_values(stored)
    if computed is None or computed == stored:
        return NumberFormat(name=stored, values=values)
    return NumberFormat(
        name=f"{stored} stored, {computed} computed with",
        values=min(values, _finite_values(computed) + 2),
    )


def names_a_format(name: str) -> bool:
    """Whether the name of a format of the table stands somewhere in a text."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return any(known.replace("_", "") in plain for known in _FINITE_VALUES)


def _known_values(name: str) -> int | None:
    """The count of a format by a name that `number_format` gives; None for another name."""
    stored, _, computed = name.removesuffix(" computed with").partition(" stored, ")
    if stored not in _FINITE_VALUES:
        return None
    if name == stored:
        return _FINITE_VALUES[stored]
    whole_name = f"{stored} stored, {computed} computed with"
    if computed in _FINITE_VALUES and computed != stored and name == whole_name:
        return min(_FINITE_VALUES[stored], _FINITE_VALUES[computed] + 2)
    return None


def _finite_values(name: str) -> int:
    if name not in _FINITE_VALUES:
        raise UserError(
            "number format",
            f"be one of {', '.join(_FINITE_VALUES)}",
            got=name,
            remedy="give the format the prompt is stored or computed in",
        )
    return _FINITE_VALUES[name]
