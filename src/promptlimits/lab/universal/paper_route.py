"""The three-stage network of `three_stage` for a map in its own units, and as standard layers.

**Statement.** Let f map [0,1]^(d x m) into itself, L-Lipschitz in the largest entry, and let the
prompt hold f at the middles of the cells, rounded down to the grid of 1/delta = N steps (1 to
1 - delta). The network is then within L delta/2 + delta of f wherever no entry is 1, a set whose
complement has measure 0. *Proof.* An input has the columns of its cell after the quantiser, so it
gets the cell's entry of the table, exactly. The middle is at most delta/2 away in each number,
and rounding down moves a value of [0,1] by at most delta. []

**Standard layers.** A hard maximum becomes a softmax of logits at least 60 apart, an activation of
three pieces one of ReLUs with ramps: 2 heads of size 1 and at most 4 hidden neurons in every
layer. One coordinate more holds the constant 1, from which queries take their bias. float64 holds
the ids of the grids (d, m, 1/delta) = (1,1,2) and (1,1,3) only. Ramps lie inside cells: entries of
inputs are answered on [k delta, (k + 3/4) delta), so a quarter of every side is left out. That is
no matter of principle: the width is a parameter of the ReLUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from typing import Final

import numpy as np

from promptlimits.base.errors import UserError
from promptlimits.base.files import JsonObject
from promptlimits.lab.universal.three_stage import (
    Columns,
    StageSizes,
    ThreeStage,
    build,
    column_id,
    on_grid,
)
from promptlimits.lab.universal.universal import RealMap
from promptlimits.lipschitz.balls.matrix import float_up
from promptlimits.nets.paper.weights import (
    Array,
    HeadWeights,
    LayerWeights,
    TransformerWeights,
    partial_layer,
    silent_head,
)

_GAP: Final = 60
_GRIDS: Final = (2, 3, 4)
"""Steps of the grids that a command can run; with 5 of them the value map has 93,750 layers."""
_LARGEST_ID: Final = 2**22
"""Ids beyond it would lose the third of a step in the logits of a softmax."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StagedPrompt:
    """A map of one number answered by the three-stage network."""

    real_map: RealMap  # the map, with d = m = 1
    network: ThreeStage  # the network of its grid; it knows nothing of the map
    prompt: Columns  # the prompt of the map
    sup_error: Fraction  # proved limit on the error off a set of measure 0, in the map's own units

    def answers(self, unit: Sequence[Fraction]) -> Array:
        """What the network says at points of [0, 1), in the map's own units; it runs exactly."""
        found = [self.network(self.prompt, ((x,),))[0][0] for x in unit]
        return self._own(np.array([float(value) for value in found]))

    def to_json(self) -> JsonObject:
        """What is proved and what is found, as plain JSON."""
        sizes, real_map = self.network.sizes, self.real_map
        points = probes(sizes)
        errors = np.abs(self.answers(points) - self._wanted(points))
        worst = int(errors.argmax())
        low, base = float(real_map.low), float(real_map.base)
        return {
            "function": real_map.name,
            "route": "paper",
            "bound": float_up(self.sup_error),
            "measured_sup_error": float(errors[worst]),
            "measured_at": [float(real_map.inputs(np.array(float(points[worst]))))],
            "measured_points": len(points),
            "exceptional_measure": 0.0,
            "lipschitz": float(real_map.lipschitz),
            "domain": [low, low + float(real_map.side)],
            "values": [base, base + float(real_map.height)],
            "prompt_tokens": sizes.prompt_tokens,
            "prompt_numbers": sizes.prompt_tokens,
            "cells_per_side": sizes.steps,
            "layers": sizes.quantiser_layers + sizes.attention_layers + sizes.value_layers,
            "quantiser_layers": sizes.quantiser_layers,
            "layers_with_attention": sizes.attention_layers,
            "value_layers": sizes.value_layers,
            "standard_layers": self._as_standard_layers() if holds_ids(self.network) else None,
        }

    def _as_standard_layers(self) -> JsonObject:
        """The same network with softmax and ReLU in float64, and its error off its ramps."""
        import torch

        from promptlimits.nets.paper.transformer import from_weights

        weights, positions = three_stage_weights(self.network)
        model = replace(from_weights(weights), positions=torch.tensor(positions))
        steps = self.network.sizes.steps
        points = [x for x in probes(self.network.sizes) if x * steps % 1 < Fraction(3, 4)]
        queries = np.stack([as_tokens(((x,),)) for x in points])
        found = model.with_prompt(torch.tensor(as_tokens(self.prompt)), torch.tensor(queries))
        errors = np.abs(self._own(found[:, 0, 0].numpy()) - self._wanted(points))
        return {
            "width": weights.dim,
            "most_heads": max(len(layer.heads) for layer in weights.layers),
            "weights": sum(array.size for _, array in weights.arrays()),
            "weights_sha256": weights.sha256(),
            "exceptional_measure": 0.25,
            "measured_sup_error": float(errors.max()),
            "measured_points": len(points),
        }

    def _own(self, unit_values: Array) -> Array:
        scaled: Array = float(self.real_map.base) + float(self.real_map.height) * unit_values
        return scaled

    def _wanted(self, unit: Sequence[Fraction]) -> Array:
        inputs = self.real_map.inputs(np.array([float(x) for x in unit]).reshape(-1, 1, 1))
        return np.asarray(self.real_map.function(inputs), dtype=np.float64).ravel()


