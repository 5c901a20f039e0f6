"""A theorem is a class: its fields are its inputs, its text is its claim, its method is its bound.

    class Volume(Theorem):
        '''Share (eps/r)^d of a ball of radius r.'''

        kind = "volume"
        source = "promptlimits: volume of balls (proved here)"
        assumptions = ("Targets are uniform in the ball.",)
        dim: Size = Field(description="Numbers per token.")
        radius: Positive
        eps: Positive

        def value(self):
            return {"log_share": grid_up(lambda: self.dim * log(self.eps / self.radius))}

        def claim(self, value):
            return f"at most a share of {decades(value['log_share'])} is reached"

A certificate is `{"schema", "kind", "inputs", "value"}`; every word about it is made from these
when it is read, so that there is no prose in a certificate that could contradict its numbers. The
function of that kind in `checker` finds the same value with other arithmetic.

A recorded number has one right value, of one of two sorts. A *grid point* n stands for n 2^-96,
the least that is no less than a real number. A *last number* is the last at which something
still holds: an integer, or [m, e] for m 2^e with m of a fixed length.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from math import ceil
from typing import Annotated, Any, ClassVar, Final, Literal

from flint import arb
from pydantic import (
    BaseModel,
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    ValidationError,
)

from promptlimits.base import exact
from promptlimits.base.bound import LogBound
from promptlimits.base.errors import UserError
from promptlimits.base.exact import Rule, ball, decimal_parts, grid_up, grid_value, number_text

SCHEMA: Final = 1
KINDS: dict[str, type[Theorem]] = {}
"""Every theorem that is imported, by its kind."""

_MOST = 10**18
_LARGEST_EXPONENT = 10**6  # of ten, of a Lipschitz constant


def between(
    low: int, high: int | None = None, *, closed: bool = False
) -> Callable[[object], Fraction]:
    """A reader of exact numbers above `low` (or `low`, if closed) and below `high`."""
    rule = f"be {low} or more" if closed else f"be a finite number above {low}"
    rule += f" and below {high}" if high is not None else ""

    def read(value: object) -> Fraction:
        number = exact.exact(value)
        beyond = high is not None and number >= high
        if number < low or (number == low and not closed) or beyond:
            raise Rule(rule)
        return number

    return read


def whole(low: int, high: int | None = _MOST) -> Callable[[object], int]:
    """A reader of whole numbers from `low` to `high`."""
    rule = f"be a whole number from {low} to {high:,}" if high else f"be a whole number from {low}"

    def read(value: object) -> int:
        if isinstance(value, str) and exact.WHOLE.fullmatch(value.strip()):
            value = exact.integer(value.strip())
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise Rule(rule, "write 20")
        if high is not None and value > high:
            raise Rule(rule, "write 20")
        return value

    return read


AS_TEXT = PlainSerializer(number_text, when_used="json")
Exact = Annotated[Fraction, PlainValidator(exact.exact), AS_TEXT]
Positive = Annotated[Fraction, PlainValidator(between(0)), AS_TEXT]
NonNegative = Annotated[Fraction, PlainValidator(between(0, closed=True)), AS_TEXT]
Share = Annotated[Fraction, PlainValidator(between(0, 1)), AS_TEXT]
Natural = Annotated[int, PlainValidator(whole(0))]
Size = Annotated[int, PlainValidator(whole(1))]
Count = Annotated[int, PlainValidator(whole(1, None)), AS_TEXT]  # of any length
Norm = Literal["token", "frobenius", "matrix"]


class Exp(BaseModel):
    """A positive number given by its logarithm."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    exp: Annotated[Fraction, PlainValidator(exact.exact), AS_TEXT]


