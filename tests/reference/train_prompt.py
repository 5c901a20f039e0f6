"""Prompts trained hard: Levenberg-Marquardt on the true layer, from many starts.

Nothing here knows of the oracle: the residuals are attention's outputs behind an actual prompt,
as `setting.attend` computes them, and the derivative is `reachable.jacobian`.
"""

import numpy as np

from promptlimits.lab.one_layer.reachable import jacobian
from promptlimits.lab.one_layer.setting import attend


def train_prompt(setting, targets, *, tokens, generator, starts=6, steps=150, given=None):
    """The least sum of squared errors that training reaches, and its prompt (d, tokens)."""
    inits = [] if given is None else [given]
    for number in range(starts):
        size = (0.3, 1.0, 3.0)[number % 3]
        inits.append(size * generator.standard_normal((setting.layer.dim, tokens)))
    reached = [_descend(setting, targets, prompt, steps) for prompt in inits]
    return min(reached, key=lambda pair: pair[0])


def _descend(setting, targets, prompt, steps):
    shape = prompt.shape
    residual = (attend(setting, prompt) - targets).reshape(-1)
    value, damping = float(residual @ residual), 1e-2
    for _ in range(steps):
        slope = jacobian(setting, prompt)
        before = value
        for _ in range(12):
            step = _damped(slope, residual, damping)
            # Columns of the Jacobian run by token, then coordinate.
            moved = prompt - step.reshape(shape[1], shape[0]).T
            tried = (attend(setting, moved) - targets).reshape(-1)
            if np.isfinite(tried).all() and tried @ tried < value:
                prompt, residual, value = moved, tried, float(tried @ tried)
                damping = max(damping / 5, 1e-15)
                break
            damping *= 4
        if before - value <= 1e-14 * value:
            break
    return value, prompt


def _damped(slope, residual, damping):
    """The step of least squares with damping, by the smaller of the two normal systems."""
    rows, columns = slope.shape
    level = damping * max(float((slope**2).sum(axis=0).max()), 1e-12)
    if rows < columns:
        inner = slope @ slope.T + level * np.eye(rows)
        return np.asarray(slope.T @ np.linalg.solve(inner, residual))
    return np.asarray(
        np.linalg.solve(slope.T @ slope + level * np.eye(columns), slope.T @ residual)
    )
