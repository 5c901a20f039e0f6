"""Prove limits on norms of given matrices, the figures that a model's ceiling rests on.

**Statement.** Let G = W W^T (or W^T W, the smaller), t^2 >= tau >= 0 and R any square matrix. Then

    ||tau I - G - R R^T||_F <= t^2 - tau   implies   ||W||_2 <= t.

*Proof.* With E the matrix on the left, t^2 I - G = R R^T + (t^2 - tau) I + E, R R^T >= 0 and
||E||_2 <= ||E||_F <= t^2 - tau: no eigenvalue of G exceeds t^2. []

R is guessed: the floating-point Cholesky factor of tau I - G. Nothing about it is believed. The
left side is computed from *exact products*: a matrix is cut into slices of b bits, integers A_0,
A_1, .. with A = 2^e (A_0 2^-b + A_1 2^-2b + ..) but for a rest, whose size is added to the error.
A sum of K products of two such integers is below K 2^2b <= 2^53: no order of adding rounds it, as
long as a matrix product is a sum of products. What is rounded after that is some 10^-17 of it.

True means proved; False means not proved, be the limit false or closer to the truth than the
guess is good: limits that exceed the norm by a part in some 10^15/n are proved, n the smaller
side. What found the limits bounded the rounding of plain float products by hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

_UNIT: Final = 2.0**-53
_SLICED: Final = 57  # bits kept of a matrix, below its largest entry
_SHIFTS: Final = (2, 32, 512)  # t^2 - tau in units of n 2^-53 t^2: the tightest limit first
_SPECK: Final = 2.0**-1000  # above every loss to underflow
_UP: Final = 1 + 2.0**-50


@dataclass(frozen=True, eq=False)
class Near:
    """Every matrix within a Frobenius distance of one."""

    center: Array
    radius: float = 0.0

    def __add__(self, other: Near) -> Near:
        center = self.center + other.center
        return Near(center, (self.radius + other.radius + _UNIT * frobenius(center)) * _UP)

    def __matmul__(self, other: Near) -> Near:
        """The product, whose own rounding is a part in 2^53."""
        if any(not near.center.any() and not near.radius for near in (self, other)):
            return Near(self.center @ other.center, 0 * (self.radius + other.radius))
        (left, left_cut), (right, right_cut) = _scaled(self.center), _scaled(other.center)
        bits = _slice_bits(left.shape[1])
        found, error = _joined(_levels(_slices(left, bits), _slices(right, bits)), bits)
        center = np.ldexp(found, left_cut + right_cut - 2 * bits)
        error = _ldexp(error, left_cut + right_cut - 2 * bits)
        one, two = (frobenius(matrix.center) for matrix in (self, other))
        moved_one = self.radius + _rest(left, left_cut, bits)
        moved_two = other.radius + _rest(right, right_cut, bits)
        moved = one * moved_two + moved_one * (two + moved_two)
        return Near(center, (error + moved) * _UP + _SPECK)

    def transposed(self) -> Near:
        """The matrices on their side."""
        return Near(self.center.T, self.radius)


def scaled_columns(matrix: Array, factors: Array, *, offset: int = 0) -> Near:
    """W diag(offset + factors): a sum and a product round, 2 u + u^2 < 2^-51 of each entry."""
    center = matrix * (offset + factors)
    return Near(center, 2.0**-51 * frobenius(center) + _SPECK * bool(matrix.any()))


def frobenius(matrix: Array) -> float:
    """Upper limit on the Frobenius norm."""
    top = float(np.abs(matrix).max(initial=0.0))
    if not 0 < top < math.inf:
        return 0.0 if top == 0 else math.inf
    exponent = math.frexp(top)[1]
    near_one = np.ldexp(matrix, -exponent)
    total = float(np.sum(near_one * near_one)) * (1 + (matrix.size + 4) * 2 * _UNIT)
    return math.nextafter(_ldexp(math.sqrt(total) * _UP, exponent), math.inf)


def row_norms(matrix: Near) -> Array:
    """Upper limits on the length of each row of W diag(g), off by 2^-51 of each entry."""
    squares = np.einsum("ij,ij->i", matrix.center, matrix.center)
    slack = (1 + (matrix.center.shape[1] + 8) * 2 * _UNIT) * _UP
    lengths: Array = np.sqrt(squares) * slack + _SPECK ** (1 / 4)
    return lengths


def proves_norm_at_most(limit: Fraction | int, matrix: Near | Array) -> bool:
    """Whether ||matrix||_2 <= limit is proved, for every matrix that is near."""
    if isinstance(limit, bool) or not isinstance(limit, int | Fraction):
        raise TypeError(f"a limit is an int or a Fraction, got {limit!r}")
    near = matrix if isinstance(matrix, Near) else Near(_plain(matrix))
    center = near.center if near.center.shape[0] <= near.center.shape[1] else near.center.T
    top, length = float(np.abs(center).max(initial=0.0)), frobenius(center)
    if not (math.isfinite(length) and math.isfinite(near.radius)) or limit < near.radius:
        return False
    if limit - Fraction(near.radius) >= length:
        return True
    if limit + Fraction(near.radius) < top:
        return False
    return _proved(center, near.radius, limit, math.frexp(max(float(limit), top))[1])


def _proved(center: Array, radius: float, limit: Fraction | int, exponent: int) -> bool:
    """In units of 2^exponent, which is above the limit and every entry."""
    bits = _slice_bits(center.shape[1])
    small, side = np.ldexp(center, -exponent), len(center)
    rest = Fraction(_rest(small, 0, bits))
    square = ((limit - Fraction(radius)) / Fraction(2) ** exponent - rest) ** 2
    if limit - Fraction(radius) <= rest * Fraction(2) ** exponent:
        return False
    slices = _slices(small, bits)
    gram = _levels(slices, [part.T for part in slices])
    hint = np.ldexp(_joined(gram, bits)[0], -2 * bits)
    for size in _SHIFTS:
        tau = _below(square * (1 - size * side * Fraction(_UNIT)))
        try:
            guess = np.linalg.cholesky(tau * np.eye(side) - hint)
        except np.linalg.LinAlgError:
            continue
        if not (np.abs(guess) < 1).all():  # NaN too
            continue
        root = _slices(np.asarray(guess, dtype=np.float64), bits)
        squared = _levels(root, [part.T for part in root])
        levels = [one + other for one, other in zip(gram, squared, strict=True)]
        levels[0] = levels[0] - np.ldexp(tau, 2 * bits) * np.eye(side)
        off, error = _joined(levels, bits)
        # The diagonal of the first level was rounded once more.
        error += _UNIT * math.sqrt(side) * float(np.abs(np.diag(levels[0])).max())
        if Fraction((frobenius(off) + error) * _UP) <= (square - Fraction(tau)) * 4**bits:
            return True
    return False


def _slice_bits(terms: int) -> int:
    """b for sums of so many products: with all sums of one level, below 2^52."""
    bits = 24
    while -(-_SLICED // bits) * terms * 4**bits > 2**52:
        bits -= 1
    return bits


def _scaled(matrix: Array) -> tuple[Array, int]:
    """The matrix with entries below 1, and the power of two that was taken out."""
    exponent = math.frexp(float(np.abs(matrix).max(initial=0.0)))[1]
    return np.ldexp(matrix, -exponent), exponent


def _slices(matrix: Array, bits: int) -> list[Array]:
    """Integers A_0, A_1, ..; the difference of a number and the nearest integer is exact."""
    found, rest = [], np.ldexp(matrix, bits)
    for _ in range(-(-_SLICED // bits)):
        found.append(np.rint(rest))
        rest = np.ldexp(rest - found[-1], bits)
    return found


def _rest(matrix: Array, exponent: int, bits: int) -> float:
    """Upper limit on the Frobenius norm of what slices leave out; half of it covers underflow."""
    return _ldexp(math.sqrt(matrix.size) * _UP, exponent - bits * -(-_SLICED // bits))


def _levels(left: Sequence[Array], right: Sequence[Array]) -> list[Array]:
    """Sums of the products of slices, by their power of 2^-b; each is exact."""
    levels: list[Any] = [0.0] * (2 * len(left) - 1)
    for i, one in enumerate(left):
        for j, other in enumerate(right):
            levels[i + j] = levels[i + j] + one @ other
    return levels


def _joined(levels: Sequence[Array], bits: int) -> tuple[Array, float]:
    """The sum of the levels in units of the first, and a limit on its rounding errors."""
    found, error = levels[-1], 0.0
    for level in reversed(levels[:-1]):
        found = level + np.ldexp(found, -bits)
        error = _ldexp(error, -bits) + _UNIT * frobenius(found)
    return found, error * _UP


def _below(value: Fraction) -> float:
    """The largest float that is not above an exact number."""
    number = float(value)
    return number if Fraction(number) <= value else math.nextafter(number, -math.inf)


def _ldexp(value: float, exponent: int) -> float:
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.inf


def _plain(array: NDArray[np.floating[Any]]) -> Array:
    """The same numbers as float64, which every narrower format is part of."""
    if array.ndim != 2:
        raise ValueError(f"an array of 2 axes is needed, got {array.ndim}")
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise TypeError(f"floats of at most 64 bits are needed, got {array.dtype}")
    return array.astype(np.float64)