def any_size(value: object) -> Fraction | Exp:
    """A number above 0, or a limit on one; beyond 10^2000 the grid point of its logarithm."""
    if isinstance(value, LogBound):
        if value.direction != "upper":
            rule = "be an upper limit on the Lipschitz constant"
            raise Rule(rule, "give the bound, not what an optimiser found")
        mantissa, exponent = (int(part) for part in value.log.man_exp())
        value = Exp(exp=exact.dyadic_value([mantissa, exponent]))
    if isinstance(value, Exp | dict):
        number = Exp.model_validate(value)
        if abs(number.exp) > 10**9:
            raise Rule("have a natural logarithm of at most 1,000,000,000", "take a smaller one")
        return number
    if isinstance(value, str) and re.search("[eE]", value) and "x" not in value:
        digits, power = decimal_parts(value)
        if digits and abs(power) > _LARGEST_EXPONENT:
            raise Rule(f"be between 1e-{_LARGEST_EXPONENT} and 1e{_LARGEST_EXPONENT}")
        if digits and abs(power) > exact.LARGEST_POWER:
            point = grid_up(lambda: exact.log(digits) + power * exact.log(10))
            return Exp(exp=grid_value(point))
    return between(0)(value)


def _any_size_json(value: Fraction | Exp) -> object:
    return value.model_dump(mode="json") if isinstance(value, Exp) else number_text(value)


# Not a union of types, whose refusals would name both.
AnySize = Annotated[
    Fraction | Exp, PlainValidator(any_size), PlainSerializer(_any_size_json, when_used="json")
]


def log(value: Fraction | int | Exp) -> arb:
    """Ball around a natural logarithm."""
    return ball(value.exp) if isinstance(value, Exp) else exact.log(value)


def decades(point: int) -> str:
    """A grid point, an upper limit on a logarithm, as a power of ten; rounded up."""
    # log 10 lies between these; the one that gives the greater quotient is taken.
    ten = Fraction(2302585092994045684 + (point < 0), 10**18)
    thousandths = ceil(grid_value(point) / ten * 1000)
    whole, rest = divmod(abs(thousandths), 1000)
    return f"10^{'-' if thousandths < 0 else ''}{whole:,}.{rest:03}"


class Inputs(BaseModel):
    """Numbers that are checked.

    Raises:
        UserError: One breaks a rule; it is named as the field is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    part_of: ClassVar[str] = ""

    def __init__(self, **inputs: Any) -> None:
        try:
            super().__init__(**inputs)
        except ValidationError as error:
            raise refused(type(self), error) from None


class Theorem(Inputs):
    """Inputs of one theorem; subclasses say what follows from them."""

    kind: ClassVar[str]
    source: ClassVar[str]
    assumptions: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in cls.__dict__:  # not so where several theorems share their inputs
            KINDS[cls.kind] = cls

    def rests_on(self) -> tuple[str, ...]:
        """What it assumes for these inputs: more than `assumptions` if an input brings one."""
        return self.assumptions

    def value(self) -> dict[str, Any]:
        """What is proved: grid points and last numbers."""
        raise NotImplementedError

    def claim(self, value: dict[str, Any]) -> str:
        """What is proved, in one sentence."""
        raise NotImplementedError

    def certificate(self) -> dict[str, Any]:
        """Plain JSON from which `checker` computes the value again."""
        inputs = self.model_dump(mode="json")
        return {"schema": SCHEMA, "kind": self.kind, "inputs": inputs, "value": self.value()}


def refused(inputs: type[Inputs], error: ValidationError) -> UserError:
    """The first refusal as the one line that a person reads."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else inputs.__name__
    field = inputs.model_fields.get(name)
    name += inputs.part_of
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, Rule):
        return UserError(name, cause.rule, got=_seen(first["input"]), remedy=cause.remedy)
    if first["type"] == "missing":
        return UserError(name, "be given", got="nothing", remedy="give it")
    rule = first["msg"].removeprefix("Input should ")
    default = getattr(field, "default", None)
    remedy = f"use {default}" if isinstance(default, str | int | Fraction) else "see its help"
    return UserError(name, rule, got=_seen(first["input"]), remedy=remedy)


def _seen(value: object) -> object:
    if isinstance(value, int | Fraction) and not isinstance(value, bool):
        return exact.shown(value)
    return f"{value[:100]}…" if isinstance(value, str) and len(value) > 100 else value
