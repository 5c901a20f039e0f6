"""Seconds until a prompt gives every value of 32 random pairs exactly, on the small model.

This package with its default settings against PEFT with AdamW at several learning rates, from the
same starts (embeddings of random tokens). A pair is held when every token of its value has the
largest logit, which is what greedy decoding needs. PEFT pays for its optimiser steps only:
whether a prompt holds all pairs is read off the logits of the step's own forward pass. This
package asks for more, a lead of each token over the next, and pays for all it does but loading.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass
from typing import Final

import torch
from benchmarks.engine_parts.cases import Case, random_pairs
from benchmarks.engine_parts.models import Model, small_model
from benchmarks.engine_parts.peft_loop import PeftLoop
from torch import Tensor

from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.engine import train_many
from promptlimits.capacity.train.problem import Outcome, Problem
from promptlimits.capacity.train.state import TrainingState, from_vocabulary
from promptlimits.nets.protocol import EncodedPair, pack

CASE: Final = Case(pairs=32, prompt_tokens=8, tokens=4, values=2)
LEARNING_RATES: Final = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
QUICK_LEARNING_RATES: Final = (0.01, 0.03, 0.1)
SEEDS: Final = 3
MOST_STEPS: Final = 600
QUICK_MOST_STEPS: Final = 250


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a run ended.

    Attributes:
        solved: Whether every value was exact.
        steps: Optimiser steps until then, or all of them.
        seconds: What those took.
        checked: Whether stock PEFT gives every value from the prompt found.
    """

    solved: bool
    steps: int
    seconds: float
    checked: bool


def run(quick: bool) -> dict[str, object]:
    """Every seed and learning rate.

    Args:
        quick: One seed, three learning rates, fewer steps.

    Returns:
        The entry `end_to_end`. An unsolved run counts with the seconds it was given, so that a
        ratio with one in it is too small rather than too large.
    """
    rates = QUICK_LEARNING_RATES if quick else LEARNING_RATES
    steps = QUICK_MOST_STEPS if quick else MOST_STEPS
    ours: list[Ending] = []
    peft: dict[float, list[Ending]] = {rate: [] for rate in rates}
    with small_model() as model:
        for seed in range(1 if quick else SEEDS):
            pairs = random_pairs(CASE, vocabulary=model.shape.vocabulary, seed=seed)
            start = _start(model, seed)
            ours.append(_told("engine", _by_engine(model, pairs, start, steps)))
            for rate in rates:
                ending = _by_peft(model, pairs, start, rate, steps)
                peft[rate].append(_told(f"PEFT at {rate}", ending))
    return _summary(ours, peft)


def _start(model: Model, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    tokens = CASE.prompt_tokens
    return from_vocabulary(model.engine, count=1, prompt_tokens=tokens, generator=generator)[0]


def _by_engine(model: Model, pairs: list[EncodedPair], start: Tensor, most: int) -> Ending:
    config = TrainingConfig(prompt_tokens=CASE.prompt_tokens, max_steps=most, patience=most)
    packed = pack(pairs)
    state = TrainingState.start(start, packed.num_pairs)
    began = time.perf_counter()
    problem = Problem(key=0, pairs=packed, config=config, state=state)
    (fit,) = train_many(model.engine, [problem])
    seconds = time.perf_counter() - began
    loop = PeftLoop(model.stock, pairs, start)
    checked = loop.holds(fit.prompt)
    solved = fit.outcome is Outcome.SOLVED
    return Ending(solved=solved, steps=fit.steps, seconds=seconds, checked=checked)


def _by_peft(
    model: Model, pairs: list[EncodedPair], start: Tensor, rate: float, most: int
) -> Ending:
    loop = PeftLoop(model.stock, pairs, start, learning_rate=rate)
    seconds, solved, done = 0.0, False, 0
    while not solved and done < most:
        began = time.perf_counter()
        logits = loop.step()
        seconds += time.perf_counter() - began
        solved, done = loop.all_exact(logits), done + 1
    return Ending(solved=solved, steps=done, seconds=seconds, checked=solved)


def _summary(ours: list[Ending], peft: dict[float, list[Ending]]) -> dict[str, object]:
    rows = [{"learning_rate": rate} | _median(endings) for rate, endings in peft.items()]
    side = _median(ours)
    seconds = [row["seconds"] for row in rows]
    return {
        "pairs": CASE.pairs,
        "prompt_tokens": CASE.prompt_tokens,
        "tokens": CASE.tokens,
        "seeds": len(ours),
        # Of the learning rates that solve every seed, if there are any.
        "ratio_to_best": min([r["seconds"] for r in rows if r["solved"] == 1] or seconds)
        / side["seconds"],
        "ratio_to_median": statistics.median(seconds) / side["seconds"],
        "engine": side | {"checked_with_peft": all(ending.checked for ending in ours)},
        "peft": rows,
    }


def _median(endings: list[Ending]) -> dict[str, float]:
    """Share solved, and medians over the seeds."""
    return {
        "solved": sum(ending.solved for ending in endings) / len(endings),
        "steps": statistics.median(ending.steps for ending in endings),
        "seconds": statistics.median(ending.seconds for ending in endings),
    }


def _told(side: str, ending: Ending) -> Ending:
    how = "solved" if ending.solved else "not solved"
    line = f"end-to-end: {side}: {how}, {ending.steps} steps, {ending.seconds:.1f} s"
    print(line, file=sys.stderr)
    return ending
