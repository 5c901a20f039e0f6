"""The least error found over all prompts of all lengths, with a prompt that shows it.

The minimum over v in [0, 1]^h is searched from many starts (`oracle_search`); the minimum over W
is exact. What is found is an upper limit on the infimum over statistics (A, Z). Whether a prompt
has those statistics is another matter, decided here and said in the result:

- where [V_g; c_1; ..; c_h] has rank rank(V_g) + h for every g, h tokens do (`realise`);
- for one head whose values determine its scores, entropy limits them (`oracle_length`);
- for several such heads Jensen's inequality does, log Z^i >= c_i.q_g for all pairs with
  V_g q_g = A^g, so the oracle is a lower limit that need not be reached; likewise behind a
  normalisation, whose tokens are bounded.

Optima at infinity: if v_i is 0 or 1, or W grows without limit where heads degenerate, no prompt
attains the infimum, and the best of a sequence of ever longer tokens is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from promptlimits._typing import JsonObject
from promptlimits.errors import RunFailed
from promptlimits.single_layer.oracle_certificate import (
    MOST_BOXES,
    MOST_SECONDS,
    TOLERANCE,
    Objective,
    OracleCertificate,
    certify_oracle,
)
from promptlimits.single_layer.oracle_problem import (
    Problem,
    local_model,
    oracle_problem,
    prompt_statistics,
)
from promptlimits.single_layer.oracle_search import Found, least_largest, least_sum
from promptlimits.single_layer.realise import rank_condition, realise
from promptlimits.single_layer.setting import Floats, SharedQuery, Statistics, attend

ATTAINED: Final = 1e-6
"""Relative agreement of a prompt's error with the value found, to call it attained."""

FACE: Final = 1e-9
"""v within this of 0 or 1 counts as 0 or 1."""

LARGE: Final = 1e5
"""Values A this much longer than targets and means count as infinite."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OracleValue:
    """The least error found over all statistics (A, Z), and what a prompt makes of it.

    Attributes:
        objective: "sum of squares", or "largest error" (not squared).
        found: The value: an upper limit on the infimum up to rounding, not proved least.
        errors: |u_j - x_0 - t_j| for each query, (k,).
        point: v, (h,).
        dual_scale: Roots of the weights with which `certify_oracle` is best asked, (k,).
        dual_value: The least weighted sum of squares found with them: what to aim at.
        statistics: (A, Z) of the prompt below, or of the optimum if there is no prompt and it
            is not at infinity; else None.
        prompt: Tokens (d, m_p) that attain or approach the value, or None.
        achieved: The objective evaluated on the prompt itself, or None.
        at_infinity: Whether v has an entry of 0 or 1, or A is unbounded.
        attained: Whether the prompt's own error agrees with the value to 1e-6.
        why: The reason, in words.
    """

    objective: Objective
    found: float
    errors: Floats
    point: Floats
    dual_scale: Floats
    dual_value: float
    statistics: Statistics | None
    prompt: Floats | None
    achieved: float | None
    at_infinity: bool
    attained: bool
    why: str

    def to_json(self) -> JsonObject:
        """As plain JSON."""
        return {
            "objective": self.objective,
            "found": self.found,
            "errors": self.errors.tolist(),
            "point": self.point.tolist(),
            "dual_scale": self.dual_scale.tolist(),
            "dual_value": self.dual_value,
            "statistics": None
            if self.statistics is None
            else {
                "mean": self.statistics.mean.tolist(),
                "log_weight": self.statistics.log_weight.tolist(),
            },
            "prompt": None if self.prompt is None else self.prompt.tolist(),
            "achieved": self.achieved,
            "at_infinity": self.at_infinity,
            "attained": self.attained,
            "why": self.why,
        }


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
        The value, and a prompt where one is known.

    Raises:
        UserError: The targets have another shape or are not finite.
    """
    problem = oracle_problem(setting, targets)
    if objective == "largest error":
        best, dual = least_largest(problem, generator)
    else:
        best = dual = least_sum(problem, generator)
    value = _measure(objective, best.squares)
    infinite = _at_infinity(problem, best)
    why = _obstacle(setting)
    wanted = None if infinite else prompt_statistics(problem, best.point, best.solution)
    prompt, achieved = None, None
    if why is None:
        prompt, achieved, wanted = _shown(setting, targets, problem, best, objective)
        attained = achieved is not None and achieved - value <= ATTAINED * value + 1e-12
        why = _reason(infinite, attained)
    else:
        attained = False
    errors = np.sqrt(best.squares)
    if prompt is not None and achieved is not None and achieved < value:
        value, errors = achieved, np.linalg.norm(attend(setting, prompt) - targets, axis=1)
    return OracleValue(
        objective=objective,
        found=value,
        errors=errors,
        point=best.point,
        dual_scale=dual.scale,
        dual_value=dual.value,
        statistics=wanted,
        prompt=prompt,
        achieved=achieved,
        at_infinity=infinite,
        attained=attained,
        why=why,
    )


