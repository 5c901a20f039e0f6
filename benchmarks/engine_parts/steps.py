"""One optimiser step of one problem: this package against the plain PEFT loop.

Both sides have the same weights, pairs, prompt and loss, run in one process in turn, and do
forward, backward and the update of the prompt. What `prepare` computes once for all steps is
timed apart. The first round warms up, compares the gradients and counts the operations.
"""

from __future__ import annotations

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

SMALL_ROUNDS = 3
SMALL_SECONDS = 15.0
SMOLLM2_ROUNDS = 3
SMOLLM2_SECONDS = 200.0
SHORTEST_SECONDS = 0.8
LONGEST_SECONDS = 12.0
LONG_STEP_SECONDS = 1.0


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
    """Seconds of every step that counts, and of every group of products."""

    ours: list[float]
    products: list[float]
    peft: list[float]


@dataclass(frozen=True, kw_only=True)
class _Products:
    """Products one after the other, as many as take about as long as a step.

    A product of milliseconds finds quiet moments in which no step fits: alone, it would show a
    rate that the machine does not keep for as long as a step.
    """

    multiply: Callable[[], object]
    count: int
    flops: int

    @classmethod
    def as_long_as(cls, step: Callable[[], object], rate: Rate) -> _Products:
        """Of the shape of a rate that was found."""
        flops = product_flops(rate.shape)
        count = max(1, round(min(_stretch(step, 0.0)) * rate.gflops * 1e9 / flops))
        return cls(multiply=product(rate.shape), count=count, flops=count * flops)

    def run(self) -> None:
        """All of them."""
        for _ in range(self.count):
            self.multiply()


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


def measure(model: Model, case: Case, *, rounds: int, seconds: float = 0.0) -> dict[str, object]:
    """Seconds of a step on both sides, in turn, with operation counts and the matmul rate.

    Args:
        model: The weights.
        case: Sizes.
        rounds: Rounds at least; in each, a stretch of PEFT's steps, of ours and of products.
        seconds: More rounds follow until these are over.

    Returns:
        One entry of `cases`.
    """
    pairs = random_pairs(case, vocabulary=model.shape.vocabulary)
    ours = engine_steps(model, case)
    peft = PeftLoop(model.stock, pairs, start(model, case))
    fastest = matmul_rate(model.shape, case)
    counted = _first_round(ours, peft)
    products = _Products.as_long_as(ours.step, fastest)
    taken = _in_turn(ours.step, products.run, peft.step, rounds, seconds)
    ours_seconds, peft_seconds = _usual(taken.ours), _usual(taken.peft)
    sustained, usual = products.flops / min(taken.products), products.flops / _usual(taken.products)
    peak = max(fastest.gflops, matmul_rate(model.shape, case).gflops)
    exact = exact_flops(model.shape, case)
    return {
        "model": model.name,
        "pairs": case.pairs,
        "prompt_tokens": case.prompt_tokens,
        "tokens": case.tokens,
        "ratio_to_peft": peft_seconds / ours_seconds,
        # The best step against the best of about as many groups of products, as long as a step.
        "roofline_share": exact / min(taken.ours) / sustained,
        "roofline_share_of_usual": exact / ours_seconds / usual,
        # Against the one fastest product, which a moment is enough for.
        "roofline_share_of_peak": exact / min(taken.ours) / peak / 1e9,
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
        "matmul_gflops": sustained / 1e9,
        "matmul_usual_gflops": usual / 1e9,
        "matmul_peak_gflops": peak,
        "matmul_shape": fastest.shape,
        "steps_timed": len(taken.ours),
        "peft_steps_timed": len(taken.peft),
    }


def run(quick: bool, *, rounds: int | None = None) -> list[dict[str, object]]:
    """Every case.

    Args:
        quick: The small model only.
        rounds: Rounds of each case; None for 3 and 15 seconds at least on the small model, 3 and
            200 seconds at least on SmolLM2.

    Returns:
        One entry for each case.
    """
    found = []
    with small_model() as small:
        for case in SMALL_CASES:
            least, seconds = (SMALL_ROUNDS, SMALL_SECONDS) if rounds is None else (rounds, 0.0)
            found.append(_told(measure(small, case, rounds=least, seconds=seconds)))
    if quick:
        return found
    large = smollm2()
    for case in SMOLLM2_CASES:
        least, seconds = (SMOLLM2_ROUNDS, SMOLLM2_SECONDS) if rounds is None else (rounds, 0.0)
        found.append(_told(measure(large, case, rounds=least, seconds=seconds)))
    return found


def _first_round(ours: EngineSteps, peft: PeftLoop) -> Counted:
    gradients: list[Tensor] = []
    ours_flops = executed_flops(lambda: gradients.append(ours.step()))
    peft_flops = executed_flops(peft.step)
    gap = (gradients[0] - peft.gradient).norm() / peft.gradient.norm()
    return Counted(ours=ours_flops, peft=peft_flops, gradient_gap=float(gap))


def _in_turn(
    ours: Callable[[], object],
    products: Callable[[], object],
    peft: Callable[[], object],
    rounds: int,
    seconds: float,
) -> _Taken:
    """Rounds of all three; in each, a stretch of one is as long as of the others.

    A busy machine has quiet moments, and many short trials find them more easily than few: so no
    side has more time than another to find its own. Only where a PEFT step takes longer than a
    stretch may, it has more.
    """
    taken, started = _Taken(ours=[], products=[], peft=[]), time.perf_counter()
    done = 0
    while done < rounds or time.perf_counter() - started < seconds:
        began, done = time.perf_counter(), done + 1
        taken.peft.extend(_stretch(peft, SHORTEST_SECONDS))
        length = min(time.perf_counter() - began, LONGEST_SECONDS)
        taken.ours.extend(_stretch(ours, length))
        taken.products.extend(_stretch(products, length))
    return taken


def _usual(taken: list[float]) -> float:
    """The lower quartile: what else runs on a shared machine only ever adds time."""
    return min(taken) if len(taken) < 4 else statistics.quantiles(taken, n=4)[0]


def _stretch(side: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of steps one after the other, as in training.

    The first quarter pays for the memory that another side has used in between: it does not
    count, but where steps are so long that a stretch has few of them.
    """
    taken: list[float] = []
    while not taken or sum(taken) < seconds:
        began = time.perf_counter()
        side()
        taken.append(time.perf_counter() - began)
    return taken if taken[0] > LONG_STEP_SECONDS else taken[len(taken) // 4 :]


def _told(entry: dict[str, object]) -> dict[str, object]:
    sizes = f"({entry['pairs']}, {entry['prompt_tokens']}, {entry['tokens']})"
    ratio = f"{entry['ratio_to_peft']:.2f} times PEFT"
    print(f"steps: {entry['model']} {sizes} {ratio}", file=sys.stderr)
    return entry
