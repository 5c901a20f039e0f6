"""The papers' transformer in ball arithmetic: what it computes, rounding and all.

Floats are exact numbers, so tau([P, X]) at floats P, X is one matrix of real numbers. Evaluated
in balls it is enclosed at any precision, and a distance from other floats is proved, not
measured. It costs some thousand times a float evaluation: meant for checking a few results.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from flint import arb, arb_mat
from numpy.typing import NDArray

from promptlimits.bound import PRECISION_BITS, working_precision
from promptlimits.lipschitz.rounding import upper
from promptlimits.lipschitz.weights import HeadWeights, LayerWeights, TransformerWeights

Floats = NDArray[np.float64]


def proved_distance(
    weights: TransformerWeights, columns: Floats, outputs: Floats, *, norm: str = "token"
) -> Fraction:
    """Upper limit on the distance of tau(columns) from given outputs, in its last columns.

    Args:
        weights: The transformer.
        columns: [P, X], of shape (d, n), finite floats.
        outputs: Compared with the last m columns of the result, of shape (d, m), m <= n.
        norm: "token" (greatest distance of a column) or "frobenius".

    Returns:
        The limit, rounded up; rounding of the floats' own evaluation plays no part in it.
    """
    with working_precision(PRECISION_BITS):
        result = _forward(weights, _exact(columns))
        first = result.ncols() - outputs.shape[1]
        apart = [
            [result[i, first + j] - arb(float(number)) for i, number in enumerate(column)]
            for j, column in enumerate(outputs.T)
        ]
        squares = [_squares(column) for column in apart]
        if norm == "token":
            return max(upper(square.sqrt()) for square in squares)
        return upper(sum(squares, arb(0)).sqrt())


def _forward(weights: TransformerWeights, columns: arb_mat) -> arb_mat:
    for layer in weights.layers:
        attended = columns
        for head in layer.heads:
            attended = attended + _attention(head, columns, weights.masked)
        columns = _mlp(layer, attended)
    return columns


def _attention(head: HeadWeights, columns: arb_mat, masked: bool) -> arb_mat:
    queries, keys = _exact(head.query) * columns, _exact(head.key) * columns
    logits = queries.transpose() * keys
    count = columns.ncols()
    shares = arb_mat(count, count)
    for i in range(count):
        seen = range(i + 1) if masked else range(count)
        # Any shift gives the same shares; the midpoint's keeps the exponentials of order 1.
        shift = max((logits[i, j].mid() for j in seen), default=arb(0))
        powers = [(logits[i, j] - shift).exp() for j in seen]
        whole = sum(powers, arb(0))
        for j, power in zip(seen, powers, strict=True):
            shares[j, i] = power / whole
    return _exact(head.output) * (_exact(head.value) * columns * shares)


def _mlp(layer: LayerWeights, columns: arb_mat) -> arb_mat:
    result = columns + _spread(layer.b2, columns.ncols())
    if not layer.hidden:
        return result
    hidden = _exact(layer.w1) * columns + _spread(layer.b1, columns.ncols())
    active = [
        [hidden[i, j].max(arb(0)) for j in range(hidden.ncols())] for i in range(hidden.nrows())
    ]
    return result + _exact(layer.w2) * arb_mat(active)


def _spread(bias: Floats, count: int) -> arb_mat:
    return _exact(np.repeat(bias[:, None], count, axis=1))


def _exact(matrix: Floats) -> arb_mat:
    return arb_mat(matrix.shape[0], matrix.shape[1], [arb(float(x)) for x in matrix.ravel()])


def _squares(numbers: list[arb]) -> arb:
    return sum((number**2 for number in numbers), arb(0))
