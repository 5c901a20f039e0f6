"""Limits on huge or tiny positive quantities, kept as exact logarithms that err on one side.

A `LogBound` says "the natural logarithm of this quantity is at most (or at least) that", and
carries why: its source, its assumptions, and the bounds it was multiplied from. The limit is
one exact dyadic number. Computation runs in ball arithmetic (python-flint's arb) and keeps
the end of the ball that is safe for the direction, so rounding can weaken a bound but never
falsify it. Working precision is therefore a matter of tightness only, not of soundness.

No float is accepted as a quantity: what a decimal literal lost on its way into a float would
silently become part of a proof.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Literal, TypeAlias

from flint import arb

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.base.exact import log, outward_float
from promptlimits.base.exact import working_precision as working_precision  # noqa: PLC0414 - many import it here
from promptlimits.base.typing import JsonObject

Direction: TypeAlias = Literal["upper", "lower"]
Exact: TypeAlias = int | Fraction

PRECISION_BITS: Final = 128
"""Working precision unless told otherwise: some 38 decimal digits."""


@dataclass(frozen=True, kw_only=True)
class Assumption:
    """What must be true for a bound to speak about the case at hand.

    Attributes:
        text: The assumption in plain words.
        holds: Whether it was checked here: true, false, or unknown (None).
    """

    text: str
    holds: bool | None = None

    def to_json(self) -> JsonObject:
        """As plain JSON."""
        return {"text": self.text, "holds": self.holds}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a bound comes from.

    Attributes:
        reference: Key of the work in REFERENCES.md, or "promptlimits".
        statement: Which theorem or lemma of it.
        form: "as published", "corrected", or "proved here".
    """

    reference: str
    statement: str
    form: str

    def to_json(self) -> JsonObject:
        """As plain JSON."""
        return {"reference": self.reference, "statement": self.statement, "form": self.form}


def log_ball(value: Exact) -> arb:
    """Ball around the natural logarithm of a positive exact number, at the current precision."""
    if isinstance(value, bool) or not isinstance(value, int | Fraction):
        raise TypeError(
            f"a limit must be an int or a Fraction, which are exact, got {value!r} of type "
            f"{type(value).__name__}"
        )
    if value <= 0:
        raise ValueError(f"a LogBound limits a quantity above 0, got {value}")
    return log(value)


def _safe_end(ball: arb, direction: Direction) -> arb:
    """The end of a ball that is sound for a direction, as an exact arb."""
    if not isinstance(ball, arb):
        raise TypeError(f"the logarithm must be an arb, got {type(ball).__name__}")
    if not ball.is_finite():
        raise ValueError(f"the logarithm must be finite, got {ball}")
    if ball.is_exact():
        return ball
    with working_precision(max(PRECISION_BITS, int(ball.mid().bits()) + 64)):
        return ball.upper() if direction == "upper" else ball.lower()


