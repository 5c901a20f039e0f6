"""Prove limits on norms of given matrices, the figures that a model's ceiling rests on.

**Statement.** Let G = W W^T (or W^T W, the smaller), t >= 0, s >= 0 and R any square matrix.
Then

    ||t^2 I - G - R R^T - s I||_F <= s   implies   ||W||_2 <= t.

*Proof.* t^2 I - G = R R^T + s I + E with ||E||_2 <= ||E||_F <= s, and R R^T >= 0. So
t^2 I - G >= s I + E >= (s - ||E||_2) I >= 0: no eigenvalue of G exceeds t^2. []

R is guessed: the floating-point Cholesky factor of t^2 I - G - s I. Nothing about it is
believed: the left side is computed in ball arithmetic (arb) from the exact entries of W, and
only a limit that is proved is answered with True. False means "not proved", be it false or
closer to the truth than the guess is good: with n the smaller side, limits that exceed the norm
by a part in some 10^15/n are proved. What found the limits computed in floats with rounding
errors bounded by hand.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from typing import Any, Final, TypeAlias

import numpy as np
from flint import arb, arb_mat, ctx, fmpq
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]
Matrix: TypeAlias = Floats | arb_mat
"""Floats stand for themselves, balls for every matrix in them."""

PRECISION_BITS: Final = 160
"""Bits of the balls; limits were found with 53."""

_ROUND: Final = Fraction(1, 2**53)
_SHIFTS: Final = (2, 32, 512)  # in units of n 2^-53 t^2, least first: the tightest limit
_MOST_FACTORED: Final = 256  # a Cholesky factor of balls in Python: some 2 s
_FLINT_LOCK = threading.RLock()


@contextmanager
def ball_precision(bits: int = PRECISION_BITS) -> Iterator[None]:
    """Compute with balls of so many bits; arb keeps one precision for all threads."""
    with _FLINT_LOCK, ctx.workprec(bits):
        yield


def proves_norm_at_most(limit: Fraction | int, *matrices: Matrix) -> bool:
    """Whether ||A B C ...||_2 <= limit is proved; the product is not rounded."""
    if isinstance(limit, bool) or not isinstance(limit, int | Fraction):
        raise TypeError(f"a limit is an int or a Fraction, got {limit!r}")
    given = [matrix for matrix in matrices if not isinstance(matrix, arb_mat)]
    factors = [matrix if isinstance(matrix, arb_mat) else balls(matrix) for matrix in matrices]
    shapes = [(factor.nrows(), factor.ncols()) for factor in factors]
    if any(one[1] != other[0] for one, other in pairwise(shapes)):
        raise ValueError(f"shapes that fit, got {shapes}")
    if limit < 0 or not all(np.isfinite(matrix).all() for matrix in given):
        return False
    if any(0 in shape for shape in shapes):
        return True
    with ball_precision():
        gram = _gram(factors)
        top = max(entry.abs_upper() for entry in gram.entries())
        if top == 0:
            return True
        # The same statement with the largest entry near 1, so that the guess is in range.
        scale = arb(2) ** -_binary_exponent(top)
        square = ball(limit) ** 2 * scale
        # Twice the trace is far above the norm: nothing is lost by proving no more than it.
        square = min(square, arb(2 * gram.nrows()))
        return any(_residual_is_small(gram * scale, square, size) for size in _SHIFTS)


def ball(value: Fraction | int) -> arb:
    """A ball around an exact number."""
    return arb(fmpq(value.numerator, value.denominator))


def balls(matrix: Floats) -> arb_mat:
    """Exactly this matrix: every float64 is a ball of radius 0."""
    rows = _plain(matrix)
    return arb_mat(len(rows), rows.shape[1], [arb(value) for value in rows.ravel().tolist()])


def times_columns(matrix: Floats, factors: Sequence[arb]) -> arb_mat:
    """Balls around M diag(factors). Use in `ball_precision`."""
    rows = _plain(matrix).tolist()
    entries = [
        arb(value) * factor for row in rows for value, factor in zip(row, factors, strict=True)
    ]
    return arb_mat(len(rows), len(factors), entries)


def row_norms(matrix: arb_mat) -> list[arb]:
    """Balls around the Euclidean norm of each row. Use in `ball_precision`."""
    entries, width = matrix.entries(), matrix.ncols()
    return [
        sum((entry * entry for entry in entries[start : start + width]), arb(0)).sqrt()
        for start in range(0, len(entries), width)
    ]


def cholesky(matrix: arb_mat) -> arb_mat | None:
    """Balls around L, matrix = L L^T; None if the matrix is not proved to be positive.

    Only the lower half is read. Every symmetric matrix in the balls has the positive pivots found.
    """
    side = matrix.nrows()
    rows: list[list[arb]] = []
    for place in range(side):
        row: list[arb] = []
        for column, above in enumerate(rows):
            known = sum((x * y for x, y in zip(row, above, strict=False)), arb(0))
            row.append((matrix[place, column] - known) / above[column])
        pivot = matrix[place, place] - sum((x * x for x in row), arb(0))
        if not pivot > 0:
            return None
        rows.append([*row, pivot.sqrt()])
    return arb_mat([[*row, *[0] * (side - len(row))] for row in rows])


def identity(side: int, value: arb | int = 1) -> arb_mat:
    """value I."""
    matrix = arb_mat(side, side)
    for place in range(side):
        matrix[place, place] = value
    return matrix


def _gram(factors: Sequence[arb_mat]) -> arb_mat:
    """A small matrix in balls whose largest eigenvalue is the squared norm of the product.

    Let P = X Y with few columns of X, and X^T X = L L^T. AB and BA have the same nonzero
    eigenvalues: P P^T = (X Y Y^T) X^T has those of X^T X Y Y^T = L (L^T Y Y^T), which has those
    of L^T Y Y^T L.
    """
    outer = min(factors[0].nrows(), factors[-1].ncols())
    widths = [factor.ncols() for factor in factors[:-1]]
    if widths and 2 * min(widths) <= outer and min(widths) <= _MOST_FACTORED:
        place = widths.index(min(widths)) + 1
        left, right = _product(factors[:place]), _product(factors[place:])
        root = cholesky(left.transpose() * left)
        if root is not None:
            half = root.transpose() * right
            return half * half.transpose()
    whole = _product(factors)
    if whole.nrows() <= whole.ncols():
        return whole * whole.transpose()
    return whole.transpose() * whole


def _product(factors: Sequence[arb_mat]) -> arb_mat:
    whole = factors[0]
    for factor in factors[1:]:
        whole *= factor
    return whole


def _residual_is_small(gram: arb_mat, square: arb, size: int) -> bool:
    """Whether the residual of a guess with the shift s = `size` n 2^-53 t^2 is at most s."""
    side = gram.nrows()
    shift = square * ball(size * side * _ROUND)
    target = identity(side, square - shift) - gram
    hint = np.array([float(entry) for entry in target.entries()]).reshape(side, side)
    try:
        guessed = np.linalg.cholesky(hint)
    except np.linalg.LinAlgError:
        return False
    factor = np.asarray(guessed, dtype=np.float64)
    if not np.isfinite(factor).all():
        return False
    guess = balls(factor)
    rest = target - guess * guess.transpose()
    total = sum((entry * entry for entry in rest.entries()), arb(0))
    return bool(total <= shift * shift)


def _binary_exponent(value: arb) -> int:
    mantissa, exponent = value.mid().man_exp()
    return int(mantissa).bit_length() + int(exponent)


def _plain(array: Floats) -> NDArray[np.float64]:
    """The same numbers as float64, which every narrower format is part of."""
    if array.ndim != 2:
        raise ValueError(f"an array of 2 axes is needed, got {array.ndim}")
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise TypeError(f"floats of at most 64 bits are needed, got {array.dtype}")
    return array.astype(np.float64)
