"""Many problems in one pass against the same problems one after another, on the small model.

Problem b has its own random pairs and its own prompt. Both sides do the same number of
optimiser steps from the same starts; that their prompts agree at the end is checked.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Final

import torch
from benchmarks.engine_parts.cases import Case, random_pairs
from benchmarks.engine_parts.engine_side import EngineSteps
from benchmarks.engine_parts.flops import executed_flops
from benchmarks.engine_parts.models import Model, small_model
from torch import Tensor

from promptlimits.capacity.train.state import from_vocabulary
from promptlimits.nets.protocol import EncodedPair, PackedPairs, pack

PROBLEMS: Final = 32
PAIRS: Final = 32
PROMPT_TOKENS: Final = 8
STEPS: Final = 10
QUICK_STEPS: Final = 3
ROUNDS: Final = 3


def run(quick: bool) -> dict[str, object]:
    """Seconds of a step of all problems, together and one after another.

    Args:
        quick: Fewer steps.

    Returns:
        The entry `together`.
    """
    steps = QUICK_STEPS if quick else STEPS
    with small_model() as model:
        problems = [ragged_pairs(model, seed=seed) for seed in range(PROBLEMS)]
        generator = torch.Generator().manual_seed(0)
        starts = from_vocabulary(
            model.engine, count=PROBLEMS, prompt_tokens=PROMPT_TOKENS, generator=generator
        )
        seconds: dict[str, list[float]] = {"together": [], "alone": []}
        for _ in range(ROUNDS):
            together, taken = _together(model, problems, starts, steps)
            seconds["together"].append(taken)
            alone, taken = _alone(model, problems, starts, steps)
            seconds["alone"].append(taken)
        flops = executed_flops(EngineSteps(model.engine, problems, list(starts)).step)
    medians = {side: statistics.median(taken) / steps for side, taken in seconds.items()}
    return {
        "problems": PROBLEMS,
        "pairs": PAIRS,
        "prompt_tokens": PROMPT_TOKENS,
        "steps": steps,
        "ratio": medians["alone"] / medians["together"],
        "together_seconds_per_step": medians["together"],
        "alone_seconds_per_step": medians["alone"],
        "relative_prompt_gap": float((together - alone).norm() / alone.norm()),
        "executed_gflops_per_second": flops / medians["together"] / 1e9,
    }


def ragged_pairs(model: Model, *, seed: int) -> PackedPairs:
    """Pairs whose keys and values have 1 or 2 tokens."""
    full = Case(pairs=PAIRS, prompt_tokens=PROMPT_TOKENS, tokens=4, values=2)
    generator = torch.Generator().manual_seed(seed)
    kept = torch.randint(1, 3, (PAIRS, 2), generator=generator).tolist()
    pairs = random_pairs(full, vocabulary=model.shape.vocabulary, seed=seed)
    return pack([_shortened(pair, *lengths) for pair, lengths in zip(pairs, kept, strict=True)])


def _shortened(pair: EncodedPair, key: int, value: int) -> EncodedPair:
    return EncodedPair(
        key="", value="", key_ids=pair.key_ids[:key], value_ids=pair.value_ids[:value]
    )


def _together(
    model: Model, problems: Sequence[PackedPairs], starts: Tensor, steps: int
) -> tuple[Tensor, float]:
    began = time.perf_counter()
    side = EngineSteps(model.engine, problems, list(starts))
    for _ in range(steps):
        side.step()
    return side.prompts, time.perf_counter() - began


def _alone(
    model: Model, problems: Sequence[PackedPairs], starts: Tensor, steps: int
) -> tuple[Tensor, float]:
    done = [
        _together(model, [pairs], starts[at : at + 1], steps) for at, pairs in enumerate(problems)
    ]
    return torch.cat([prompt for prompt, _ in done]), sum(taken for _, taken in done)
