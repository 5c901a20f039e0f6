"""The papers' transformer in ball arithmetic: what it computes, rounding and all.

Floats are exact numbers, so tau([P, X]) at floats P, X is one matrix of real numbers. Evaluated
in balls it is enclosed at any precision, and a distance from other floats is proved, not
measured. It costs some thousand times a float evaluation: meant for checking a few results of
at most 256 columns, as attention takes n^2 balls.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

import numpy as np
from flint import arb, arb_mat
from numpy.typing import NDArray

from promptlimits.base.bound import PRECISION_BITS
from promptlimits.base.errors import UserError
from promptlimits.base.exact import working_precision
from promptlimits.lipschitz.balls.rounding import exact_matrix, total, upper
from promptlimits.nets.paper.weights import HeadWeights, LayerWeights, TransformerWeights

Floats = NDArray[np.float64]
MOST_COLUMNS: Final = 256


def proved_distance(
    weights: TransformerWeights, columns: Floats, outputs: Floats, *, norm: str = "token"
) -> Fraction:
    """Upper limit on the distance of tau(columns) from given outputs, in its last columns."""
    if columns.shape[1] > MOST_COLUMNS:
        raise UserError(
            "the columns of prompt and input",
            f"be at most {MOST_COLUMNS} in ball arithmetic",
            got=columns.shape[1],
            remedy="give a shorter prompt",
        )
    with working_precision(PRECISION_BITS):
        result = _forward(weights, exact_matrix(columns), outputs.shape[1])
        first = result.ncols() - outputs.shape[1]
        apart = [
            [result[i, first + j] - arb(float(number)) for i, number in enumerate(column)]
            for j, column in enumerate(outputs.T)
        ]
        squares = [total(number**2 for number in column) for column in apart]
        if norm == "token":
            return max(upper(square.sqrt()) for square in squares)
        return upper(total(squares).sqrt())


def evaluation_size(weights: TransformerWeights, columns: int) -> int:
    """About how many numbers an evaluation handles: weights, tokens and attention weights."""
    heads = sum(len(layer.heads) for layer in weights.layers)
    numbers = sum(
        head.query.size + head.key.size + head.value.size + head.output.size
        for layer in weights.layers
        for head in layer.heads
    )
    numbers += sum(layer.w1.size + layer.w2.size for layer in weights.layers)
    return numbers + heads * columns * (columns + weights.dim)


def _forward(weights: TransformerWeights, columns: arb_mat, wanted: int) -> arb_mat:
    """The last `wanted` columns of the result, or more."""
    for place, layer in enumerate(weights.layers, 1):
        rows = wanted if place == len(weights.layers) else columns.ncols()
        asking = _last(columns, rows)
        attended = asking
        for head in layer.heads:
            attended = attended + _attention(head, asking, columns, weights.masked)
        columns = _mlp(layer, attended)
    return columns


def _last(columns: arb_mat, count: int) -> arb_mat:
    first = columns.ncols() - count
    rows = [[columns[i, first + j] for j in range(count)] for i in range(columns.nrows())]
    return arb_mat(rows)


def _attention(head: HeadWeights, asking: arb_mat, columns: arb_mat, masked: bool) -> arb_mat:
    """What the last columns, those that ask, receive from all columns."""
    queries, keys = exact_matrix(head.query) * asking, exact_matrix(head.key) * columns
    logits = queries.transpose() * keys
    count, rows = columns.ncols(), asking.ncols()
    shares = arb_mat(count, rows)
    for i in range(rows):
        seen = range(count - rows + i + 1) if masked else range(count)
        # Any shift gives the same shares; the midpoint's keeps the exponentials of order 1.
        shift = max((logits[i, j].mid() for j in seen), default=arb(0))
        powers = [(logits[i, j] - shift).exp() for j in seen]
        whole = sum(powers, arb(0))
        for j, power in zip(seen, powers, strict=True):
            shares[j, i] = power / whole
    return exact_matrix(head.output) * (exact_matrix(head.value) * columns * shares)


def _mlp(layer: LayerWeights, columns: arb_mat) -> arb_mat:
    result = columns + _spread(layer.b2, columns.ncols())
    if not layer.hidden:
        return result
    hidden = exact_matrix(layer.w1) * columns + _spread(layer.b1, columns.ncols())
    active = [
        [hidden[i, j].max(arb(0)) for j in range(hidden.ncols())] for i in range(hidden.nrows())
    ]
    return result + exact_matrix(layer.w2) * arb_mat(active)


def _spread(bias: Floats, count: int) -> arb_mat:
    return exact_matrix(np.repeat(bias[:, None], count, axis=1))