@dataclass(frozen=True, kw_only=True, eq=False)
class LogBound:
    """A proved limit on the natural logarithm of a positive quantity.

    Attributes:
        direction: "upper" (the quantity is at most exp(log)) or "lower" (at least).
        log: The limit. A ball given here is replaced by its safe end, an exact number.
        quantity: What is limited, in words.
        source: Where the bound comes from.
        assumptions: What it rests on.
        factors: The bounds it was made from.

    Raises:
        TypeError: `log` is not an arb.
        ValueError: `log` is infinite or indeterminate, or the direction is unknown.
    """

    direction: Direction
    log: arb
    quantity: str
    source: Source
    assumptions: tuple[Assumption, ...] = ()
    factors: tuple[LogBound, ...] = ()

    def __post_init__(self) -> None:
        if self.direction not in ("upper", "lower"):
            raise ValueError(f"direction must be 'upper' or 'lower', got {self.direction!r}")
        object.__setattr__(self, "log", _safe_end(self.log, self.direction))

    @classmethod
    def of(
        cls,
        value: Exact,
        *,
        direction: Direction,
        quantity: str,
        source: Source,
        assumptions: tuple[Assumption, ...] = (),
        precision_bits: int = PRECISION_BITS,
    ) -> LogBound:
        """The bound by an exact number.

        Args:
            value: An int or a Fraction above 0; a float raises TypeError.
            direction: Whether `value` is an upper or a lower limit.
            quantity: What is limited.
            source: Where the limit comes from.
            assumptions: What it rests on.
            precision_bits: How tightly the logarithm is computed.

        Returns:
            The bound.
        """
        with working_precision(precision_bits):
            ball = log_ball(value)
        return cls(
            direction=direction,
            log=ball,
            quantity=quantity,
            source=source,
            assumptions=assumptions,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LogBound) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.direction, self._mantissa_exponent(), self.quantity))

    def __mul__(self, other: LogBound) -> LogBound:
        """Bound on the product of the two quantities; both must have the same direction."""
        return product(
            (self, other),
            quantity=f"({self.quantity}) times ({other.quantity})",
            source=self.source,
        )

    def power(
        self, exponent: Exact, *, quantity: str, precision_bits: int = PRECISION_BITS
    ) -> LogBound:
        """Bound on the quantity raised to an exact power; a negative one turns the direction.

        Args:
            exponent: An int or a Fraction.
            quantity: What the power stands for.
            precision_bits: Working precision.

        Returns:
            The bound on the power.

        Raises:
            TypeError: The exponent is inexact.
        """
        if isinstance(exponent, bool) or not isinstance(exponent, int | Fraction):
            raise TypeError(f"the exponent must be an int or a Fraction, got {exponent!r}")
        with working_precision(precision_bits):
            ball = self.log * exponent.numerator / exponent.denominator
        turned: Direction = "lower" if self.direction == "upper" else "upper"
        return LogBound(
            direction=self.direction if exponent >= 0 else turned,
            log=ball,
            quantity=quantity,
            source=self.source,
            assumptions=self.assumptions,
            factors=(self,),
        )

    def proves_at_most(self, value: Exact) -> bool:
        """Whether the bound proves that the quantity is at most `value` (False: not proved)."""
        with working_precision(2 * PRECISION_BITS):
            return self.direction == "upper" and bool(self.log <= log_ball(value))

    def proves_at_least(self, value: Exact) -> bool:
        """Whether the bound proves that the quantity is at least `value` (False: not proved)."""
        with working_precision(2 * PRECISION_BITS):
            return self.direction == "lower" and bool(self.log >= log_ball(value))

    def upper_nats(self) -> float:
        """The upper limit on the natural logarithm, rounded up."""
        return self._end("upper", 1)

    def upper_bits(self) -> float:
        """The upper limit on the logarithm to base 2, rounded up."""
        return self._end("upper", 2)

    def upper_log10(self) -> float:
        """The upper limit on the logarithm to base 10, rounded up."""
        return self._end("upper", 10)

    def lower_nats(self) -> float:
        """The lower limit on the natural logarithm, rounded down."""
        return self._end("lower", 1)

    def lower_bits(self) -> float:
        """The lower limit on the logarithm to base 2, rounded down."""
        return self._end("lower", 2)

    def lower_log10(self) -> float:
        """The lower limit on the logarithm to base 10, rounded down."""
        return self._end("lower", 10)

    def to_json(self) -> JsonObject:
        """As plain JSON, exactly: the logarithm is mantissa * 2**exponent."""
        mantissa, exponent = self._mantissa_exponent()
        return {
            "direction": self.direction,
            "quantity": self.quantity,
            "log": {"mantissa": str(mantissa), "exponent": str(exponent)},
            "source": self.source.to_json(),
            "assumptions": [assumption.to_json() for assumption in self.assumptions],
            "factors": [factor.to_json() for factor in self.factors],
        }

    @classmethod
    def from_json(cls, record: Any) -> LogBound:
        """The bound that `to_json` wrote.

        Args:
            record: Parsed JSON.

        Returns:
            The same bound, exactly.

        Raises:
            UserError: The record lacks a field or holds something else than a bound.
        """
        try:
            log = record["log"]
            return cls(
                direction=record["direction"],
                log=arb((int(log["mantissa"]), int(log["exponent"]))),
                quantity=str(record["quantity"]),
                source=Source(**record["source"]),
                assumptions=tuple(Assumption(**item) for item in record["assumptions"]),
                factors=tuple(cls.from_json(item) for item in record["factors"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                "the bound's record",
                "have the fields that promptlimits writes",
                got=f"{type(error).__name__}: {error}",
                remedy="use the file as it was written",
            ) from error

    def _mantissa_exponent(self) -> tuple[int, int]:
        mantissa, exponent = self.log.man_exp()
        return int(mantissa), int(exponent)

    def _end(self, direction: Direction, base: int) -> float:
        if direction != self.direction:
            raise TypeError(f"{self.quantity!r} has an {self.direction} limit, no {direction} one")
        up = direction == "upper"
        if base == 1:
            return outward_float(lambda: self.log, up=up)
        return outward_float(lambda: self.log / arb(base).log(), up=up)


def product(
    bounds: Sequence[LogBound],
    *,
    quantity: str,
    source: Source,
    precision_bits: int = PRECISION_BITS,
) -> LogBound:
    """Bound on the product of quantities: their logarithms add."""
    if len({bound.direction for bound in bounds}) != 1:
        raise ValueError(
            "a product needs bounds of one direction, got "
            + (" and ".join(sorted({bound.direction for bound in bounds})) or "none")
        )
    with working_precision(precision_bits):
        total = arb(0)
        for bound in bounds:
            total += bound.log
    return LogBound(
        direction=bounds[0].direction,
        log=total,
        quantity=quantity,
        source=source,
        assumptions=tuple(dict.fromkeys(a for bound in bounds for a in bound.assumptions)),
        factors=tuple(bounds),
    )


def tightest(bounds: Sequence[LogBound]) -> LogBound:
    """The least of several upper limits, or the greatest of several lower ones."""
    if len({bound.direction for bound in bounds}) != 1:
        raise ValueError("the tightest is chosen among bounds of one direction, at least one")
    best = bounds[0]
    for bound in bounds[1:]:
        if bound.log < best.log if best.direction == "upper" else bound.log > best.log:
            best = bound
    return best


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A bound and what is needed to verify it again without the code that produced it.

    Attributes:
        kind: Which theorem, hence which checker: "counting".
        bound: The bound.
        inputs: Every number the theorem takes and the claim it makes; exact integers as text.
    """

    kind: str
    bound: LogBound
    inputs: JsonObject

    def to_json(self) -> JsonObject:
        """As plain JSON, with a digest of all of it."""
        record: JsonObject = {
            "schema": 1,
            "kind": self.kind,
            "inputs": self.inputs,
            "bound": self.bound.to_json(),
        }
        return record | {"digest": _digest(record)}

    @classmethod
    def from_json(cls, record: Any) -> Certificate:
        """The certificate that `to_json` wrote.

        Args:
            record: Parsed JSON.

        Returns:
            The same certificate.

        Raises:
            UserError: It is no certificate, or of a schema this version does not know.
            RunFailed: It was altered since it was written.
        """
        if not isinstance(record, dict) or set(record) != _CERTIFICATE_FIELDS:
            raise UserError(
                "the certificate",
                "have the fields schema, kind, inputs, bound and digest",
                got=f"a record of type {type(record).__name__} with others",
                remedy="use the file as it was written",
            )
        if record["schema"] != 1:
            raise UserError(
                "the certificate's schema",
                "be 1",
                got=record["schema"],
                remedy="read it with the version of promptlimits that wrote it",
            )
        if record["digest"] != _digest({k: v for k, v in record.items() if k != "digest"}):
            raise RunFailed(
                "the certificate was altered: its digest is not that of its contents",
                remedy="use the file as it was written, or compute the bound again",
            )
        return cls(
            kind=str(record["kind"]),
            bound=LogBound.from_json(record["bound"]),
            inputs=dict(record["inputs"]),
        )


_CERTIFICATE_FIELDS: Final = frozenset({"schema", "kind", "inputs", "bound", "digest"})


def _digest(record: JsonObject) -> str:
    """SHA-256 of a record's JSON with sorted keys, no spaces, ASCII, in hexadecimal."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
