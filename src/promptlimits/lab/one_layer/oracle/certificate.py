"""Proof that no prompt of any length does better: lower limits on the oracle's value.

**Statement.** For a layer, queries with a shared last token, targets t_j for u_j - x_0 and
weights w_j, every prompt of every length has sum_j w_j |u_j - x_0 - t_j|^2 >= the limit L given.
With weights of sum 1, max_j |u_j - x_0 - t_j| >= sqrt(L), rounded down. A limit and the value found
that stands beside it are in the unit of their objective: squares for the sum of squares, not for
the largest error.

**Assumptions.** None on the layer: the limit is on all (A, Z) with A^i in range(V_i) and Z^i > 0,
of which the statistics of prompts are some (all, where `realise.rank_condition` holds). For
several heads the proof rests on IEEE 754 doubles (`balls.entries`), for one head on arb alone.

**How.** Branch and bound over v in [0, 1]^h, with limits of second order (`boxes`), or
power series in arb for one head (`one_head`).

**Tightness.** The gap to a value found is part of the result. For weights chosen against the
largest error a gap may remain at any cost, since the problem is not convex in v.

**Cost.** One head: some milliseconds. Two and three heads whose ranges are independent:
10 to 10^3 boxes, well below a second; the number grows where ranges nearly meet. A proof ends at a
number of boxes, by default what takes some seconds (`problem`), and hangs on no clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, TypeAlias

import numpy as np

from promptlimits.base.errors import UserError, require_positive, require_positive_int
from promptlimits.base.files import JsonObject
from promptlimits.lab.one_layer.data_set import fields_as_json
from promptlimits.lab.one_layer.oracle.boxes import box_limits
from promptlimits.lab.one_layer.oracle.inputs import distance_from_ranges, exact_inputs, merged
from promptlimits.lab.one_layer.oracle.length import slab_of
from promptlimits.lab.one_layer.oracle.one_head import one_head_limit
from promptlimits.lab.one_layer.oracle.parts import Part, split
from promptlimits.lab.one_layer.oracle.problem import (
    boxes_of_balls,
    boxes_of_series,
    oracle_problem,
)
from promptlimits.lab.one_layer.setting import Floats, SharedQuery
from promptlimits.nets.paper.weights import exact_array

Objective: TypeAlias = Literal["sum of squares", "largest error"]

TOLERANCE: Final = 1e-6
_BATCH: Final = 256
_BATCH_NUMBERS: Final = 2**22
"""Boxes of large problems are taken so few at a time that their arrays stay about as small."""

UNITS: Final[dict[Objective, str]] = {"sum of squares": "squared error", "largest error": "error"}
"""What values of each objective are."""

_LARGEST_WEIGHTED: Final = 1e140
_NEGLIGIBLE: Final = 1e-24
"""Limits this far below the sum of squared targets are not sought."""

_ROOT_BITS: Final = 160
"""Bits of a root that is rounded down."""

_LEAST_SIDE: Final = 2.0**-44
"""Sides are halved down to this, so that ends and centres of boxes stay exact doubles."""


@dataclass(frozen=True, kw_only=True)
class OracleCertificate:
    """A proved lower limit on what any prompt of any length leaves as error.

    Attributes:
        objective: "sum of squares", or "largest error" (not squared): what `lower` and `found` are.
        lower: The limit, exact, in the unit of the objective.
        weights: The exact w_j it is proved with, not normalised.
        found: The value found that branching aimed at, in the same unit: an upper limit up to
            rounding.
        gap: (found - lower) / found; 0 if both are 0.
        optimal_within: The tolerance asked for if the gap is no larger, else None.
        boxes: How many boxes were bounded.
        arithmetic: "arb" or "doubles with accounted rounding".
    """

    objective: Objective
    lower: Fraction
    weights: tuple[Fraction, ...]
    found: float
    gap: float
    optimal_within: float | None
    boxes: int
    arithmetic: str

    def to_json(self) -> JsonObject:
        """As plain JSON; the limit is exact as text."""
        return fields_as_json(self) | {"unit": UNITS[self.objective]}


def _root_below(square: Fraction) -> Fraction:
    """At or below the root of a number, by a part in 2^150 at most."""
    if square <= 0:
        return Fraction(0)
    size = (square.numerator.bit_length() - square.denominator.bit_length()) // 2
    shift = _ROOT_BITS - size
    grown = square * 4**shift if shift >= 0 else square / 4**-shift
    return Fraction(math.isqrt(math.floor(grown))) / Fraction(2) ** shift


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # what is not finite is not kept
def certify_oracle(
    setting: SharedQuery,
    targets: Floats,
    *,
    found: float,
    objective: Objective = "sum of squares",
    scale: Floats | None = None,
    aim_squares: float | None = None,
    tolerance: float = TOLERANCE,
    most_boxes: int | None = None,
    tokens: int | None = None,
) -> OracleCertificate:
    """Prove a lower limit on the error of every prompt of every length, or of one length.

    For one head with an exactly invertible V the limit uses what entropy forbids
    (`length`); otherwise it is that over all statistics (A, Z).
    """
    roots = _roots(setting, scale)
    require_positive("tolerance", tolerance)
    if most_boxes is not None:
        require_positive_int("most_boxes", most_boxes)
    largest = objective == "largest error"
    weights = tuple(Fraction(float(c)) ** 2 for c in roots)
    total = sum(weights, Fraction(0)) if largest else Fraction(1)
    oracle_problem(setting, targets)  # refuses what doubles cannot hold
    _require_weighted(roots, targets)
    inputs = exact_inputs(setting, targets)
    square = found * found if largest else found
    goal = max(square if aim_squares is None else min(aim_squares, square), 0.0) * float(total)
    few, joined, constant = merged(setting, inputs, roots)
    size = float((roots[:, None] ** 2 * np.asarray(targets) ** 2).sum())
    # Errors whose squares are below rounding are as good as 0: proving more would never end.
    aim_at = goal * (1 - tolerance) - float(constant) - _NEGLIGIBLE * size
    if len(inputs.bases) == 1:
        if tokens is not None:
            require_positive_int("the number of prompt tokens", tokens)
        slab = slab_of(setting, few, tokens)
        most = most_boxes or boxes_of_series(len(joined))
        lower, boxes = one_head_limit(few, joined, aim=aim_at, most_boxes=most, slab=slab)
    elif len(joined) == 1:
        lower, boxes = Fraction(joined[0]) ** 2 * distance_from_ranges(setting.layer, few), 1
    else:
        parts = split(few, joined)
        most = most_boxes or boxes_of_balls([part.near for part in parts])
        lower, boxes = _branch(parts, aim_at, most)
    lower = (lower + constant) / total
    lower = _root_below(lower) if largest else lower
    gap = (found - float(lower)) / found if found > 0 else 0.0
    return OracleCertificate(
        objective=objective,
        lower=lower,
        weights=weights,
        found=found,
        gap=gap,
        optimal_within=tolerance if gap <= tolerance else None,
        boxes=boxes,
        arithmetic="arb" if len(inputs.bases) == 1 else "doubles with accounted rounding",
    )


def _roots(setting: SharedQuery, scale: Floats | None) -> Floats:
    if scale is None:
        return np.ones(setting.count)
    roots = exact_array("the weights", scale, (setting.count,))
    if not (roots > 0).all():
        raise UserError("the weights", "be above 0", got=roots.min(), remedy="drop that query")
    if not ((roots > 1e-100) & (roots < 1e100)).all():
        raise UserError(
            "the weights", "be from 1e-100 to 1e100", got=f"{roots.max():.3g}", remedy="scale them"
        )
    return np.array(roots)


def _require_weighted(roots: Floats, targets: Floats) -> None:
    """Refuse weighted targets whose squares leave the range of doubles."""
    size = float((roots * np.abs(np.asarray(targets)).max(axis=1)).max())
    if size > _LARGEST_WEIGHTED:
        raise UserError(
            "targets times roots of their weights",
            f"be at most {_LARGEST_WEIGHTED:g} in size",
            got=f"{size:.3g}",
            remedy="scale the weights down",
        )


def _branch(parts: list[Part], aim: float, most_boxes: int) -> tuple[Fraction, int]:
    """Halve the boxes with the least limits until all reach the aim."""
    if not parts:
        return Fraction(0), 0
    heads, batch = parts[0].near.heads, _batch(parts)
    low, high = np.zeros((1, heads)), np.ones((1, heads))
    limit, bend = box_limits(parts, low, high)
    least, seen = math.inf, 1
    while len(limit):
        reached = (limit >= aim) | ((high - low).max(axis=1) <= _LEAST_SIDE)
        least = min(least, limit[reached].min(initial=math.inf))
        low, high, limit, bend = (x[~reached] for x in (low, high, limit, bend))
        if not len(limit) or seen >= most_boxes:
            break
        order = np.argsort(limit)
        chosen, kept = order[:batch], order[batch:]
        below, above = _halved(low[chosen], high[chosen], bend[chosen])
        fresh, turns = box_limits(parts, below, above)
        # A half is no worse than the whole.
        fresh = np.maximum(fresh, np.tile(limit[chosen], 2))
        seen += len(fresh)
        low, high = np.concatenate([low[kept], below]), np.concatenate([high[kept], above])
        limit, bend = np.concatenate([limit[kept], fresh]), np.concatenate([bend[kept], turns])
    return max(Fraction(float(min(least, limit.min(initial=math.inf)))), Fraction(0)), seen


def _batch(parts: list[Part]) -> int:
    """How many boxes to halve at once."""
    numbers = max(
        part.excess.shape[0] * part.near.heads**2 * part.targets.shape[1]
        + len(part.near.blocks) ** 2
        for part in parts
    )
    return int(min(max(_BATCH_NUMBERS // numbers, 1), _BATCH))


def _halved(low: Floats, high: Floats, bend: Floats) -> tuple[Floats, Floats]:
    """Both halves of each box along the side that bends f most."""
    score = np.where(high - low > _LEAST_SIDE, bend, -1.0)
    rows, sides = np.arange(len(low)), np.argmax(score, axis=1)
    middle = (low[rows, sides] + high[rows, sides]) / 2
    upper_low, lower_high = low.copy(), high.copy()
    upper_low[rows, sides], lower_high[rows, sides] = middle, middle
    return np.concatenate([low, upper_low]), np.concatenate([lower_high, high])