def certify_value(
    setting: SharedQuery,
    targets: Floats,
    value: OracleValue,
    *,
    tolerance: float = TOLERANCE,
    most_boxes: int = MOST_BOXES,
    most_seconds: float = MOST_SECONDS,
) -> OracleCertificate:
    """Prove how far below a value found the error of any prompt can be.

    Args:
        setting: As given to `oracle_value`.
        targets: As given to `oracle_value`.
        value: Its result.
        tolerance: Relative gap to stop at.
        most_boxes: Stop after about as many boxes.
        most_seconds: Stop after about as long.

    Returns:
        The certificate; for the largest error on its square.

    Raises:
        RunFailed: The layer's numbers leave the range of doubles.
    """
    largest = value.objective == "largest error"
    return certify_oracle(
        setting,
        targets,
        found=value.found**2 if largest else value.found,
        objective=value.objective,
        scale=value.dual_scale,
        aim=value.dual_value / float((value.dual_scale**2).sum()) if largest else None,
        tolerance=tolerance,
        most_boxes=most_boxes,
        most_seconds=most_seconds,
    )


def _measure(objective: Objective, squares: Floats) -> float:
    return float(squares.sum() if objective == "sum of squares" else np.sqrt(squares.max()))


def _at_infinity(problem: Problem, found: Found) -> bool:
    on_face = ((found.point < FACE) | (found.point > 1 - FACE)).any()
    size = np.abs(problem.targets).max() + np.abs(problem.means).max()
    return bool(on_face or np.abs(found.solution).max(initial=0.0) > LARGE * size)


def _obstacle(setting: SharedQuery) -> str | None:
    """Why no prompt is constructed, or None if h tokens realise everything."""
    if setting.front is not None:
        return "normalised tokens are bounded: the value is a lower limit, perhaps not reached"
    if setting.rotary_base is not None:
        return "prompts under rotary positions are not constructed: the value is a lower limit"
    if rank_condition(setting):
        return None
    if len(setting.layer.heads) == 1:
        return (
            "the head's values determine its scores, and entropy limits (A, Z): the value is a "
            "lower limit; best_of_length has the least error of each length"
        )
    return (
        "values of some head determine scores: by Jensen's inequality not all (A, Z) are a "
        "prompt's, and the value is a lower limit, perhaps not reached"
    )


def _reason(infinite: bool, attained: bool) -> str:
    if infinite and attained:
        return "the optimum lies at infinity; this prompt comes within 1e-6 of it"
    if infinite:
        return "the optimum lies at infinity; this prompt is the closest of those tried"
    if attained:
        return "h tokens have the optimal statistics"
    return "h tokens have the optimal statistics, but doubles lose digits on the way"


def _shown(
    setting: SharedQuery, targets: Floats, problem: Problem, best: Found, objective: Objective
) -> tuple[Floats | None, float | None, Statistics | None]:
    """The best prompt among those for points pulled away from the cube's faces."""
    weighted = problem.weighted(best.scale)
    shown: tuple[Floats | None, float | None, Statistics | None] = (None, None, None)
    for exponent in (14, 12, 10, 9, 8, 7, 6, 5, 4, 3):
        inside = np.clip(best.point, 10.0**-exponent, 1 - 10.0**-exponent)
        model = local_model(weighted, inside[None])
        wanted = prompt_statistics(problem, inside, model.solution[0])
        try:
            prompt = realise(setting, wanted).prompt
        except (RunFailed, np.linalg.LinAlgError):
            continue
        errors = attend(setting, prompt) - targets
        achieved = _measure(objective, (errors**2).sum(axis=1))
        if np.isfinite(achieved) and (shown[1] is None or achieved < shown[1]):
            shown = prompt, achieved, wanted
    return shown
