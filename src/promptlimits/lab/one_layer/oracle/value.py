"""The least error found over all prompts of all lengths, with the prompt that has it.

The minimum over v in [0, 1]^h is searched from many starts (`search`); the minimum over W
is exact. Its value, the **relaxation**, estimates the infimum over statistics (A, Z), which need
not be those of a prompt:

- where [V_g; c_1; ..; c_h] has rank rank(V_g) + h for every g, h tokens have them (`realise`);
- for one head whose values determine its scores, entropy limits them (`length`);
- for several such heads Jensen's inequality does, log Z^i >= c_i.q_g for all pairs with
  V_g q_g = A^g; likewise tokens behind a normalisation are bounded.

So **found** is said only of an actual prompt's error, measured on the layer: of h tokens, of the
best prompts of several lengths for one head whose values determine its scores (for the largest
error under weights that Lawson's method shifts), of trained ones for several such heads, or of no
tokens at all, whichever is least. It can lie well above the relaxation where statistics are not
free.

Optima at infinity: if v_i is 0 or 1, or W grows without limit where heads degenerate, the search
ended on a face, and prompts may come close to its value without having it. v = 1 with W = 0 is
the empty prompt and no such case.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from promptlimits.base.errors import RunFailed
from promptlimits.base.typing import JsonObject
from promptlimits.lab.one_layer.data_set import fields_as_json
from promptlimits.lab.one_layer.oracle.certificate import (
    TOLERANCE,
    UNITS,
    Objective,
    OracleCertificate,
    certify_oracle,
)
from promptlimits.lab.one_layer.oracle.inputs import float_rank
from promptlimits.lab.one_layer.oracle.length import (
    best_of_length,
    bound_by_entropy,
    grid_points,
    score_covector,
)
from promptlimits.lab.one_layer.oracle.problem import (
    Problem,
    local_model,
    oracle_problem,
    prompt_statistics,
)
from promptlimits.lab.one_layer.oracle.search import Found, least_largest, least_sum
from promptlimits.lab.one_layer.oracle.work import PROMPTS, Budget, slab_cost, training_cost
from promptlimits.lab.one_layer.reachable import value_ranks
from promptlimits.lab.one_layer.realise import rank_condition, realise
from promptlimits.lab.one_layer.setting import (
    Floats,
    SharedQuery,
    Statistics,
    attend,
    value_maps,
)
from promptlimits.lab.one_layer.train import train_prompt

ATTAINED: Final = 1e-6
"""Relative agreement of a prompt's error with the relaxation, to call it attained."""

FACE: Final = 1e-9
"""v within this of 0 or 1 counts as 0 or 1."""

ROUNDING: Final = 1e-12
"""Share of the largest target below which errors are rounding."""

LOST: Final = (
    "doubles see a lower rank of some head's values than the exact one: digits are lost, and "
    "better prompts may have been missed"
)

LARGE: Final = 1e5
"""Values A this much longer than targets and means count as infinite."""

LENGTHS: Final = (1, 2, 4, 8, 16, 64)
"""Lengths of the prompts that one head is shown with."""

