"""Prompts found by training: Levenberg-Marquardt on the squared errors before the MLP.

What is found is an error that some prompt attains, evaluated on the prompt itself; it proves
nothing about other prompts. The derivative is the closed form of `reachable.jacobian`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from promptlimits.base.checks import require_positive_int
from promptlimits.lab.one_layer.reachable import jacobian
from promptlimits.lab.one_layer.setting import Floats, SharedQuery, attend
from promptlimits.nets.paper.weights import exact_array

_FIRST_DAMPING: Final = 1e-2
_MOST_DAMPING: Final = 1e12
_GAIN: Final = 1e-12
"""An accepted step of less than this share of the objective counts as standing still."""

_PATIENCE: Final = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedPrompt:
    """The best prompt of several starts.

    Attributes:
        prompt: (d, m_p).
        squares: sum_j e_j^2 on it, e_j = |u_j - x_0 - t_j|.
        largest: max_j e_j on it.
    """

    prompt: Floats
    squares: float
    largest: float


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # what is not finite is not kept
def train_prompt(
    setting: SharedQuery,
    targets: Floats,
    prompt_tokens: int,
    generator: np.random.Generator,
    *,
    starts: int = 8,
    steps: int = 200,
) -> TrainedPrompt:
    """Train prompts of one length from several starts and keep the best."""
    require_positive_int("prompt_tokens", prompt_tokens)
    require_positive_int("starts", starts)
    wanted = exact_array("the target offsets", targets, (setting.count, setting.layer.dim))
    best = None
    for _ in range(starts):
        size = 10.0 ** generator.uniform(-1, 1)
        start = size * generator.standard_normal((setting.layer.dim, prompt_tokens))
        prompt = _descend(setting, wanted, start, steps)
        rows = ((attend(setting, prompt) - wanted) ** 2).sum(axis=1)
        if best is None or rows.sum() < best.squares:
            best = TrainedPrompt(
                prompt=prompt, squares=float(rows.sum()), largest=float(rows.max() ** 0.5)
            )
    assert best is not None
    return best


def _descend(setting: SharedQuery, wanted: Floats, prompt: Floats, steps: int) -> Floats:
    damping, still = _FIRST_DAMPING, 0
    residual = (attend(setting, prompt) - wanted).ravel()
    for _ in range(steps):
        slope = jacobian(setting, prompt)
        # The smaller of the two normal systems: rows are few, tokens may be many.
        outer = slope @ slope.T
        scale = float(np.trace(outer)) / len(outer)
        while damping < _MOST_DAMPING:
            dual = np.linalg.solve(
                outer + damping * (scale + 1e-300) * np.eye(len(outer)), residual
            )
            moved = prompt - (slope.T @ dual).reshape(prompt.T.shape).T
            found = (attend(setting, moved) - wanted).ravel()
            if np.isfinite(found).all() and found @ found < residual @ residual:
                break
            damping *= 4
        else:
            return prompt
        before, after = float(residual @ residual), float(found @ found)
        prompt, residual, damping = moved, found, max(damping / 6, 1e-12)
        still = still + 1 if before - after <= _GAIN * before else 0
        if still >= _PATIENCE or after == 0.0:
            return prompt
    return prompt
