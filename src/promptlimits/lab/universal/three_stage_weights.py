"""The three-stage network with softmax and ReLU, as weights of the papers' transformer.

A hard maximum becomes a softmax of logits at least 60 apart, an activation of three pieces one of
ReLUs with ramps: 2 heads of size 1 and at most 4 hidden neurons in every layer. One coordinate
more holds the constant 1, from which queries take their bias. float64 holds the ids of the grids
(d, m, 1/delta) = (1,1,2) and (1,1,3) only.

Ramps lie inside cells: entries of inputs are answered on [k delta, (k + 3/4) delta), so a quarter
of every side is left out. That is no matter of principle: the width is a parameter of the ReLUs.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

import numpy as np

from promptlimits.base.errors import UserError
from promptlimits.lab.universal.three_stage import Columns, ThreeStage, column_id
from promptlimits.nets.paper.weights import Array, HeadWeights, LayerWeights, TransformerWeights

_GAP: Final = 60
_LARGEST_ID: Final = 2**22
"""Ids beyond it would lose the third of a step in the logits of a softmax."""


def three_stage_weights(network: ThreeStage) -> tuple[TransformerWeights, Array]:
    """The network as standard layers."""
    sizes = network.sizes
    largest = max(number for number, _ in network.values)
    if largest > _LARGEST_ID:
        raise UserError(
            "dim, tokens and 1/delta",
            f"lead to ids of at most {_LARGEST_ID:,} in float64",
            got=f"ids up to {float(largest):.3g}",
            remedy="use the exact network",
        )
    positions = np.ones((sizes.dim + 1, sizes.length))
    positions[: sizes.dim] = np.arange(sizes.length)
    # Falling ids: a ReLU of a column with a smaller id is exactly 0, so nothing adds up.
    layers = (
        *(_quantiser(network, row, threshold) for row, threshold in network.thresholds),
        *(_shift(network, number) for number in network.sweep),
        _lift(network),
        *(_value(network, number) for number in range(len(network.values) - 1, -1, -1)),
    )
    return TransformerWeights(layers=layers, masked=False), positions


def as_tokens(columns: Columns) -> Array:
    """Columns as tokens of the network: the constant coordinate is added by the positions."""
    numbers = np.array([[float(entry) for entry in column] for column in columns])
    return np.concatenate([numbers.T, np.zeros((1, len(columns)))])


def _quantiser(network: ThreeStage, row: int, threshold: Fraction) -> LayerWeights:
    """-t on [0, 3 delta/4], back to 0 at delta, t the entry less the threshold."""
    delta = float(network.sizes.delta)
    w1 = np.zeros((3, network.sizes.dim + 1))
    w1[:, row] = 1
    w2 = np.zeros((network.sizes.dim + 1, 3))
    w2[row] = (-1, 4, -3)
    b1 = -float(threshold) - np.array([0, 0.75 * delta, delta])
    return _layer(network, (), w1, b1, w2)


def _shift(network: ThreeStage, number: Fraction) -> LayerWeights:
    """Columns with this id move by delta^-d (largest id - least id)."""
    half = network.sizes.delta / 2
    gain = float(network.sizes.steps**network.sizes.dim)
    heads = (_head(network, number - half, gain), _head(network, number + half, -gain))
    return _layer(network, heads, *_no_neurons(network))


def _lift(network: ThreeStage) -> LayerWeights:
    heads = (_head(network, Fraction(0), float(network.lift)), _silent(network))
    return _layer(network, heads, *_no_neurons(network))


def _value(network: ThreeStage, place: int) -> LayerWeights:
    """The column with this id goes to its target: a trapezoid of four ReLUs."""
    number, move = network.values[place]
    delta, width = float(network.sizes.delta), network.sizes.dim + 1
    w1 = np.zeros((4, width))
    w1[:, :-1] = _units(network)
    b1 = -float(number) + np.array([0.5, 0.25, -0.25, -0.5]) * delta
    w2 = np.zeros((width, 4))
    w2[:-1] = np.outer([float(by) for by in move], np.array([1, -1, -1, 1]) * 4 / delta)
    return _layer(network, (), w1, b1, w2)


def _head(network: ThreeStage, bias: Fraction, gain: float) -> HeadWeights:
    """Gain times the largest id along the first row, or the least one for ids below the bias."""
    units = np.append(_units(network), 0.0)[None]
    query = units.copy()
    query[0, -1] = -float(bias)
    output = np.zeros((units.shape[1], 1))
    output[0, 0] = gain
    scale = 2 * _GAP / float(network.sizes.delta) ** 2
    return HeadWeights(query=scale * query, key=units, value=units, output=output)


def _silent(network: ThreeStage) -> HeadWeights:
    nothing = np.zeros((1, network.sizes.dim + 1))
    return HeadWeights(query=nothing, key=nothing, value=nothing, output=nothing.T)


def _units(network: ThreeStage) -> Array:
    dim = network.sizes.dim
    basis = [tuple(Fraction(int(i == row)) for i in range(dim)) for row in range(dim)]
    return np.array([float(column_id(column, network.sizes.steps)) for column in basis])


def _no_neurons(network: ThreeStage) -> tuple[Array, Array, Array]:
    width = network.sizes.dim + 1
    return np.zeros((0, width)), np.zeros(0), np.zeros((width, 0))


def _layer(
    network: ThreeStage, heads: tuple[HeadWeights, ...], w1: Array, b1: Array, w2: Array
) -> LayerWeights:
    width = network.sizes.dim + 1
    return LayerWeights(heads=heads or (_silent(network),), w1=w1, b1=b1, w2=w2, b2=np.zeros(width))