_ROUNDS: Final = 12
_STARTS: Final = 4
_STEPS: Final = 60
_MOST_ROWS: Final = 512
"""Training takes normal systems of k d rows: with more, nothing is trained."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OracleValue:
    """The least error found, of an actual prompt, beside the relaxation over statistics (A, Z).

    Attributes:
        objective: "sum of squares", or "largest error" (not squared): what `relaxation` and
            `found` are.
        relaxation: The least value found over all statistics: an estimate of an infimum that no
            prompt need reach.
        found: The objective evaluated on `prompt`.
        prompt: The best of the prompts tried, (d, m_p); m_p = 0 for the empty prompt.
        errors: |u_j - x_0 - t_j| for each query on that prompt, (k,).
        point: v of the relaxation, (h,).
        dual_scale: Roots of the weights with which `certify_oracle` is best asked, (k,).
        dual_value: The least weighted sum of squares found with them: what to aim at.
        statistics: (A, Z) of the relaxation's optimum; None if the search ended on a face.
        on_face: Whether that point has an entry of 0 or 1, or A is huge: numerically.
        attained: Whether `found` agrees with the relaxation to 1e-6, in digits that doubles
            hold. It says nothing of other optima: see `certify_value`.
        why: What the prompt is, and what keeps it from the relaxation, in words.
    """

    objective: Objective
    relaxation: float
    found: float
    prompt: Floats
    errors: Floats
    point: Floats
    dual_scale: Floats
    dual_value: float
    statistics: Statistics | None
    on_face: bool
    attained: bool
    why: str

    def to_json(self) -> JsonObject:
        """As plain JSON."""
        more: JsonObject = {
            "unit": UNITS[self.objective],
            "prompt_tokens": self.prompt.shape[1],
        }
        return fields_as_json(self) | more


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shown:
    """A prompt that was tried."""

    prompt: Floats
    value: float
    errors: Floats
    inside: bool = False


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # what is not finite is not kept
def oracle_value(
    setting: SharedQuery,
    targets: Floats,
    *,
    objective: Objective = "sum of squares",
    generator: np.random.Generator,
) -> OracleValue:
    """Search the least error over all prompts of all lengths.

    Args:
        setting: The layer and its queries.
        targets: Wanted outputs of attention before the MLP and without x_0, (k, d).
        objective: The sum of squared errors, or the largest error of a query.
        generator: Source of starting points.

    Returns:
        The relaxation, and the best prompt met.

    Raises:
        UserError: The targets have another shape, or numbers are unusable.
        RunFailed: Numbers leave the range of doubles.
    """
    problem = oracle_problem(setting, targets)
    if objective == "largest error":
        best, dual = least_largest(problem, generator)
    else:
        best = dual = least_sum(problem, generator)
    empty = _measured(setting, targets, np.zeros((setting.layer.dim, 0)), objective)
    relaxation = min(_measure(objective, best.squares), empty.value)
    if objective == "sum of squares" and bound_by_entropy(setting):
        relaxation = min(best_of_length(setting, targets).found, empty.value)
    if not np.isfinite(relaxation):
        raise RunFailed(
            "the search ended at numbers beyond doubles", remedy="scale weights or tokens down"
        )
    size = float(np.abs(targets).max(initial=0.0))
    slack = ATTAINED * relaxation + ROUNDING * size ** (1 if objective == "largest error" else 2)
    obstacle = _obstacle(setting)
    tried = [empty]
    if empty.value > relaxation + slack:
        if obstacle is None:
            tried += _realised(setting, targets, problem, best, objective)
        elif setting.front is None and setting.rotary_base is None:
            prompts = _prompts_of_bound_heads(
                setting, targets, generator, largest=objective == "largest error"
            )
            tried += [_measured(setting, targets, prompt, objective) for prompt in prompts]
    shown = _chosen(tried, relaxation)
    inside = shown.inside and shown.value <= relaxation + slack
    on_face = shown is not empty and not inside and _on_face(problem, best)
    relaxation = min(relaxation, shown.value)
    lost = obstacle is None and _lost_digits(setting)
    attained = shown.value <= relaxation + slack and not lost
    return OracleValue(
        objective=objective,
        relaxation=relaxation,
        found=shown.value,
        prompt=shown.prompt,
        errors=shown.errors,
        point=best.point,
        dual_scale=dual.scale,
        dual_value=dual.value,
        statistics=None
        if _on_face(problem, best)
        else prompt_statistics(problem, best.point, best.solution),
        on_face=on_face,
        attained=attained,
        why=LOST if lost else _reason(shown, obstacle, on_face=on_face, attained=attained),
    )


def certify_value(
    setting: SharedQuery,
    targets: Floats,
    value: OracleValue,
    *,
    tolerance: float = TOLERANCE,
    most_boxes: int | None = None,
) -> OracleCertificate:
    """Prove how far below a value found the error of any prompt can be.

    Args:
        setting: As given to `oracle_value`.
        targets: As given to `oracle_value`.
        value: Its result; the gap is that to `found`, a prompt's error.
        tolerance: Relative gap to stop at.
        most_boxes: Stop after about as many boxes; None for what takes some seconds.

    Returns:
        The certificate, in the unit of the value.

    Raises:
        RunFailed: The layer's numbers leave the range of doubles.
    """
    largest = value.objective == "largest error"
    total = float((value.dual_scale**2).sum())
    aim = value.dual_value / total if largest else value.relaxation
    if bound_by_entropy(setting):
        # All statistics is then too low an aim: entropy raises the limit.
        aim = best_of_length(setting, targets, scale=value.dual_scale).found
        aim = aim / total if largest else aim
    return certify_oracle(
        setting,
        targets,
        found=value.found,
        objective=value.objective,
        scale=value.dual_scale,
        aim_squares=aim,
        tolerance=tolerance,
        most_boxes=most_boxes,
    )


def _measure(objective: Objective, squares: Floats) -> float:
    return float(squares.sum() if objective == "sum of squares" else np.sqrt(squares.max()))


def _measured(
    setting: SharedQuery,
    targets: Floats,
    prompt: Floats,
    objective: Objective,
    *,
    inside: bool = False,
) -> _Shown:
    with np.errstate(over="ignore", invalid="ignore"):
        squares = ((attend(setting, prompt) - targets) ** 2).sum(axis=1)
    value = _measure(objective, squares)
    return _Shown(
        prompt=prompt,
        value=value if np.isfinite(value) else np.inf,
        errors=np.sqrt(squares),
        inside=inside,
    )


def _chosen(tried: list[_Shown], relaxation: float) -> _Shown:
    """The least error; among errors that agree to 1e-12, the first, as it is least extreme."""
    least = min(one.value for one in tried)
    return next(one for one in tried if one.value <= least + 1e-12 * relaxation)


def _on_face(problem: Problem, found: Found) -> bool:
    point, solution = found.point, np.abs(found.solution)
    size = np.abs(problem.targets).max() + np.abs(problem.means).max()
    silent = np.array(
        [
            solution[problem.blocks == i].max(initial=0.0) <= FACE * size
            for i in range(problem.heads)
        ]
    )
    faces = (point < FACE) | ((point > 1 - FACE) & ~silent)
    return bool(faces.any() or solution.max(initial=0.0) > LARGE * size)


def _obstacle(setting: SharedQuery) -> str | None:
    """Why statistics are not free, or None if h tokens realise them all."""
    if setting.front is not None:
        return "normalised tokens are bounded, and no prompt is constructed"
    if setting.rotary_base is not None:
        return "prompts under rotary positions are not constructed"
    if rank_condition(setting):
        return None
    if len(setting.layer.heads) == 1:
        return (
            "the head's values and scores depend on each other, and entropy limits (A, Z): the "
            "relaxation is perhaps no prompt's"
        )
    return (
        "values of some head determine scores: by Jensen's inequality not all (A, Z) are a "
        "prompt's, the relaxation perhaps none's"
    )


def _lost_digits(setting: SharedQuery) -> bool:
    """Whether doubles see a lower rank of some V than the exact one."""
    ranks = value_ranks(setting.layer)
    return any(
        float_rank(value) < rank
        for value, rank in zip(value_maps(setting.layer), ranks, strict=True)
    )


def _reason(shown: _Shown, obstacle: str | None, *, on_face: bool, attained: bool) -> str:
    if shown.prompt.shape[1] == 0 and attained:
        return "no tokens at all do as well as the best statistics found"
    if obstacle is not None:
        return obstacle
    if on_face:
        close = "comes within 1e-6 of it" if attained else "is the closest of those tried"
        return f"the search ended on a face (numerically); this prompt {close}"
    if attained:
        return "h tokens have the best statistics found"
    return "h tokens have the best statistics found, but doubles lose digits on the way"


def _realised(
    setting: SharedQuery, targets: Floats, problem: Problem, best: Found, objective: Objective
) -> list[_Shown]:
    """Prompts of h tokens for points pulled away from the cube's faces, by less and less."""
    weighted = problem.weighted(best.scale)
    shown = []
    for exponent in (1, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14):
        inside = np.clip(best.point, 10.0**-exponent, 1 - 10.0**-exponent)
        model = local_model(weighted, inside[None])
        wanted = prompt_statistics(problem, inside, model.solution[0])
        try:
            prompt = realise(setting, wanted).prompt
        except RunFailed:
            continue
        shown.append(_measured(setting, targets, prompt, objective, inside=exponent == 1))
    return shown


