"""A LoRA-like change of the MLP that memorises any n answers, after [@wang2023], Lemma 5.

**Statement.** Let f >= n hidden neurons and let the vectors z_1, .., z_n after attention (no
prompt) be distinct. A change of the MLP by (n + 1) d + 2 n numbers gives every answer exactly.

**Proof.** Take u with distinct u.z_i, sorted, thresholds th_1 < u.z_1 < th_2 < .. < u.z_n, and n
neurons S. With W_1 += c 1_S u^T (rank one but for the scales c_k) and b_1 -= c th, for c so
large that c (u.z - th) outweighs what the neuron had, neuron k is active on z_i exactly if
k <= i. The n x n matrix of activations is triangular with a positive diagonal, so n new columns
of W_2 solve for the answers. Numbers: d for u, n thresholds, n scales, n d in W_2. []

Such a change always exists; a prompt that does the same need not (`unmemorizable`).

**In floats.** Of several directions u the one is taken whose values u.z_i lie most evenly; the
triangular system is solved once and its error once more. The result is checked by running the
changed layer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from promptlimits.base.errors import UserError
from promptlimits.base.typing import JsonObject
from promptlimits.lab.one_layer.data_set import DataSet
from promptlimits.lab.one_layer.prompt_length_data import outputs_behind
from promptlimits.lab.one_layer.setting import Floats, SharedQuery, attend
from promptlimits.nets.paper.weights import LayerWeights, exact_array

_DIRECTIONS: Final = 200
_LEAST_GAP: Final = 1e-9
_OUTWEIGHS: Final = 16.0


@dataclass(frozen=True, kw_only=True, eq=False)
class LoraUpdate:
    """The trained numbers of the change, and what it does.

    Attributes:
        direction: u, (d,).
        thresholds: th, (n,).
        scales: c_k, (n,).
        columns: New columns of W_2 at the first n neurons, (d, n).
        layer: The layer with the change made.
        error: Largest Euclidean error of an answer, measured on the changed layer.
    """

    direction: Floats
    thresholds: Floats
    scales: Floats
    columns: Floats
    layer: LayerWeights
    error: float

    @property
    def numbers(self) -> int:
        """How many numbers were trained: (n + 1) d + 2 n."""
        parts = (self.direction, self.thresholds, self.scales, self.columns)
        return sum(part.size for part in parts)

    def to_json(self) -> JsonObject:
        """As plain JSON: enough to make the change again, and what was measured."""
        count = len(self.scales)
        return {
            "change": f"W_1[:{count}] += outer(scales, direction), b_1[:{count}] -= scales * "
            f"thresholds, W_2[:, :{count}] = columns",
            "direction": self.direction.tolist(),
            "thresholds": self.thresholds.tolist(),
            "scales": self.scales.tolist(),
            "columns": self.columns.tolist(),
            "numbers": self.numbers,
            "largest_error_measured": self.error,
        }


def lora_update(layer: LayerWeights, data: DataSet, generator: np.random.Generator) -> LoraUpdate:
    """Construct the change for given queries and answers."""
    count = len(data.queries)
    if layer.hidden < count:
        raise UserError(
            "the hidden neurons",
            f"be at least as many as the {count} pairs",
            got=layer.hidden,
            remedy="give fewer pairs or widen the MLP",
        )
    answers = exact_array("the answers", data.answers, (count, layer.dim))
    reached = np.stack([_after_attention(layer, query) for query in data.queries])
    direction, order = _direction(reached, generator)
    values = reached[order] @ direction
    gaps = np.diff(values, prepend=values[0] - np.diff(values).mean() if count > 1 else values - 1)
    thresholds = values - gaps / 2
    plain = reached[order] @ layer.w1[:count].T + layer.b1[:count]
    margin = np.abs(values[:, None] - thresholds)
    scales = _OUTWEIGHS * (np.abs(plain) / margin).max(axis=0) + 1 / gaps
    w1, b1 = layer.w1.copy(), layer.b1.copy()
    w1[:count] += np.outer(scales, direction)
    b1[:count] -= scales * thresholds
    w2 = layer.w2.copy()
    w2[:, :count] = 0.0
    wanted = answers[order] - reached[order] - layer.b2
    wanted = wanted - np.maximum(reached[order] @ w1.T + b1, 0.0) @ w2.T
    active = np.maximum(reached[order] @ w1[:count].T + b1[:count], 0.0)
    columns = np.linalg.solve(active, wanted)
    columns += np.linalg.solve(active, wanted - active @ columns)
    w2[:, :count] = columns.T
    changed = replace(layer, w1=w1, b1=b1, w2=w2)
    got = outputs_behind(changed, data.queries, np.zeros((layer.dim, 0)))
    return LoraUpdate(
        direction=direction,
        thresholds=thresholds,
        scales=scales,
        columns=w2[:, :count],
        layer=changed,
        error=float(np.linalg.norm(got - answers, axis=1).max()),
    )


def _after_attention(layer: LayerWeights, query: Floats) -> Floats:
    setting = SharedQuery(layer=layer, queries=(query,))
    return np.asarray(setting.token + attend(setting, np.zeros((layer.dim, 0)))[0])


def _direction(reached: Floats, generator: np.random.Generator) -> tuple[Floats, np.ndarray]:
    """A unit vector along which the points are as even as possible, and their order."""
    away = reached - reached.mean(axis=0)
    principal = np.linalg.svd(away)[2][: min(len(reached), reached.shape[1])]
    drawn = generator.standard_normal((_DIRECTIONS, reached.shape[1]))
    candidates = np.concatenate([principal, drawn @ principal.T @ principal])
    candidates = candidates / np.maximum(np.linalg.norm(candidates, axis=1), 1e-300)[:, None]
    best, widest = candidates[0], -1.0
    for each in candidates:
        values = np.sort(reached @ each)
        spread = max(float(values[-1] - values[0]), 1e-300)
        even = float(np.diff(values).min()) / spread if len(values) > 1 else 1.0
        if spread > _LEAST_GAP * (1 + np.abs(values).max()) and even > widest:
            best, widest = each, even
    if len(reached) > 1 and widest <= _LEAST_GAP:
        raise UserError(
            "the vectors after attention",
            "be distinct",
            got="two equal ones",
            remedy="no MLP answers them differently: change the queries",
        )
    return best, np.argsort(reached @ best)
