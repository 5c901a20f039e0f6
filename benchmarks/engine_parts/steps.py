"""One optimiser step of one problem: this package against the plain PEFT loop.

Both sides have the same weights, pairs, prompt and loss, run in one process in turn, and do
forward, backward and the update of the prompt. What `prepare` computes once for all steps is
timed apart. The first round warms up, compares the gradients and counts the operations.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from benchmarks.engine_parts.cases import (
    SMALL_CASES,
    SMOLLM2_CASES,
    Case,
    random_packed,
    random_pairs,
)
from benchmarks.engine_parts.engine_side import EngineSteps
from benchmarks.engine_parts.flops import exact_flops, executed_flops
from benchmarks.engine_parts.models import Model, small_model, smollm2
from benchmarks.engine_parts.peft_loop import PeftLoop
from benchmarks.engine_parts.roofline import Rate, matmul_rate, product, product_flops
from torch import Tensor

SMALL_REPEATS = 8
SMOLLM2_REPEATS = 3
SMOLLM2_SECONDS = 90.0
BURST_SECONDS = 0.8
MULTIPLY_SECONDS = 0.2
MOST_IN_BURST = 24
LONG_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What the first round says.

    Attributes:
        ours: FLOPs that this package's step ran.
        peft: Those of the PEFT step.
        gradient_gap: Distance of the two gradients over the norm of PEFT's.
    """

    ours: int
    peft: int
    gradient_gap: float


@dataclass(frozen=True, kw_only=True)
class _Taken:
    """Seconds of every step that counts, and of every product in between."""

    ours: list[float]
    multiply: list[float]
    peft: list[float]


def start(model: Model, case: Case) -> Tensor:
    """(P, D): embeddings of the first tokens."""
    ids = torch.arange(1, case.prompt_tokens + 1) % model.shape.vocabulary
    return model.engine.embed(ids).detach().clone()


def engine_steps(model: Model, case: Case) -> EngineSteps:
    """This package's side of a case."""
    pairs = random_packed(case, vocabulary=model.shape.vocabulary)
    return EngineSteps(model.engine, [pairs], [start(model, case)])


def executed_over_exact(model: Model, case: Case) -> float:
    """FLOPs that this package's step runs over the fewest that the case needs."""
    ours = engine_steps(model, case)
    return executed_flops(ours.step) / exact_flops(model.shape, case)


def measure(model: Model, case: Case, *, repeats: int, seconds: float = 0.0) -> dict[str, object]:
    """Seconds of a step on both sides, in turn, with operation counts and the matmul rate.

    Args:
        model: The weights.
        case: Sizes.
        repeats: Rounds at least; in each, steps of both sides for about as long.
        seconds: More rounds follow until these are over.

    Returns:
        One entry of `cases`.
    """
    pairs = random_pairs(case, vocabulary=model.shape.vocabulary)
    ours = engine_steps(model, case)
    peft = PeftLoop(model.stock, pairs, start(model, case))
    before = matmul_rate(model.shape, case)
    counted = _first_round(ours, peft)
    multiply = product(before.shape)
    taken = _in_turn(ours.step, multiply, peft.step, repeats, seconds)
    ours_seconds, peft_seconds = _usual(taken.ours), _usual(taken.peft)
    in_turn = product_flops(before.shape) / _usual(taken.multiply)
    between = Rate.of(before.shape, min(taken.multiply))
    after = matmul_rate(model.shape, case)
    rate = max(before, between, after, key=lambda found: found.gflops)
    exact = exact_flops(model.shape, case)
    return {
        "model": model.name,
        "pairs": case.pairs,
        "prompt_tokens": case.prompt_tokens,
        "tokens": case.tokens,
        "ratio_to_peft": peft_seconds / ours_seconds,
        # Best against best: the matmul rate is the fastest product's, and what else runs on
        # the machine only ever adds time.
        "roofline_share": exact / min(taken.ours) / rate.gflops / 1e9,
        # Usual against usual, in turn: what else runs slows both.
        "roofline_share_in_turn": exact / ours_seconds / in_turn,
        "roofline_share_of_usual": exact / ours_seconds / rate.gflops / 1e9,
        "flop_ratio": counted.peft / exact,
        "value_tokens": case.values,
        "seconds": ours_seconds,
        "peft_seconds": peft_seconds,
        "prepare_seconds": ours.prepare_seconds,
        "relative_gradient_gap": counted.gradient_gap,
        "exact_flops": exact,
        "executed_flops": counted.ours,
        "executed_over_exact": counted.ours / exact,
        "peft_flops": counted.peft,
        "matmul_gflops": rate.gflops,
        "matmul_shape": rate.shape,
        "repeats": repeats,
        "steps_timed": len(taken.ours),
        "peft_steps_timed": len(taken.peft),
    }