def _prompts_of_bound_heads(
    setting: SharedQuery, targets: Floats, generator: np.random.Generator, *, largest: bool
) -> Iterator[Floats]:
    """Prompts of a layer whose values determine scores, best effort within a budget of work."""
    eta = score_covector(setting) if len(setting.layer.heads) == 1 else None
    if eta is not None and eta.any():
        yield from _of_one_head(setting, targets, largest=largest)
    else:
        yield from _trained(setting, targets, generator)


def _of_one_head(setting: SharedQuery, targets: Floats, *, largest: bool) -> Iterator[Floats]:
    for tokens in LENGTHS:
        best = best_of_length(setting, targets, tokens=tokens)
        if best.prompt is not None:
            yield best.prompt
    if largest:
        yield from _levelled(setting, targets, LENGTHS[-1])


def _levelled(setting: SharedQuery, targets: Floats, tokens: int) -> Iterator[Floats]:
    """Prompts of weighted sums of squares, each weight growing with its error."""
    weights = np.full(setting.count, 1 / setting.count)
    affordable = int(PROMPTS / slab_cost(grid_points(targets), targets.size)) - len(LENGTHS)
    for _ in range(min(max(affordable, 1), _ROUNDS)):
        best = best_of_length(setting, targets, tokens=tokens, scale=np.sqrt(weights))
        if best.prompt is None:
            return
        yield best.prompt
        grown = weights * np.linalg.norm(attend(setting, best.prompt) - targets, axis=1)
        if not grown.sum() > 0:
            return
        weights = np.maximum(grown / grown.sum(), 1e-12)


def _trained(
    setting: SharedQuery, targets: Floats, generator: np.random.Generator
) -> Iterator[Floats]:
    if targets.size > _MOST_ROWS:
        return
    heads = len(setting.layer.heads)
    budget, cost = Budget(PROMPTS), training_cost(targets.size, heads, _STEPS)
    for _ in range(_STARTS):
        for tokens in (heads, 2 * heads, 4 * heads):
            if not budget.take(cost):
                return
            yield train_prompt(setting, targets, tokens, generator, starts=1, steps=_STEPS).prompt
