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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, TypeAlias

from flint import arb

from promptlimits.base.errors import UserError
from promptlimits.base.exact import GRID_BITS, grid_up, log, outward_float, working_precision
from promptlimits.base.files import JsonObject

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


@dataclass(frozen=True, kw_only=True)
class LogBound:
    """A proved limit on the natural logarithm of a positive quantity.

    Attributes:
        direction: "upper" (the quantity is at most exp(log)) or "lower" (at least).
        log: The limit. A ball given here is replaced by its safe end, an exact number.
        quantity: What is limited, in words.
        source: Where the bound comes from.
        assumptions: What it rests on.

    Raises:
        TypeError: `log` is not an arb.
        ValueError: `log` is infinite or indeterminate, or the direction is unknown.
    """

    direction: Direction
    log: arb
    quantity: str
    source: Source
    assumptions: tuple[Assumption, ...] = ()

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
    ) -> LogBound:
        """The bound by an exact number.

        Args:
            value: An int or a Fraction above 0; a float raises TypeError.
            direction: Whether `value` is an upper or a lower limit.
            quantity: What is limited.
            source: Where the limit comes from.
            assumptions: What it rests on.

        Returns:
            The bound.
        """
        with working_precision(PRECISION_BITS):
            ball = log_ball(value)
        return cls(
            direction=direction,
            log=ball,
            quantity=quantity,
            source=source,
            assumptions=assumptions,
        )

    def upper_nats(self) -> float:
        """The upper limit on the natural logarithm, rounded up."""
        return self._end("upper", 1)

    def upper_log10(self) -> float:
        """The upper limit on the logarithm to base 10, rounded up."""
        return self._end("upper", 10)

    def lower_nats(self) -> float:
        """The lower limit on the natural logarithm, rounded down."""
        return self._end("lower", 1)

    def lower_log10(self) -> float:
        """The lower limit on the logarithm to base 10, rounded down."""
        return self._end("lower", 10)

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
) -> LogBound:
    """Bound on the product of quantities: their logarithms add."""
    if len({bound.direction for bound in bounds}) != 1:
        raise ValueError(
            "a product needs bounds of one direction, got "
            + (" and ".join(sorted({bound.direction for bound in bounds})) or "none")
        )
    with working_precision(PRECISION_BITS):
        total = arb(0)
        for bound in bounds:
            total += bound.log
    return LogBound(
        direction=bounds[0].direction,
        log=total,
        quantity=quantity,
        source=source,
        assumptions=tuple(dict.fromkeys(a for bound in bounds for a in bound.assumptions)),
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


def require_exact_positive(name: str, value: object) -> Exact:
    """Return `value` if it is an exact number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | Fraction):
        raise TypeError(f"{name} must be an int or a Fraction, got {value!r}")
    if value <= 0:
        raise UserError(name, "be above 0", got=short(value), remedy="give a positive number")
    return value


def short(value: Exact) -> str:
    """An exact number as a message shows it."""
    value = Fraction(value)
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > 400:
        return f"a fraction of {value.numerator.bit_length()} bits"
    return str(value)


def grid_upper(evaluate: Callable[[], arb]) -> arb:
    """The least multiple of 2^-96 at or above a real number."""
    return arb((grid_up(evaluate), -GRID_BITS))
