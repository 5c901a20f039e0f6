"""Arrays of balls in double precision, with every rounding accounted for.

`Balls` holds arrays of midpoints and radii: entry x stands for every real number within its
radius of its midpoint. Many boxes of a branch and bound are then bounded at numpy's speed, and
the result is a proof, given IEEE 754 double arithmetic with rounding to nearest.

Rounding. With u = 2^-53, an operation on doubles returns a value f with |f - exact| <= u |f|, or,
if a product underflows, <= 2^-1074. A sum of n terms, in any order, is off by at most
gamma_n = n u / (1 - n u) times the sum of absolute values ([@higham2002], section 3.1). So

    (a +- r)(b +- s)     lies within  |a| s + r (|b| + s) + u |ab|          of fl(ab),
    sum of (a_i +- r_i)  lies within  sum r_i + gamma_n sum |a_i|           of fl(sum a_i),
    1 / (a +- r), a > r, lies within  r / (a (a - r)) + u / a (1 + u)       of fl(1 / a).

Radii are sums of products of numbers of at least 0; evaluated in doubles with at most N
roundings on any path they come out at least (1 - u)^N times their value, so `_up` multiplies by
1 + 4 N u and adds 2^-1000, which covers every underflow here (fewer than 2^60 terms).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from flint import arb
from numpy.typing import NDArray

from promptlimits.lipschitz.balls.matrix import gamma

Floats = NDArray[np.float64]

UNIT: Final = 2.0**-53
_TINY: Final = 2.0**-1000


def _up(radius: Floats, roundings: int = 16) -> Floats:
    """At least the exact value of a formula without subtraction, evaluated in doubles."""
    return np.asarray(radius * (1.0 + 4 * roundings * UNIT) + _TINY)


@dataclass(frozen=True, eq=False)
class Balls:
    """Real numbers known up to a radius each."""

    mid: Floats  # Midpoints
    rad: Floats  # radii of the same shape, at least 0; infinite where nothing is known

    @classmethod
    def exact(cls, values: Floats) -> Balls:
        """Doubles, taken as the numbers that they are."""
        return cls(values, np.zeros(values.shape))

    @classmethod
    def around(cls, mid: Floats, rad: Floats) -> Balls:
        """All numbers within given radii."""
        return cls(mid, np.broadcast_to(rad, mid.shape))

    @classmethod
    def of_arbs(cls, values: list[arb], shape: tuple[int, ...]) -> Balls:
        """Enclosures of arb's balls, listed in row-major order."""
        mids = [float(value.mid()) for value in values]
        rads = [
            float((value - arb(mid)).abs_upper()) for value, mid in zip(values, mids, strict=True)
        ]
        return cls(np.array(mids).reshape(shape), _up(np.array(rads)).reshape(shape))

    @classmethod
    def stack(cls, parts: Sequence[Balls], axis: int) -> Balls:
        """Arrays of one shape, along a new axis."""
        mids, rads = [part.mid for part in parts], [part.rad for part in parts]
        return cls(np.stack(mids, axis), np.stack(rads, axis))

    @classmethod
    def join(cls, parts: Sequence[Balls], axis: int) -> Balls:
        """Arrays side by side along an axis."""
        mids, rads = [part.mid for part in parts], [part.rad for part in parts]
        return cls(np.concatenate(mids, axis), np.concatenate(rads, axis))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array."""
        return self.mid.shape

    def reshape(self, *shape: int) -> Balls:
        """The same numbers in another shape."""
        return Balls(self.mid.reshape(shape), self.rad.reshape(shape))

    def added_at(self, key: Any, other: Balls) -> Balls:
        """The array with balls added to some of its entries."""
        mid, rad = self.mid.copy(), self.rad.copy()
        both = self[key] + other
        mid[key], rad[key] = both.mid, both.rad
        return Balls(mid, rad)

    def __getitem__(self, key: Any) -> Balls:
        """Index both arrays, as numpy does."""
        return Balls(self.mid[key], self.rad[key])

    def __neg__(self) -> Balls:
        """The negatives."""
        return Balls(-self.mid, self.rad)

    def __add__(self, other: Balls) -> Balls:
        """The sums."""
        mid = self.mid + other.mid
        return Balls(mid, _up(self.rad + other.rad + UNIT * np.abs(mid)))

    def __sub__(self, other: Balls) -> Balls:
        """The differences."""
        return self + (-other)

    def __mul__(self, other: Balls) -> Balls:
        """The products, entry by entry."""
        mid = self.mid * other.mid
        left, right = np.abs(self.mid), np.abs(other.mid)
        rad = left * other.rad + self.rad * (right + other.rad) + UNIT * np.abs(mid)
        return Balls(mid, _up(rad))

    def __matmul__(self, other: Balls) -> Balls:
        """The matrix products, over any leading axes."""
        inner = self.mid.shape[-1]
        error = gamma(max(inner, 1))
        left, right = np.abs(self.mid), np.abs(other.mid)
        rad = left @ (other.rad + error * right) + self.rad @ (right + other.rad)
        return Balls(self.mid @ other.mid, _up(rad, inner + 16))

    def sum(self, axis: int) -> Balls:
        """The sums along an axis."""
        terms = max(self.mid.shape[axis], 1)
        rad = self.rad.sum(axis) + gamma(terms) * np.abs(self.mid).sum(axis)
        return Balls(self.mid.sum(axis), _up(rad, terms + 16))

    def swap(self, first: int, second: int) -> Balls:
        """Two axes exchanged."""
        return Balls(self.mid.swapaxes(first, second), self.rad.swapaxes(first, second))

    def reciprocal(self) -> Balls:
        """The reciprocals of positive numbers; nothing is known (infinite) where 0 is possible."""
        least = self.mid - self.rad
        # Off by at most u |least|: the factor brings it below the exact difference.
        least = least - UNIT * np.abs(least) * 2 - _TINY
        safe = np.where(least > 0, least, 1.0)
        middle = np.where(least > 0, self.mid, 1.0)
        rad = np.where(least > 0, _up(self.rad / (middle * safe) + 2 * UNIT / middle), np.inf)
        return Balls(1.0 / middle, rad)

    def upper(self) -> Floats:
        """At or above each number."""
        return np.nextafter(self.mid + self.rad, np.inf)

    def lower(self) -> Floats:
        """At or below each number."""
        return np.nextafter(self.mid - self.rad, -np.inf)

    def magnitude(self) -> Floats:
        """At or above each absolute value."""
        return np.nextafter(np.abs(self.mid) + self.rad, np.inf)

    def norm_upper(self, axes: tuple[int, ...]) -> Floats:
        """At or above the Euclidean norm over some axes."""
        size = self.magnitude()
        terms = int(np.prod([self.mid.shape[axis] for axis in axes]))
        return _up(np.sqrt(_up((size * size).sum(axis=axes), terms + 16)))


def add_up(*terms: Floats) -> Floats:
    """At or above a sum of numbers of at least 0."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return _up(total, len(terms))


def multiply_up(*factors: Floats | np.float64) -> Floats:
    """At or above a product of numbers of at least 0."""
    total = np.asarray(factors[0])
    for factor in factors[1:]:
        total = _up(np.asarray(total * factor), 2)
    return total


def sum_up(terms: Floats, axis: int | tuple[int, ...] = -1) -> Floats:
    """At or above sums of numbers of at least 0 along some axes."""
    axes = (axis,) if isinstance(axis, int) else axis
    count = int(np.prod([terms.shape[one] for one in axes]))
    return _up(terms.sum(axis=axes), count + 4)
