"""Check a certificate: compute its value again, with other formulas and other arithmetic.

A certificate is `{"schema", "kind", "inputs", "value"}`. There is one function for each kind. Its
decorator names the inputs and how each is read; from them it gives what must stand under "value":

    @kind(dim=whole(1), eps=between(0))
    def volume(i: Any, value: dict[str, Any]) -> dict[str, Any]:
        return {"log": grid_up(lambda: i.dim * log(i.eps)),
                "most_pairs": Last(lambda k: not negative(lambda: log(i.eps) * k + 5))}

A recorded number is the only right one: a grid point n stands for n 2^-96, the least that is no
less than a real number; a last number is the last at which something holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import ROUND_CEILING
from fractions import Fraction
from math import gcd
from types import SimpleNamespace
from typing import Any, Final, TypeAlias

from promptlimits.checker.intervals import Interval, exp, log, log1p, precision, real

SCHEMA: Final = 1
GRID_BITS: Final = 96
MOST_DIGITS: Final = 960
MOST_PARTS: Final = 1000
"""Layers of a model, heads of a layer."""
_EXACT = re.compile(r"(-?\d{1,1300}|-?0x[0-9a-f]+)(?:/(\d{1,1300}|0x[0-9a-f]+))?", re.ASCII)
_LONGEST: Final = 5000
"""Characters of a number: fractions of longer ones take Python minutes to reduce."""
_LONGEST_COUNT: Final = 100_000
Reader: TypeAlias = Callable[[Any], Any]
Powers: TypeAlias = list[tuple[int, int]]
"""Bases and exponents of a product."""


class Refuted(Exception):
    """The certificate can be read and is false."""


# Readers of inputs: each returns the number or raises ValueError.


def only(
    holds: Callable[[Any], bool], otherwise: str, *, of: Reader = lambda value: value
) -> Reader:
    """What another reader gives, if something holds of it."""

    def read(value: Any) -> Any:
        found = of(value)
        if not holds(found):
            raise ValueError(f"{value!r:.50} is {otherwise}")
        return found

    return read


def whole(least: int) -> Reader:
    """A JSON integer."""
    otherwise = f"no whole number from {least} to 10^18"
    return only(lambda value: type(value) is int and least <= value <= 10**18, otherwise)


def one_of(*names: str) -> Reader:
    """One of these texts."""
    return only(lambda value: value in names, f"not one of {', '.join(names)}")


boolean: Final = only(lambda value: type(value) is bool, "neither true nor false")


def exact(value: Any, *, longest: int = _LONGEST) -> Fraction:
    """An integer or a fraction as text, in its one form: lowest terms, hexadecimal if long."""
    short = isinstance(value, str) and len(value) <= longest
    match = _EXACT.fullmatch(value) if short else None
    if not match or not int(match[2] or "1", 0):
        raise ValueError(f"{value!r:.50} is no exact number")
    number = Fraction(int(match[1], 0), int(match[2] or "1", 0))
    parts = number.as_integer_ratio() if match[2] else (number.numerator,)
    form = "/".join(str(n) if n.bit_length() <= 4096 else hex(n) for n in parts)
    if form != value or match[2] == "1":
        raise ValueError(f"{value!r:.50} is not in its one form")
    return number


def between(low: int, high: int | None = None, *, closed: bool = False) -> Reader:
    """An exact number above `low` (or `low`, if closed) and below `high`."""

    def inside(number: Fraction) -> bool:
        above = number >= low if closed else number > low
        return above and (high is None or number < high)

    return only(inside, "out of range", of=exact)


def count(least: int) -> Reader:
    """A whole number of any length, as text."""

    def read(value: Any) -> int:
        number = exact(value, longest=_LONGEST_COUNT)
        if number < least or number.denominator > 1:
            raise ValueError(f"{value!r:.50} is no count of at least {least}")
        return number.numerator

    return read


def log_of_any_size(value: Any) -> Callable[[], Interval]:
    """The logarithm of a positive number: its text, or {"exp": the logarithm}."""
    if isinstance(value, dict) and value.keys() == {"exp"}:
        exponent = exact(value["exp"])
        if abs(exponent) > 10**9:
            raise ValueError("a logarithm is out of range")
        return lambda: real(exponent)
    number = between(0)(value)
    return lambda: log(number)


def record(**schema: Reader) -> Reader:
    """A JSON object of exactly these fields."""

    def read(value: Any) -> SimpleNamespace:
        if type(value) is not dict or value.keys() != schema.keys():
            raise ValueError(f"the fields are not {', '.join(schema)}")
        return SimpleNamespace(**{name: reader(value[name]) for name, reader in schema.items()})

    return read


def items(reader: Reader, *, least: int = 1, most: int = 10**6) -> Reader:
    """A JSON list of so many items."""

    def read(value: Any) -> list[Any]:
        if type(value) is not list or not least <= len(value) <= most:
            raise ValueError("a list is too short or too long")
        return [reader(item) for item in value]

    return read


# Decisions: with more and more digits, until an interval tells.


def tighter(evaluate: Callable[[], Interval]) -> Iterator[Interval]:
    """Intervals of rising precision."""
    digits = 60
    while digits <= MOST_DIGITS:
        with precision(digits):
            found = evaluate()
        yield found
        digits *= 2


def grid_up(evaluate: Callable[[], Interval]) -> int:
    """Least n with n 2^-96 at or above a real number; above it, if no precision tells."""
    for found in tighter(lambda: evaluate() * 2**GRID_BITS):
        low, high = (int(end.to_integral_value(ROUND_CEILING)) for end in (found.low, found.high))
        if low == high:
            break
    return high


def negative(evaluate: Callable[[], Interval]) -> bool:
    """Whether a real number is below 0; a tie that no precision tells is not."""
    for found in tighter(evaluate):
        if found.high < 0 or found.low >= 0:
            return found.high < 0
    return False


def exceeds(powers: Powers, extra: Callable[[], Interval] | None = None) -> bool:
    """Whether a product of powers, times e^extra, is above 1, exactly."""
    for found in tighter(lambda: log_product(powers) + (extra() if extra else 0)):
        if found.low > 0 or found.high < 0:
            return found.low > 0
    if not extra and is_one(powers):
        return False
    raise Refuted("which of two products is greater cannot be decided")


def log_product(powers: Powers) -> Interval:
    """log of a product of powers."""
    return sum((log(base) * power for base, power in powers), real(0))


def log1p_exp(x: Interval) -> Interval:
    """log(1 + e^x), for x of any size."""
    return x + log1p(exp(-x)) if x.low > 0 else log1p(exp(x))


def is_one(powers: Powers) -> bool:
    """Whether a product of powers is 1, without multiplying them out.

    With g = gcd(a, b) > 1, a^e b^f = (a/g)^e (b/g)^f g^(e + f), until all bases are coprime; then
    the product is 1 only if every power is 0.
    """
    coprime: Powers = []
    left = [item for item in powers if item[0] > 1 and item[1]]
    while left:
        base, power = left.pop()
        for place, (other, old) in enumerate(coprime):
            if (common := gcd(base, other)) > 1:
                del coprime[place]
                parts = (base // common, power), (other // common, old), (common, power + old)
                left += [item for item in parts if item[0] > 1 and item[1]]
                break
        else:
            coprime.append((base, power))
    return not coprime


# What must stand under "value".


def is_float(found: Any, *, bits: int, most: int) -> bool:
    """Whether it is [m, e], with m above 0 and of so many bits, and e from -`most` to `most`."""
    whole = type(found) is list and [type(part) for part in found] == [int, int]
    return whole and 2 ** (bits - 1) <= found[0] < 2**bits and abs(found[1]) <= most


@dataclass(eq=False)
class Last:
    """The last number at which something holds.

    It is a whole number, 0 at least, or [m, e] for m 2^e with m of `bits` bits.
    """

    holds: Callable[[Any], bool]
    bits: int | None = None

    def __eq__(self, found: Any) -> bool:
        if self.bits is None:
            right = type(found) is int and found >= 0
            return right and (found == 0 or self.holds(found)) and not self.holds(found + 1)
        right = is_float(found, bits=self.bits, most=2**40)
        return right and self.holds(found) and not self.holds([found[0] + 1, found[1]])

    __hash__ = None  # type: ignore[assignment]


KINDS: dict[str, tuple[Reader, Callable[..., dict[str, Any]]]] = {}


def kind(**schema: Reader) -> Callable[..., Any]:
    """Decorate f(inputs, value), which gives what is right, with the readers of its inputs."""

    def add(function: Callable[..., dict[str, Any]]) -> Any:
        KINDS[function.__name__] = record(**schema), function
        return function

    return add


def inputs_of(certificate: Any) -> Any:
    """The inputs as its kind reads them."""
    read, _ = KINDS[certificate["kind"]]
    return read(certificate["inputs"])


def check(certificate: Any) -> None:
    """Raise unless every recorded value is there and is the one that its inputs give.

    Raises:
        ValueError: It is no certificate.
        Refuted: It can be read and is false.
    """
    if type(certificate) is not dict or certificate.keys() != {"schema", "kind", "inputs", "value"}:
        raise ValueError("a certificate has a schema, a kind, inputs and a value, and no more")
    if certificate["schema"] != SCHEMA or type(certificate["schema"]) is not int:
        raise ValueError(f"the schema is not {SCHEMA}")
    if not isinstance(certificate["kind"], str) or certificate["kind"] not in KINDS:
        raise ValueError(f"its kind is none of {', '.join(sorted(KINDS))}")
    (_, theorem), value = KINDS[certificate["kind"]], certificate["value"]
    if type(value) is not dict:
        raise ValueError("the value is no record")
    truth = theorem(inputs_of(certificate), value)
    if truth.keys() != value.keys():
        raise ValueError(f"the values are not {', '.join(truth)}")
    for name, right in truth.items():
        if isinstance(value[name], bool | float) or right != value[name]:
            raise Refuted(f"{name} is not {value[name]!r:.50}")
