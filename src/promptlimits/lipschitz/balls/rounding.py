"""Between exact numbers and balls: proved upper ends, which no precision can turn.

Norms arrive as exact dyadic numbers that are proved upper limits (`spectral`). A Lipschitz
formula is evaluated on them in ball arithmetic, at whatever precision, and the upper end of the
result is again an exact number. A lower precision makes it larger, never smaller than the truth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Final

import numpy as np
from flint import arb, arb_mat
from numpy.typing import NDArray

from promptlimits.base.bound import PRECISION_BITS, Assumption, Exact, LogBound, Source
from promptlimits.base.errors import UserError
from promptlimits.base.exact import working_precision

LEAST_LIMIT: Final = Fraction(1, 2**4096)
"""Stands for the limit 0, which has no logarithm: a constant map is 2^-4096-Lipschitz too."""


def ball(value: Exact) -> arb:
    """Ball around an exact number, at the current precision."""
    if isinstance(value, bool) or not isinstance(value, int | Fraction):
        raise TypeError(f"a number of a proof must be an int or a Fraction, got {value!r}")
    return arb(value.numerator) / value.denominator


def upper(limit: arb) -> Fraction:
    """The upper end of a ball, exactly."""
    return _exact(limit.upper())


def lower(limit: arb) -> Fraction:
    """The lower end of a ball, exactly."""
    return _exact(limit.lower())


def _exact(end: arb) -> Fraction:
    if not end.is_finite():
        raise ValueError(f"a proved limit is finite, got {end}")
    mantissa, exponent = end.man_exp()
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


def total(terms: Iterable[arb]) -> arb:
    """Sum of balls."""
    result = arb(0)
    for term in terms:
        result += term
    return result


def exact_vector(numbers: Iterable[float]) -> list[arb]:
    """Floats as the numbers that they are."""
    return [arb(float(number)) for number in numbers]


def exact_matrix(array: NDArray[np.float64]) -> arb_mat:
    """A matrix of floats as the numbers that they are."""
    return arb_mat(array.shape[0], array.shape[1], exact_vector(array.ravel()))


def dot(left: Iterable[arb], right: Iterable[arb]) -> arb:
    """The inner product of two vectors."""
    return total(x * y for x, y in zip(left, right, strict=True))


def least(*limits: arb) -> arb:
    """The ball with the lowest upper end: each is an upper limit on the same quantity."""
    best = limits[0]
    for other in limits[1:]:
        best = other if other.upper() < best.upper() else best
    return best


def upper_log_bound(
    limit: arb, *, quantity: str, source: Source, assumptions: tuple[Assumption, ...] = ()
) -> LogBound:
    """The `LogBound` of an upper limit of at least 0."""
    if not limit.is_finite():
        raise UserError(
            "the radius",
            "keep the bound below exp(10^18)",
            got="more",
            remedy="use a smaller radius or another method",
        )
    with working_precision(PRECISION_BITS):
        end, floor = limit.upper(), ball(LEAST_LIMIT)
        log = max(floor, end).log()
    return LogBound(
        direction="upper", log=log, quantity=quantity, source=source, assumptions=assumptions
    )


def require_radius(radius: object) -> Exact:
    """Return the radius of a token ball if it is exact and above 0."""
    exact = isinstance(radius, int | Fraction) and not isinstance(radius, bool)
    if not exact or radius <= 0:  # type: ignore[operator]
        raise UserError(
            "the radius",
            "be an exact number above 0 (an int or a Fraction)",
            got=radius,
            remedy="give Fraction('0.5') rather than 0.5",
        )
    return radius  # type: ignore[return-value]


def float_near(value: Exact) -> float:
    """A float near an exact number, for choosing free parameters; at most the largest float."""
    try:
        return float(value)
    except OverflowError:
        return math.copysign(1.7e308, value)