def staged_prompt(real_map: RealMap, eps: Fraction | None = None) -> StagedPrompt:
    """The network and the prompt on the least grid that is proved to meet eps, or the finest."""
    grids = [StageSizes(dim=1, tokens=1, steps=steps) for steps in _GRIDS]
    meeting = [sizes for sizes in grids if eps is None or _sup_error(real_map, sizes) <= eps]
    if not meeting:
        finest = grids[-1]
        further = replace(finest, steps=finest.steps + 1)
        proved = ceil(_sup_error(real_map, finest) * 10**6) / 10**6
        raise UserError(
            "eps",
            f"be at least {proved} on the paper's route",
            got=f"{float(eps or 0):.6g}; a grid of {further.steps} steps takes "
            f"{further.value_layers:,} layers",
            remedy="raise eps, or leave the route out: the value table is finer",
        )
    sizes = meeting[-1] if eps is None else meeting[0]
    network = build(sizes)

    def at_middle(columns: Columns) -> Columns:
        middle = np.array(float(columns[0][0] + sizes.delta / 2)).reshape(1, 1, 1)
        return ((Fraction(float(real_map.unit_values(middle)[0, 0, 0])),),)

    return StagedPrompt(
        real_map=real_map,
        network=network,
        prompt=network.prompt(on_grid(at_middle, sizes)),
        sup_error=_sup_error(real_map, sizes),
    )


def probes(sizes: StageSizes) -> list[Fraction]:
    """Points of [0, 1): evenly spread ones, and both ends of every cell."""
    ends = [k * sizes.delta - Fraction(1, 2**40) for k in range(1, sizes.steps + 1)]
    return [Fraction(k, 20 * sizes.steps) for k in range(20 * sizes.steps)] + ends


def _sup_error(real_map: RealMap, sizes: StageSizes) -> Fraction:
    """The statement's limit in the map's own units, with what float64 rounds on the way."""
    slope = Fraction(real_map.lipschitz) * Fraction(real_map.side)
    return sizes.delta * (slope / 2 + Fraction(real_map.height)) + real_map.rounding()


def holds_ids(network: ThreeStage) -> bool:
    """Whether float64 tells the ids apart."""
    return max(number for number, _ in network.values) <= _LARGEST_ID


def three_stage_weights(network: ThreeStage) -> tuple[TransformerWeights, Array]:
    """The network as standard layers."""
    sizes = network.sizes
    if not holds_ids(network):
        largest = max(number for number, _ in network.values)
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
    return partial_layer(network.sizes.dim + 1, w1=w1, b1=b1, w2=w2)


def _shift(network: ThreeStage, number: Fraction) -> LayerWeights:
    """Columns with this id move by delta^-d (largest id - least id)."""
    half = network.sizes.delta / 2
    gain = float(network.sizes.steps**network.sizes.dim)
    low, high = _head(network, number - half, gain), _head(network, number + half, -gain)
    return partial_layer(network.sizes.dim + 1, low, high)


def _lift(network: ThreeStage) -> LayerWeights:
    width = network.sizes.dim + 1
    head = _head(network, Fraction(0), float(network.lift))
    return partial_layer(width, head, silent_head(width))


def _value(network: ThreeStage, place: int) -> LayerWeights:
    """The column with this id goes to its target: a trapezoid of four ReLUs."""
    number, move = network.values[place]
    delta, width = float(network.sizes.delta), network.sizes.dim + 1
    w1 = np.zeros((4, width))
    w1[:, :-1] = _units(network)
    b1 = -float(number) + np.array([0.5, 0.25, -0.25, -0.5]) * delta
    w2 = np.zeros((width, 4))
    w2[:-1] = np.outer([float(by) for by in move], np.array([1, -1, -1, 1]) * 4 / delta)
    return partial_layer(network.sizes.dim + 1, w1=w1, b1=b1, w2=w2)


def _head(network: ThreeStage, bias: Fraction, gain: float) -> HeadWeights:
    """Gain times the largest id along the first row, or the least one for ids below the bias."""
    units = np.append(_units(network), 0.0)[None]
    query = units.copy()
    query[0, -1] = -float(bias)
    output = np.zeros((units.shape[1], 1))
    output[0, 0] = gain
    scale = 2 * _GAP / float(network.sizes.delta) ** 2
    return HeadWeights(query=scale * query, key=units, value=units, output=output)


def _units(network: ThreeStage) -> Array:
    dim = network.sizes.dim
    basis = [tuple(Fraction(int(i == row)) for i in range(dim)) for row in range(dim)]
    return np.array([float(column_id(column, network.sizes.steps)) for column in basis])
