"""Proved upper limits on spectral norms, largest eigenvalues and lengths of vectors.

An eigenvalue solver's answer is only a guess t. That t I - M has no negative eigenvalue is then
proved by a factor L, since for any L at all L L^T has none:

    M  =  L L^T + s I + E   implies   lambda_min(M) >= s - ||E||_2,

so it is proved once ||E||_2 <= s. L comes from a Cholesky factorisation, whose own
rounding does not matter: only the product L L^T is formed with a rigorous error
(`MatrixBall`). It is the idea of [@rump2006] with a residual in place of an error analysis of
Cholesky. A limit is loose by about n^2 2^-53, below 10^-8 for every width met here.

Numbers returned are exact (`Fraction`), so no float passes for a proof.

A `ScaledBall` stands for 2^e M for every M of a ball whose centre has entries of at most 1. A
product of two weight matrices leaves the range of doubles from entries of 1e154 on, and its
squares from 1e77 on; here only exponents grow. Scaling by a power of two is exact, but where a
number becomes subnormal: that error is added to the radius.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from promptlimits.lipschitz.balls.matrix import (
    MatrixBall,
    add_up,
    float_up,
    frobenius_parts,
    frobenius_up,
    gamma,
    multiply_up,
    sqrt_up,
)

Matrix: TypeAlias = "NDArray[np.float64] | MatrixBall"
_TRIES = 8
_MODERATE = 400
"""Matrices whose entries are all beyond 2^400, or below its inverse, are scaled first."""


def _ball(matrix: Matrix) -> MatrixBall:
    return matrix if isinstance(matrix, MatrixBall) else MatrixBall.exact(np.asarray(matrix, float))


def is_positive_semidefinite(matrix: Matrix) -> bool:
    """Prove that every symmetric matrix of a ball has no negative eigenvalue."""
    ball = _ball(matrix)
    size = ball.shape[0]
    if ball.shape != (size, size):
        raise ValueError(f"a symmetric matrix is square, got {ball.shape}")
    if size == 0:
        return True
    ball = ball.symmetrised()
    trace = float(np.abs(np.diagonal(ball.center)).sum())
    shift = 4 * add_up(ball.radius, multiply_up(gamma(size + 4), trace))
    identity = np.eye(size)
    try:
        factor = np.asarray(np.linalg.cholesky(ball.center - shift * identity), np.float64)
    except np.linalg.LinAlgError:
        return False
    product = MatrixBall.exact(factor) @ MatrixBall.exact(factor).T
    rest = (ball - product) - MatrixBall.exact(shift * identity)
    return add_up(frobenius_up(rest.center), rest.radius) <= shift


def largest_eigenvalue(matrix: Matrix) -> Fraction:
    """Upper limit on the largest eigenvalue of every symmetric matrix of a ball."""
    ball = _ball(matrix)
    if ball.shape[0] != ball.shape[1] or ball.shape[0] == 0:
        raise ValueError(f"eigenvalues need a square matrix, got {ball.shape}")
    exponent = math.frexp(max(float(np.abs(ball.center).max()), ball.radius))[1]
    if abs(exponent) > _MODERATE:
        level = ball.times_power(-exponent)
        return largest_eigenvalue(level) * Fraction(2) ** exponent
    ball = ball.symmetrised()
    size = ball.shape[0]
    whole = frobenius_up(ball.center)
    if whole == 0.0:
        return Fraction(ball.radius)
    guess = float(np.linalg.eigvalsh(ball.center)[-1])
    margin = 8 * (size * gamma(size + 4) * whole + ball.radius)
    for _ in range(_TRIES):
        limit = math.nextafter(guess + margin, math.inf)
        if limit < whole and is_positive_semidefinite(
            MatrixBall.exact(np.diag(np.full(size, limit))) - ball
        ):
            return Fraction(limit)
        margin *= 8
    return Fraction(add_up(whole, ball.radius))


def spectral_norm(matrix: Matrix) -> Fraction:
    """Upper limit on the spectral norm of every matrix of a ball.

    Args:
        matrix: (m, n), of any size.

    Returns:
        A dyadic number; loose by about 1e-8 of the norm at most, plus the radius.
    """
    ball = _ball(matrix)
    center = ball.center
    if center.size == 0 or not center.any():
        return Fraction(ball.radius)
    # Exact scaling by a power of two: the squares below neither overflow nor underflow.
    exponent = math.frexp(float(np.abs(center).max()))[1]
    scaled = np.ldexp(center, -exponent)
    # ldexp rounds what becomes subnormal: at most half of 2^-1074 for each entry.
    lost = multiply_up(float(center.size), 2.0**-1074) if exponent > 0 else 0.0
    short = scaled if scaled.shape[0] <= scaled.shape[1] else scaled.T
    gram = MatrixBall.exact(short) @ MatrixBall.exact(short).T
    norm = min(sqrt_up(float_up(largest_eigenvalue(gram))), frobenius_up(scaled))
    return Fraction(add_up(norm, lost)) * Fraction(2) ** exponent + Fraction(ball.radius)


def vector_norm(vector: NDArray[np.float64]) -> Fraction:
    """Upper limit on the Euclidean length of an exact vector."""
    size, exponent = frobenius_parts(np.asarray(vector, float))
    return Fraction(size) * Fraction(2) ** exponent


def row_norms(matrix: NDArray[np.float64]) -> tuple[Fraction, ...]:
    """Upper limits on the Euclidean lengths of the rows of an exact matrix."""
    return tuple(vector_norm(row) for row in np.asarray(matrix, float))


@dataclass(frozen=True, kw_only=True, eq=False)
class ScaledBall:
    """Every 2^exponent M for M of a ball."""

    ball: MatrixBall  # the ball; no entry of its centre, nor its radius, is 1 or more
    exponent: int  # any integer

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
