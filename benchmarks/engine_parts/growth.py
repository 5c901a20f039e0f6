"""How the time of one optimiser step grows with each size, on the small model.

One size is varied at a time around a middle. For each the report gets the points, the straight
line of least squares through them with its R^2, and the slope on doubly logarithmic axes: 1 is
proportional, 2 would be quadratic, and a fixed part of the cost pulls it below 1. Prompt tokens
attend to each other, so that cost in m_p is a straight line only while that part is small.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from benchmarks.engine_parts.cases import Case, random_packed
from benchmarks.engine_parts.engine_side import EngineSteps
from benchmarks.engine_parts.models import Model, small_model

from promptlimits.capacity.train.state import from_vocabulary

MIDDLE: Final = Case.halves(64, 8, 8)
PAIRS: Final = (32, 64, 128, 256, 512)
PROMPT_TOKENS: Final = (8, 16, 32, 64, 128)
TOKENS: Final = (4, 8, 16, 32, 64)
PROBLEMS: Final = (1, 2, 4, 8, 16)
LAYERS: Final = (1, 2, 4, 6, 8)
ROUNDS: Final = 5
QUICK_ROUNDS: Final = 2

Step = Callable[[], object]


def run(quick: bool) -> dict[str, object]:
    """Every size in turn.

    Args:
        quick: Fewer rounds, and only the first four values of each size.

    Returns:
        The entry `growth`: for each size its points and fits.
    """
    kept = slice(0, 4 if quick else None)
    rounds = QUICK_ROUNDS if quick else ROUNDS
    grown: dict[str, object] = {}
    with small_model() as model:
        steps: dict[str, dict[int, Step]] = {
            "pairs": {k: _step(model, replace(MIDDLE, pairs=k)) for k in PAIRS[kept]},
            "prompt_tokens": {
                p: _step(model, replace(MIDDLE, prompt_tokens=p)) for p in PROMPT_TOKENS[kept]
            },
            "tokens": {
                m: _step(model, Case.halves(MIDDLE.pairs, MIDDLE.prompt_tokens, m))
                for m in TOKENS[kept]
            },
            "problems": {b: _step(model, MIDDLE, problems=b) for b in PROBLEMS[kept]},
        }
        for name, sizes in steps.items():
            grown[name] = _told(name, _fits(*_measured(sizes, rounds)))
    grown["layers"] = _told("layers", _fits(*_layers(LAYERS[kept], rounds)))
    return grown


def _step(model: Model, case: Case, *, problems: int = 1) -> Step:
    vocabulary = model.shape.vocabulary
    packed = [random_packed(case, vocabulary=vocabulary, seed=seed) for seed in range(problems)]
    generator = torch.Generator().manual_seed(0)
    starts = from_vocabulary(
        model.engine, count=problems, prompt_tokens=case.prompt_tokens, generator=generator
    )
    return EngineSteps(model.engine, packed, list(starts)).step


def _layers(layers: Sequence[int], rounds: int) -> tuple[list[int], list[float]]:
    seconds = []
    for count in layers:
        with small_model(layers=count) as model:
            seconds += _measured({count: _step(model, MIDDLE)}, rounds)[1]
    return list(layers), seconds


def _measured(steps: dict[int, Step], rounds: int) -> tuple[list[int], list[float]]:
    """Sizes and the median seconds of a step at each, one step of each in every round."""
    seconds: dict[int, list[float]] = {size: [] for size in steps}
    for repeat in range(rounds + 1):
        for size, step in steps.items():
            began = time.perf_counter()
            step()
            if repeat:  # the first round warms up
                seconds[size].append(time.perf_counter() - began)
    return list(steps), [statistics.median(taken) for taken in seconds.values()]


def _fits(sizes: list[int], seconds: list[float]) -> dict[str, object]:
    """The line, its R^2 and the slope on logarithmic axes."""
    size, taken = np.array(sizes, dtype=float), np.array(seconds)
    slope, start = np.polyfit(size, taken, 1)
    spread = float(((taken - taken.mean()) ** 2).sum())
    left = float(((taken - start - slope * size) ** 2).sum())
    return {
        "sizes": sizes,
        "ms": [1e3 * one for one in seconds],
        "ms_per_unit": 1e3 * float(slope),
        "ms_at_zero": 1e3 * float(start),
        "r_squared": 1 - left / spread if spread else 1.0,
        "log_log_slope": float(np.polyfit(np.log(size), np.log(taken), 1)[0]),
    }


def _told(name: str, entry: dict[str, object]) -> dict[str, object]:
    print(f"growth: {name}, slope {entry['log_log_slope']:.2f}", file=sys.stderr)
    return entry