def run(quick: bool, *, repeats: int | None = None) -> list[dict[str, object]]:
    """Every case.

    Args:
        quick: The small model only.
        repeats: Rounds of each case; None for 8 on the small model, 3 on SmolLM2, where more
            follow until 90 seconds are over.

    Returns:
        One entry for each case.
    """
    with small_model() as small:
        found = [
            _told(measure(small, case, repeats=repeats or SMALL_REPEATS)) for case in SMALL_CASES
        ]
    if quick:
        return found
    large, rounds = smollm2(), repeats or SMOLLM2_REPEATS
    return found + [
        _told(measure(large, case, repeats=rounds, seconds=SMOLLM2_SECONDS))
        for case in SMOLLM2_CASES
    ]


def _first_round(ours: EngineSteps, peft: PeftLoop) -> Counted:
    gradients: list[Tensor] = []
    ours_flops = executed_flops(lambda: gradients.append(ours.step()))
    peft_flops = executed_flops(peft.step)
    gap = (gradients[0] - peft.gradient).norm() / peft.gradient.norm()
    return Counted(ours=ours_flops, peft=peft_flops, gradient_gap=float(gap))


def _in_turn(
    ours: Callable[[], object],
    multiply: Callable[[], object],
    peft: Callable[[], object],
    repeats: int,
    seconds: float,
) -> _Taken:
    """Rounds of all three; in each, this package's side takes about as long as the other.

    A busy machine has quiet moments, and one of many short steps finds them more easily than one
    of few long ones: so neither side is given more time than the other to find its own.
    """
    taken, started, rounds = _Taken(ours=[], multiply=[], peft=[]), time.perf_counter(), 0
    while rounds < repeats or time.perf_counter() - started < seconds:
        began, rounds = time.perf_counter(), rounds + 1
        taken.peft.extend(_burst(peft, BURST_SECONDS))
        middle = time.perf_counter()
        while True:
            taken.ours.extend(_burst(ours, BURST_SECONDS))
            taken.multiply.extend(_burst(multiply, MULTIPLY_SECONDS))
            if time.perf_counter() - middle >= middle - began:
                break
    return taken


def _usual(taken: list[float]) -> float:
    """The lower quartile: what else runs on a shared machine only ever adds time."""
    return min(taken) if len(taken) < 4 else statistics.quantiles(taken, n=4)[0]


def _burst(side: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of steps one after the other, as in training.

    The first quarter pays for the memory that the other side has used in between: it does not
    count, but for a step so long that it stays the only one.
    """
    taken: list[float] = []
    while len(taken) < 2 or (sum(taken) < seconds and len(taken) < MOST_IN_BURST):
        began = time.perf_counter()
        side()
        taken.append(time.perf_counter() - began)
        if taken[0] > LONG_SECONDS:
            return taken
    return taken[math.ceil(len(taken) / 4) :]


def _told(entry: dict[str, object]) -> dict[str, object]:
    sizes = f"({entry['pairs']}, {entry['prompt_tokens']}, {entry['tokens']})"
    ratio = f"{entry['ratio_to_peft']:.2f} times PEFT"
    print(f"steps: {entry['model']} {sizes} {ratio}", file=sys.stderr)
    return entry
