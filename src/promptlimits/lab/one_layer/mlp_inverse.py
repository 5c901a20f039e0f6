"""From answers back to what attention has to give: t_j with MLP(x_0 + t_j) = y_j.

For ||W_1|| ||W_2|| < 1 the MLP is one to one and onto, so t_j exists and is the only one. Else
there may be several or none; one that is found is used, and `unique` says that others may exist.
Newton's method on a piecewise linear map ends in finitely many steps or cycles; where it cycles,
and the MLP is a contraction beside its residual, the fixed point z = y - (MLP(z) - z) is iterated
as in [@behrmann2019].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from promptlimits.base.errors import UserError
from promptlimits.lab.one_layer.error_floor import contraction
from promptlimits.lab.one_layer.setting import Floats, feed_forward
from promptlimits.nets.paper.weights import LayerWeights, exact_array

CLOSE: Final = 1e-10
"""Relative error of an answer that counts as met."""

_NEWTON: Final = 60
_FIXED_POINT: Final = 20_000
_STARTS: Final = 40


@dataclass(frozen=True, kw_only=True, eq=False)
class Preimages:
    """Offsets before the MLP.

    Attributes:
        offsets: t_j as rows, (k, d).
        error: Largest |MLP(x_0 + t_j) - y_j|, measured.
        unique: Whether the MLP is proved one to one.
    """

    offsets: Floats
    error: float
    unique: bool


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # what is not finite is not kept
def preimages(layer: LayerWeights, token: Floats, answers: Floats) -> Preimages:
    """Find the offsets that answers stand for."""
    rows = exact_array("the answers", answers, (np.shape(answers)[0], layer.dim))
    onto = contraction(layer) > 0
    found = []
    for number, row in enumerate(rows):
        point = _preimage(layer, row, onto=onto)
        if point is None:
            raise UserError(
                f"answer {number}",
                "lie in the range of the layer's MLP",
                got="one for which no pre-image was found",
                remedy="take answers MLP(z), or an MLP with ||W_1|| ||W_2|| < 1, which is onto",
            )
        found.append(point)
    points = np.stack(found)
    errors = np.linalg.norm(feed_forward(layer, points) - rows, axis=1)
    return Preimages(offsets=points - token, error=float(errors.max()), unique=onto)


def _preimage(layer: LayerWeights, wanted: Floats, *, onto: bool) -> Floats | None:
    plain = wanted - layer.b2
    size = 1 + float(np.linalg.norm(wanted))
    generator = np.random.default_rng(0)  # the same search for the same answer
    for start in range(_STARTS):
        away = size * generator.standard_normal(layer.dim) if start else 0.0
        point = _newton(layer, wanted, plain + away)
        if float(np.linalg.norm(feed_forward(layer, point) - wanted)) <= CLOSE * size:
            return point
        if onto:
            break
    if onto:
        point = plain
        for _ in range(_FIXED_POINT):
            point = point + wanted - feed_forward(layer, point)
        if float(np.linalg.norm(feed_forward(layer, point) - wanted)) <= CLOSE * size:
            return point
    return None


def _newton(layer: LayerWeights, wanted: Floats, point: Floats) -> Floats:
    for _ in range(_NEWTON):
        active = (layer.w1 @ point + layer.b1) > 0
        slope = np.eye(layer.dim) + (layer.w2 * active) @ layer.w1
        rest = wanted - feed_forward(layer, point)
        step = np.linalg.lstsq(slope, rest, rcond=None)[0]
        if not np.isfinite(step).all() or np.linalg.norm(step) <= 1e-15 * np.linalg.norm(point):
            break
        point = point + step
    return np.asarray(point)
