"""Matrices known up to an error in spectral norm: rigorous linear algebra at BLAS speed.

A `MatrixBall` stands for every real matrix M with ||M - center||_2 <= radius. Centres are
computed in float64; each radius is an upper limit on the error made so far.

Rounding (u = 2^-53, gamma_k = k u / (1 - k u)). A sum of k products of doubles, added in any
order, with or without fused multiply-add, differs from the exact value by at most
gamma_k |x|.|y| + k 2^-1074 (Higham 2002, section 3.1; the second term is underflow). Hence, as
|| |A| ||_2 <= ||A||_F,

    || fl(AB) - AB ||_2  <=  gamma_k ||A||_F ||B||_F + k m n 2^-1074.

Scalar radii are combined with one step of `math.nextafter` after each operation: an operation
of IEEE 754 is off by at most half a step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from promptlimits.base.bound import Assumption
from promptlimits.base.errors import UserError

DOUBLE_ARITHMETIC: Final = Assumption(
    text="Double precision is IEEE 754 with rounding to nearest, and a matrix product is "
    "computed as sums of products, in any order (as BLAS does).",
    holds=None,
)
"""What every proof by matrix balls rests on, and every proof of norms in `checker`."""


class ProductOverflow(UserError):
    """Weights are so large that their products leave the range of doubles."""

    def __init__(self) -> None:
        """Say so; nothing else is known here."""
        super().__init__(
            "the weights",
            "be so small that their products stay below 1.8e308",
            got="larger ones",
            remedy="scale the weights or the radius down",
        )


_UNIT: Final = Fraction(1, 2**53)
_TINY: Final = 2.0**-1074


def add_up(*terms: float) -> float:
    """Upper limit on a sum of floats of at least 0, as a float."""
    total = terms[0]
    for term in terms[1:]:
        # What is 0 adds nothing, so that exact matrices keep a radius of exactly 0.
        total = math.nextafter(total + term, math.inf) if total and term else total + term
    return total


def multiply_up(*factors: float) -> float:
    """Upper limit on a product of floats of at least 0, as a float."""
    total = factors[0]
    for factor in factors[1:]:
        total = math.nextafter(total * factor, math.inf) if total and factor else 0.0
    return total


def sqrt_up(value: float) -> float:
    """Upper limit on a square root, as a float."""
    return math.nextafter(math.sqrt(value), math.inf) if value else 0.0


def float_up(value: Fraction) -> float:
    """The least float that is not below an exact number."""
    number = float(value)  # to nearest
    return number if Fraction(number) >= value else math.nextafter(number, math.inf)


def float_down(value: Fraction) -> float:
    """The largest float that is not above an exact number."""
    return 0.0 - float_up(-value)  # 0 and not -0.0


def gamma(terms: int) -> float:
    """Upper limit on gamma_k = k u / (1 - k u), for k = `terms` of at least 1."""
    return float_up(terms * _UNIT / (1 - terms * _UNIT))


def frobenius_up(array: NDArray[np.float64]) -> float:
    """Upper limit on the Frobenius norm of an exact array; infinite beyond doubles."""
    size, exponent = frobenius_parts(array)
    try:
        return math.nextafter(math.ldexp(size, exponent), math.inf) if size else 0.0
    except OverflowError:
        return math.inf


def frobenius_parts(array: NDArray[np.float64]) -> tuple[float, int]:
    """Upper limit on the Frobenius norm of an exact array, as s and e of s 2^e.

    The computed sum S of n squares obeys S >= (1 - gamma_n) * exact - n 2^-1074.
    """
    flat, exponent = array.ravel(order="K"), 0
    with np.errstate(over="ignore"):
        squares = float(flat @ flat)
    if not 2.0**-900 < squares < math.inf:
        # Scaling by a power of two is exact and keeps the squares from overflow and underflow.
        largest = float(np.abs(flat).max(initial=0.0))
        if largest == 0.0:
            return 0.0, 0
        exponent = math.frexp(largest)[1]
        scaled = np.ldexp(flat, -exponent)
        squares = float(scaled @ scaled)
    total = add_up(squares, multiply_up(float(flat.size), _TINY))
    slack = float_up(1 / (1 - Fraction(gamma(flat.size + 1))))
    return sqrt_up(multiply_up(total, slack)), exponent


@dataclass(frozen=True, kw_only=True, eq=False)
class MatrixBall:
    """Every matrix within a distance of a centre, in spectral norm.

    Raises:
        ValueError: The centre is no matrix, or the radius is negative.
        ProductOverflow: Something is not finite: weights too large to multiply in doubles.
    """

    center: NDArray[np.float64]  # (m, n) float64, read as exact numbers
    radius: float  # largest spectral norm of the difference; 0 for an exact matrix

    def __post_init__(self) -> None:
        if self.center.ndim != 2 or self.center.dtype != np.float64:
            raise ValueError("the centre of a matrix ball is a float64 matrix")
        if self.radius < 0:
            raise ValueError(f"the radius of a matrix ball is at least 0, got {self.radius}")
        if not (math.isfinite(self.radius) and np.isfinite(self.center).all()):
            raise ProductOverflow

    @classmethod
    def exact(cls, array: NDArray[np.float64]) -> MatrixBall:
        """The ball of radius 0 around a float64 matrix; a vector becomes one column."""
        matrix = np.asarray(array)
        return cls(center=matrix.reshape(-1, 1) if matrix.ndim == 1 else matrix, radius=0.0)

    @classmethod
    def identity(cls, size: int) -> MatrixBall:
        """The identity."""
        return cls.exact(np.eye(size))

    @classmethod
    def concatenate(cls, balls: Sequence[MatrixBall], *, axis: int) -> MatrixBall:
        """Balls side by side (axis 1) or stacked (axis 0); the errors add as squares."""
        center = np.concatenate([ball.center for ball in balls], axis=axis)
        squares = [multiply_up(ball.radius, ball.radius) for ball in balls]
        return cls(center=center, radius=sqrt_up(add_up(*squares)))

    @classmethod
    def block(cls, rows: Sequence[Sequence[MatrixBall]]) -> MatrixBall:
        """A matrix of blocks."""
        return cls.concatenate([cls.concatenate(row, axis=1) for row in rows], axis=0)

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        rows, columns = self.center.shape
        return rows, columns

    @property
    def T(self) -> MatrixBall:  # noqa: N802 - as numpy and the papers write it
        """The transposes."""
        return MatrixBall(center=self.center.T, radius=self.radius)

    def __add__(self, other: MatrixBall) -> MatrixBall:
        """Ball around every sum."""
        return self._plus(other, other.center)

    def __sub__(self, other: MatrixBall) -> MatrixBall:
        """Ball around every difference."""
        return self._plus(other, -other.center)

    def _plus(self, other: MatrixBall, signed: NDArray[np.float64]) -> MatrixBall:
        if self.shape != other.shape:
            raise ValueError(f"shapes {self.shape} and {other.shape} do not add")
        with np.errstate(over="ignore", invalid="ignore"):  # refused as a centre
            center = self.center + signed
        # A rounded sum s is off by at most u |s|; sums of doubles do not underflow.
        rounding = multiply_up(float(_UNIT), frobenius_up(center))
        return MatrixBall(center=center, radius=add_up(self.radius, other.radius, rounding))

    def __matmul__(self, other: MatrixBall) -> MatrixBall:
        """Ball around every product."""
        (rows, inner), columns = self.shape, other.shape[1]
        with np.errstate(over="ignore", invalid="ignore"):  # refused as a centre
            center = self.center @ other.center
        left, right = self._frobenius_center(), other._frobenius_center()
        radius = add_up(
            multiply_up(gamma(max(inner, 1)), left, right),
            multiply_up(float(max(inner, 1) * rows * columns), _TINY),
            multiply_up(self.radius, right),
            multiply_up(left, other.radius),
            multiply_up(self.radius, other.radius),
        )
        return MatrixBall(center=center, radius=radius)

    def scaled(self, factor: Fraction | float) -> MatrixBall:
        """Ball around every multiple by an exact factor; a float is read as the number it is."""
        exact = Fraction(factor)
        near = float(exact)
        with np.errstate(over="ignore", invalid="ignore"):  # refused as a centre
            center = self.center * near
        size = self._frobenius_center()
        radius = add_up(
            multiply_up(float_up(abs(exact)), self.radius),
            multiply_up(float_up(abs(exact - Fraction(near))), size),
            multiply_up(float(_UNIT), frobenius_up(center)),
            multiply_up(float(max(center.size, 1)), _TINY),
        )
        return MatrixBall(center=center, radius=radius)

    def times_power(self, power: int) -> MatrixBall:
        """Ball around every 2^power M: exact, but where numbers become subnormal."""
        if power == 0:
            return self
        # Powers beyond these leave nothing of any double, or are met by 0 alone.
        power = min(max(power, -4000), 4000)
        center, radius = np.ldexp(self.center, power), math.ldexp(self.radius, power)
        if power < 0 and self.radius:
            radius = math.nextafter(radius, math.inf)
        if power < 0 and not np.array_equal(np.ldexp(center, -power), self.center):
            radius = add_up(radius, multiply_up(float(center.size), _TINY))
        return MatrixBall(center=center, radius=radius)

    def symmetrised(self) -> MatrixBall:
        """The same symmetric matrices, around a symmetric centre.

        For symmetric M, ||M - (C + C^T)/2|| <= ||M - C||. Halving is exact but for underflow, by
        at most 2^-1075 for each of two halves.
        """
        center = self.center / 2 + self.center.T / 2
        rounding = multiply_up(float(_UNIT), frobenius_up(center), 2.0)
        tiny = multiply_up(float(max(center.size, 1)), _TINY)
        return MatrixBall(center=center, radius=add_up(self.radius, rounding, tiny))

    def frobenius_upper(self) -> float:
        """Upper limit on the Frobenius norm of every matrix of the ball.

        An error of spectral norm e has Frobenius norm at most e sqrt(min(m, n)).
        """
        rank = sqrt_up(float(max(min(self.shape), 1)))
        return add_up(self._frobenius_center(), multiply_up(self.radius, rank))

    def _frobenius_center(self) -> float:
        return frobenius_up(self.center)
