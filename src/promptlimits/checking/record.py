"""Reading a certificate: what every checker asks of one before it computes anything.

**Summary.** A checker of kind `K` reads and then recomputes:

    def check(certificate: Any) -> str:
        with reading("K"):                      # malformed -> UserError (exit code 2)
            inputs, bound = open_certificate(certificate, kind="K", inputs={"dim", "eps"})
            dim = whole(inputs["dim"], 1)               # a JSON integer of at least 1
            pairs = long_integer(inputs["pairs"], 0)    # an integer as text, in one form
            eps = exact_fraction(inputs["eps"], above=0)   # "1/3", "2": lowest terms, one form
            name = text(inputs["name"]); slope = dyadic(inputs["slope"])
        require_source(bound, reference=..., statement=..., form=...)     # false -> RunFailed
        require_assumptions(bound, [...])           # the words, in order; `holds` is theirs
        require_same(bound.quantity, f"... {dim} ...", "the bound's quantity")
        require_log(bound.log, lambda digits: log_of(1 + 2 / eps, digits) * dim,
                    direction="upper", what="the number of balls")
        if not ...: raise refuted("the reason, with the numbers")
        return "the claim in one sentence, made of the numbers that were verified"

What is not as this package writes it is a `UserError`; what is readable and false is a
`RunFailed`. Each number has one form only, so that two texts never mean the same claim:
whole numbers are JSON integers, long ones text (decimal, hexadecimal beyond 4096 bits),
fractions "a/b" in lowest terms ("a" for a whole number), logarithms mantissa * 2**exponent with
an odd mantissa (`number_text` and `fraction_text` write these forms).

**How exact a recorded logarithm must be.** A producer at 128 bits loses some bits in each of
its sums and products; what it records still lies within 2^-100 of the truth, relative to the
greatest term of the sum. `require_log` asks for both: on the safe side of the truth, proved,
and within `TIGHT_BITS`. So a forger who computes the digest anew can alter only the last 9 or
so of some 39 digits of a mantissa, in the safe direction, which leaves the claim true.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from math import gcd
from typing import Any, Final, Literal, TypeAlias

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.checking.intervals import DIGITS, Interval

Direction: TypeAlias = Literal["upper", "lower"]

TIGHT_BITS: Final = 100
"""A recorded logarithm is within a part in 2^100 of the truth."""

_DECIMAL_BITS: Final = 4096  # Python refuses to read decimal text much longer
_EXPONENT_LIMIT: Final = 2**13  # a power of two that is multiplied out at once
_DEEPEST: Final = 32  # bounds made of bounds made of bounds
_MOST_DIGITS: Final = 16 * DIGITS

_FIELDS: Final = {"schema", "kind", "inputs", "bound", "digest"}
_BOUND_FIELDS: Final = {"direction", "quantity", "log", "source", "assumptions", "factors"}


@dataclass(frozen=True, kw_only=True)
class RecordedBound:
    """A bound as it was recorded; nothing about it is verified yet.

    Attributes:
        direction: "upper" or "lower".
        quantity: What is limited, in words.
        log: The limit on its natural logarithm, exactly.
        reference: Key of the work the bound comes from.
        statement: Which theorem of it.
        form: "as published", "corrected" or "proved here".
        assumptions: What it rests on.
        holds: For each assumption, whether it was checked: true, false or unknown (None).
        factors: The bounds it was made from.
    """

    direction: Direction
    quantity: str
    log: Fraction
    reference: str
    statement: str
    form: str
    assumptions: tuple[str, ...]
    holds: tuple[bool | None, ...]
    factors: tuple[RecordedBound, ...]


@contextmanager
def reading(kind: str) -> Iterator[None]:
    """Turn whatever a malformed record makes Python say into one `UserError`."""
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise UserError(
            "the certificate",
            f"be a {kind.replace('_', ' ')} certificate as promptlimits writes it",
            got=f"{type(error).__name__}: {error}",
            remedy="use the file as it was written",
        ) from error


def open_certificate(
    certificate: Any, *, kind: str, inputs: set[str]
) -> tuple[dict[str, Any], RecordedBound]:
    """The parts of a certificate whose kind, fields and digest are right. Use in `reading`."""
    if certificate["schema"] != 1 or certificate["kind"] != kind:
        raise ValueError(f"not a certificate of kind {kind!r} and schema 1")
    exactly(certificate, _FIELDS, "certificate")
    whole(certificate["schema"], 1)
    check_digest(certificate)
    return exactly(certificate["inputs"], inputs, "inputs"), recorded_bound(certificate["bound"])


def digest(record: dict[str, Any]) -> str:
    """SHA-256 of the rest of a record as compact JSON, keys sorted, ASCII, in hexadecimal."""
    rest = {field: value for field, value in record.items() if field != "digest"}
    plain = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(plain.encode("ascii")).hexdigest()


def check_digest(certificate: dict[str, Any]) -> None:
    """Refuse a certificate whose digest is not that of its contents."""
    if certificate["digest"] != digest(certificate):
        raise RunFailed(
            "the certificate was altered: its digest is not that of its contents",
            remedy="do not rely on it; compute the ceiling again",
        )


def recorded_bound(record: Any, depth: int = 0) -> RecordedBound:
    """A bound and its factors, each field present, of its type and in its one form."""
    exactly(record, _BOUND_FIELDS, "bound")
    if record["direction"] not in ("upper", "lower"):
        raise ValueError(f"a limit is upper or lower, not {record['direction']!r}")
    if depth > _DEEPEST:
        raise ValueError("the bound has factors of factors without end")
    source = exactly(record["source"], {"reference", "statement", "form"}, "source")
    assumptions = [
        exactly(item, {"text", "holds"}, "assumption") for item in listed(record["assumptions"])
    ]
    return RecordedBound(
        direction=record["direction"],
        quantity=text(record["quantity"]),
        log=dyadic(record["log"]),
        reference=text(source["reference"]),
        statement=text(source["statement"]),
        form=text(source["form"]),
        assumptions=tuple(text(item["text"]) for item in assumptions),
        holds=tuple(_truth(item["holds"]) for item in assumptions),
        factors=tuple(recorded_bound(item, depth + 1) for item in listed(record["factors"])),
    )


def exactly(record: Any, fields: set[str], name: str) -> dict[str, Any]:
    """A JSON object of these fields and no others."""
    if not isinstance(record, dict) or set(record) != fields:
        raise ValueError(f"the {name} must have the fields {', '.join(sorted(fields))}, no others")
    return record


def listed(value: Any) -> list[Any]:
    """A JSON list."""
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return value


def text(value: Any) -> str:
    """A JSON text."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def whole(value: Any, least: int) -> int:
    """A JSON integer of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no whole number")
    if value < least:
        raise ValueError(f"{value} is below {least}")
    return value


def long_integer(value: Any, least: int) -> int:
    """An integer of at least `least` written as text, in the form of `number_text`."""
    number = whole(int(text(value), 0), least)
    if number_text(number) != value:
        raise ValueError(f"{value} is not in its one form")
    return number


def exact_fraction(value: Any, *, least: int | None = None, above: int | None = None) -> Fraction:
    """A fraction written as text, in the form of `fraction_text`."""
    over, slash, under = text(value).partition("/")
    numerator, denominator = int(over, 0), int(under, 0) if slash else 1
    if denominator < 1 or gcd(numerator, denominator) != 1:
        raise ValueError(f"{value} is not in lowest terms")
    number = Fraction(numerator, denominator)
    if fraction_text(number) != value:
        raise ValueError(f"{value} is not in its one form")
    if (least is not None and number < least) or (above is not None and number <= above):
        raise ValueError(f"{value} is out of range")
    return number


def dyadic(value: Any) -> Fraction:
    """The number mantissa * 2**exponent in the one form: an odd mantissa, or 0 and 0."""
    exactly(value, {"mantissa", "exponent"}, "log")
    mantissa, exponent = int(text(value["mantissa"])), int(text(value["exponent"]))
    if [str(mantissa), str(exponent)] != [value["mantissa"], value["exponent"]]:
        raise ValueError("the logarithm is not in its one form")
    if abs(exponent) > _EXPONENT_LIMIT or not (mantissa % 2 or mantissa == exponent == 0):
        raise ValueError("the logarithm's mantissa or exponent is out of range")
    return mantissa * Fraction(2) ** exponent


def number_text(number: int) -> str:
    """An integer in its one form: hexadecimal where decimal text might be refused."""
    return str(number) if number.bit_length() <= _DECIMAL_BITS else hex(number)


def fraction_text(number: Fraction) -> str:
    """A fraction in its one form: "a/b" in lowest terms, "a" for a whole number."""
    over = number_text(number.numerator)
    return over if number.denominator == 1 else f"{over}/{number_text(number.denominator)}"


def refuted(reason: str) -> RunFailed:
    """The error for a certificate that can be read and is false; raise it."""
    return RunFailed(
        f"the certificate does not hold: {reason}",
        remedy="do not rely on it; compute the ceiling again",
    )


def require_same(found: object, expected: object, what: str) -> None:
    """Refuse a certificate of which a part is not what its inputs make it."""
    if type(found) is not type(expected) or found != expected:
        raise refuted(f"{what} is not the one that belongs to its inputs")


def require_source(bound: RecordedBound, *, reference: str, statement: str, form: str) -> None:
    """Refuse a bound that names another source."""
    found = (bound.reference, bound.statement, bound.form)
    require_same(found, (reference, statement, form), f"the source of {bound.quantity!r}")


def require_assumptions(
    bound: RecordedBound, texts: Sequence[str], *, holds: Sequence[bool | None] | None = None
) -> None:
    """Refuse a bound that rests on other assumptions than its theorem."""
    what = f"an assumption of {bound.quantity!r}"
    require_same(bound.assumptions, tuple(texts), what)
    if holds is not None:
        require_same(bound.holds, tuple(holds), what)


def require_log(
    recorded: Fraction,
    truth: Callable[[int], Interval],
    *,
    direction: Direction,
    what: str,
    tight_bits: int = TIGHT_BITS,
    scale: Fraction | int = 0,
) -> None:
    """Refuse a recorded logarithm that is on the wrong side of the truth, or loose.

    An upper limit must be proved to be at least the truth, and at most the truth and a part in
    2^tight_bits of max(|truth|, scale); a lower one the other way round. `truth` is asked again
    with twice the digits for as long as the answer is open: where the recorded number is the
    truth itself, as for log 1 = 0, the interval shrinks to it.
    """
    sign = 1 if direction == "upper" else -1
    safe, loose = ("low", "high") if sign > 0 else ("high", "low")
    digits = DIGITS
    while True:
        interval = truth(digits)
        ends = sorted(sign * Fraction(end) for end in (interval.low, interval.high))
        if sign * recorded < ends[0]:
            raise refuted(f"the recorded logarithm of {what} is too {safe}")
        if sign * recorded >= ends[1]:
            break
        digits *= 2
        if digits > _MOST_DIGITS:
            raise refuted(f"the recorded logarithm of {what} cannot be told from too {safe}")
    least = min(abs(end) for end in ends) if ends[0] * ends[1] > 0 else Fraction(0)
    if sign * recorded > ends[0] + max(least, Fraction(scale)) / 2**tight_bits:
        raise refuted(f"the recorded logarithm of {what} is too {loose}")


def _truth(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise TypeError(f"{value!r} is neither true, false nor null")
