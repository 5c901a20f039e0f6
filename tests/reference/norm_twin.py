"""Limits on norms proved from exact products: the slow twin of `checker.matrices`.

    ||tau I - G - R R^T||_F <= t^2 - tau   implies   ||A||_2 <= t

for any R at all, and here the left side is computed from *exact products*: a matrix is cut into
slices of b bits, integers A_0, A_1, .. with A = 2^e (A_0 2^-b + A_1 2^-2b + ..) but for a rest,
whose size is added to the error. A sum of K products of two such integers is below K 2^2b <= 2^53:
no order of adding rounds it. What is rounded after that is some 10^-17 of it, so limits that exceed
the norm by a part in some 10^15/n are proved, n the smaller side.
"""

import math
from fractions import Fraction

import numpy as np

UNIT = 2.0**-53
SLICED = 57  # bits kept of a matrix, below its largest entry
SHIFTS = (2, 32, 512)  # t^2 - tau in units of n 2^-53 t^2: the tightest limit first
UP = 1 + 2.0**-50


def proves_norm_at_most(limit, matrix):
    """Whether ||matrix||_2 <= limit is proved; the limit is exact, the entries are floats."""
    matrix = matrix if len(matrix) <= len(matrix.T) else matrix.T
    top, length = float(np.abs(matrix).max()), frobenius(matrix)
    if limit >= length:
        return True
    if limit < top:
        return False
    exponent, side = math.frexp(max(float(limit), top))[1], len(matrix)
    bits = slice_bits(matrix.shape[1])
    small = np.ldexp(matrix, -exponent)
    rest = Fraction(math.ldexp(math.sqrt(small.size) * UP, -bits * -(-SLICED // bits)))
    square = (limit / Fraction(2) ** exponent - rest) ** 2
    if limit <= rest * Fraction(2) ** exponent:
        return False
    parts = slices(small, bits)
    gram = levels(parts, [part.T for part in parts])
    hint = np.ldexp(joined(gram, bits)[0], -2 * bits)
    return any(
        shifted(gram, hint, square, Fraction(size * side) * Fraction(UNIT), bits) for size in SHIFTS
    )


def shifted(gram, hint, square, gap, bits):
    """Whether the residual of one guess is small enough."""
    side, tau = len(hint), below(square * (1 - gap))
    try:
        guess = np.linalg.cholesky(tau * np.eye(side) - hint)
    except np.linalg.LinAlgError:
        return False
    root = slices(guess, bits)
    squared = levels(root, [part.T for part in root])
    both = [one + other for one, other in zip(gram, squared, strict=True)]
    both[0] = both[0] - np.ldexp(tau, 2 * bits) * np.eye(side)
    off, error = joined(both, bits)
    # The diagonal of the first level was rounded once more.
    error += UNIT * math.sqrt(side) * float(np.abs(np.diag(both[0])).max())
    return Fraction((frobenius(off) + error) * UP) <= (square - Fraction(tau)) * 4**bits


def frobenius(matrix):
    """Upper limit on the Frobenius norm."""
    top = float(np.abs(matrix).max())
    if top == 0:
        return 0.0
    exponent = math.frexp(top)[1]
    near_one = np.ldexp(matrix, -exponent)
    total = float(np.sum(near_one * near_one)) * (1 + (matrix.size + 4) * 2 * UNIT)
    return math.nextafter(math.ldexp(math.sqrt(total) * UP, exponent), math.inf)


def slice_bits(terms):
    """b for sums of so many products: with all sums of one level, below 2^52."""
    bits = 24
    while -(-SLICED // bits) * terms * 4**bits > 2**52:
        bits -= 1
    return bits


def slices(matrix, bits):
    """Integers A_0, A_1, ..; the difference of a number and the nearest integer is exact."""
    found, rest = [], np.ldexp(matrix, bits)
    for _ in range(-(-SLICED // bits)):
        found.append(np.rint(rest))
        rest = np.ldexp(rest - found[-1], bits)
    return found


def levels(left, right):
    """Sums of the products of slices, by their power of 2^-b; each is exact."""
    sums = [0.0] * (2 * len(left) - 1)
    for i, one in enumerate(left):
        for j, other in enumerate(right):
            sums[i + j] = sums[i + j] + one @ other
    return sums


def joined(sums, bits):
    """The sum of the levels in units of the first, and a limit on its rounding errors."""
    found, error = sums[-1], 0.0
    for level in reversed(sums[:-1]):
        found = level + np.ldexp(found, -bits)
        error = math.ldexp(error, -bits) + UNIT * frobenius(found)
    return found, error * UP


def below(value):
    """The largest float that is not above an exact number."""
    number = float(value)
    return number if Fraction(number) <= value else math.nextafter(number, -math.inf)
