"""Actual prompts to show for the oracle, with their errors measured on the layer.

Where h tokens have any statistics, those of the best point found are realised (`oracle_value`).
Elsewhere not all statistics are a prompt's: for one head whose values determine its scores the
best prompts of several lengths are known (`oracle_length`), for the largest error under weights
that Lawson's method shifts; for several such heads prompts are trained. Nothing here proves that
no prompt is better.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from promptlimits.lab.one_layer.oracle.length import best_of_length, grid_points, score_covector
from promptlimits.lab.one_layer.oracle.work import PROMPTS, Budget, slab_cost, training_cost
from promptlimits.lab.one_layer.setting import Floats, SharedQuery, attend
from promptlimits.lab.one_layer.train import train_prompt

LENGTHS: Final = (1, 2, 4, 8, 16, 64)
"""Lengths of the prompts that one head is shown with."""

_ROUNDS: Final = 12
_STARTS: Final = 4
_STEPS: Final = 60
_MOST_ROWS: Final = 512
"""Training takes normal systems of k d rows: with more, nothing is trained."""


def empty_prompt(setting: SharedQuery) -> Floats:
    """The prompt of no tokens, (d, 0)."""
    return np.zeros((setting.layer.dim, 0))


def prompts_of_bound_heads(
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
