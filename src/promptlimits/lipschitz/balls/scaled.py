"""Matrix balls times powers of two: products of weights of any size, without overflow.

A `ScaledBall` stands for 2^e M for every M of a ball whose centre has entries of at most 1. A
product of two weight matrices leaves the range of doubles from entries of 1e154 on, and its
squares from 1e77 on; here only exponents grow. Scaling by a power of two is exact, but where a
number becomes subnormal: that error is added to the radius.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from promptlimits.lipschitz.balls.matrix import MatrixBall
from promptlimits.lipschitz.balls.spectral import spectral_norm


@dataclass(frozen=True, kw_only=True, eq=False)
class ScaledBall:
    """Every 2^exponent M for M of a ball.

    Attributes:
        ball: The ball; no entry of its centre, nor its radius, is 1 or more.
        exponent: Any integer.
    """

    ball: MatrixBall
    exponent: int

    @classmethod
    def exact(cls, array: NDArray[np.float64]) -> ScaledBall:
        """The ball around a float64 matrix; a vector becomes one column."""
        return cls(ball=MatrixBall.exact(array), exponent=0).levelled()

    def levelled(self) -> ScaledBall:
        """The same matrices: the largest entry of the centre, or the radius, is from 1/2 to 1."""
        largest = max(float(np.abs(self.ball.center).max(initial=0.0)), self.ball.radius)
        exponent = math.frexp(largest)[1]
        return ScaledBall(ball=self.ball.times_power(-exponent), exponent=self.exponent + exponent)

    @property
    def T(self) -> ScaledBall:  # noqa: N802 - as numpy and the papers write it
        """The transposes."""
        return ScaledBall(ball=self.ball.T, exponent=self.exponent)

    def __matmul__(self, other: ScaledBall) -> ScaledBall:
        """Ball around every product."""
        exponent = self.exponent + other.exponent
        return ScaledBall(ball=self.ball @ other.ball, exponent=exponent).levelled()

    def __add__(self, other: ScaledBall) -> ScaledBall:
        """Ball around every sum."""
        exponent = max(self.exponent, other.exponent)
        left, right = (each.ball.times_power(each.exponent - exponent) for each in (self, other))
        return ScaledBall(ball=left + right, exponent=exponent).levelled()

    def scaled(self, factor: Fraction) -> ScaledBall:
        """Ball around every multiple by an exact factor of moderate size."""
        return ScaledBall(ball=self.ball.scaled(factor), exponent=self.exponent).levelled()

    def spectral_norm(self) -> Fraction:
        """Upper limit on the spectral norm of every matrix."""
        return spectral_norm(self.ball) * Fraction(2) ** self.exponent

    def frobenius_norm(self) -> Fraction:
        """Upper limit on the Frobenius norm of every matrix."""
        return Fraction(self.ball.frobenius_upper()) * Fraction(2) ** self.exponent
