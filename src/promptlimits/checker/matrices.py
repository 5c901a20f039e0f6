"""Prove limits on norms of given matrices, the figures that a model's ceiling rests on.

**Statement.** Let G = A A^T (or A^T A, the smaller), t^2 >= tau and R any square matrix. Then

    ||tau I - G - R R^T||_F <= t^2 - tau   implies   ||A||_2 <= |t|.

*Proof.* With E the matrix on the left, t^2 I - G = R R^T + (t^2 - tau) I + E, R R^T >= 0 and
||E||_2 <= ||E||_F <= t^2 - tau: no eigenvalue of G exceeds t^2. []

R is guessed: the floating-point Cholesky factor of tau I - G. Nothing about it is believed (a proof
that believes it, [@rump2006], saves a product). The left side is computed in doubles, and a limit
on its rounding is known beforehand:

**Products.** Let u = 2^-53 and gamma_k = k u/(1 - k u). A sum of k products of doubles, added in
any order, with or without fused multiply-add, is off by at most gamma_k sum_i |x_i y_i|, and by
2^-1075 for each product that underflows ([@higham2002], section 3.1). That sum is at most the
length of a row of X times the length of a column of Y, so

    ||fl(X Y) - X Y||_F <= gamma_k ||X||_F ||Y||_F, underflow apart.

**The left side.** Let A have s rows and n columns, s <= n, and let g and p be the computed A A^T
and R R^T, h = fl(tau I - g) and r = fl(h - p). The subtractions are off by at most u |h_ii| on the
diagonal and u |r_ij| everywhere; |h_ii| <= (1 + u) |r_ii| + |p_ii|, and the p_ii are sums of
squares that add up to at most (1 + gamma_s) ||R||_F^2. As gamma_s + u (1 + gamma_s) <=
gamma_(s+1), the left side is at most

    (1 + 3u) ||r||_F + gamma_n ||A||_F^2 + gamma_(s+1) ||R||_F^2, underflow apart.

The norms in it are rounded up, and what is not finite makes it infinite. A is scaled by a power of
two that brings the limit and every entry to 1 or less: nothing overflows, and 2^-1000 is above all
that underflow takes.

**Rests on** IEEE 754 double precision with rounding to nearest, and on matrix products that are
computed as sums of products (as BLAS does; Strassen's method is none).

True means proved. False means not proved: the limit is false, or closer to the norm than rounding
allows. t^2 - tau is twice what the products may round off, so that limits are proved which exceed
||A||_2 by a part of (n ||A||_F^2/||A||_2^2 + s^2) u: below 10^-10 for 576 rows of 1,536.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

_UNIT: Final = 2.0**-53
_SPECK: Final = 2.0**-1000  # above every loss to underflow
_UP: Final = 1 + 2.0**-48  # above what 30 operations on numbers of at least 0 round off


@dataclass(frozen=True, eq=False)
class Near:
    """Every matrix within a Frobenius distance of one."""

    center: Array
    radius: float = 0.0

    def __add__(self, other: Near) -> Near:
        center = self.center + other.center
        return Near(center, (self.radius + other.radius + _UNIT * frobenius(center)) * _UP)

    def __matmul__(self, other: Near) -> Near:
        """The product, with its rounding."""
        one, two = frobenius(self.center), frobenius(other.center)
        moved = one * other.radius + self.radius * (two + other.radius)
        rounded = _gamma(other.center.shape[0]) * one * two
        speck = _SPECK if (one or self.radius) and (two or other.radius) else 0.0
        return Near(self.center @ other.center, (rounded + moved) * _UP + speck)

    def transposed(self) -> Near:
        """The matrices on their side."""
        return Near(self.center.T, self.radius)


def scaled_columns(matrix: Array, factors: Array, *, offset: int = 0) -> Near:
    """W diag(offset + factors): a sum and a product round, 2 u + u^2 < 2^-51 of each entry."""
    center = matrix * (offset + factors)
    return Near(center, 2.0**-51 * frobenius(center) + _SPECK * bool(matrix.any()))


@np.errstate(over="ignore", invalid="ignore")
def frobenius(matrix: Array) -> float:
    """Upper limit on the Frobenius norm; infinite if an entry is not finite."""
    flat = matrix.ravel(order="K")
    total = float(flat @ flat)
    if 2.0**-900 < total < math.inf:
        return math.sqrt(total * (1 + (flat.size + 4) * 2 * _UNIT)) * _UP
    top = float(np.abs(flat).max(initial=0.0))
    if not 0 < top < math.inf:
        return 0.0 if top == 0 else math.inf
    exponent = math.frexp(top)[1]
    near_one = frobenius(np.ldexp(flat, -exponent))
    return math.nextafter(_ldexp(near_one, exponent), math.inf)


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
    if not (math.isfinite(length) and math.isfinite(near.radius)):
        return False
    left = limit - Fraction(near.radius)
    if left >= length:
        return True
    if left < top:
        return False
    exponent = math.frexp(float(left))[1]
    # Scaled down, small entries become subnormal: a speck covers what they lose.
    square = (left / Fraction(2) ** exponent - Fraction(_SPECK)) ** 2
    return _proved(np.ldexp(center, -exponent), square)


def _proved(matrix: Array, square: Fraction) -> bool:
    """Whether t^2 I - A A^T >= 0 is proved, for t and entries of at most 1."""
    side, terms = matrix.shape
    gram = _gamma(terms) * frobenius(matrix) ** 2
    tau = float(square - 2 * Fraction(gram + side * _gamma(side + 1) * float(square)))
    shifted = tau * np.eye(side) - matrix @ matrix.T
    try:
        root = np.asanyarray(np.linalg.cholesky(shifted), np.float64)
    except np.linalg.LinAlgError:
        return False
    product = _gamma(side + 1) * frobenius(root) ** 2
    rest = frobenius(shifted - root @ root.T)
    return (rest + gram + product + _SPECK) * _UP <= square - Fraction(tau)


def _gamma(terms: int) -> float:
    """k u/(1 - k u), itself rounded twice."""
    return terms * _UNIT / (1 - terms * _UNIT)


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
