"""One optimiser step of one problem: this package against the plain PEFT loop.

Both sides have the same weights, pairs, prompt and loss, run in one process in turn, and do
forward, backward and the update of the prompt. What `prepare` computes once for all steps is
timed apart. The first round warms up, compares the gradients and counts the operations.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

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
from benchmarks.engine_parts.roofline import matmul_rate, product, product_flops
from torch import Tensor

SHORTEST_SECONDS = 0.8
LONG_STEP_SECONDS = 1.0
FEWEST_STEPS = 4


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a case is timed.

    Attributes:
        rounds: At least.
        seconds: At least.
        stretch_seconds: Most that our steps, and the products, take of a round.
    """

    rounds: int
    seconds: float
    stretch_seconds: float


SMALL: Final = Patience(rounds=3, seconds=8.0, stretch_seconds=2.0)
SMOLLM2: Final = Patience(rounds=4, seconds=200.0, stretch_seconds=12.0)


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
class Taken:
    """What every step took.

    Attributes:
        ours: Seconds of each of our steps that counts.
        products: Seconds of a product, the mean of each group of them.
        peft: As `ours`, of PEFT's steps.
        alone: Seconds of a product before the first group.
    """

    ours: list[float]
    products: list[float]
    peft: list[float]
    alone: float

    @property
    def in_group(self) -> int:
        """Products that take about as long as our fastest step."""
        return max(1, round(min(self.ours) / min(self.products, default=self.alone)))


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


def measure(model: Model, case: Case, patience: Patience) -> dict[str, object]:
    """Seconds of a step on both sides, in turn, with operation counts and the matmul rate.

    Args:
        model: The weights.
        case: Sizes.
        patience: How long.

    Returns:
        One entry of `cases`.
    """
    pairs = random_pairs(case, vocabulary=model.shape.vocabulary)
    ours = engine_steps(model, case)
    peft = PeftLoop(model.stock, pairs, start(model, case))
    fastest = matmul_rate(model.shape, case)
    counted = _first_round(ours, peft)
    flops = product_flops(fastest.shape)
    taken = in_turn(ours.step, product(fastest.shape), peft.step, patience)
    ours_seconds, peft_seconds = usual(taken.ours), usual(taken.peft)
    sustained, usually = flops / min(taken.products), flops / usual(taken.products)
    peak = max(fastest.gflops, matmul_rate(model.shape, case).gflops)
    exact = exact_flops(model.shape, case)
    return {
        "model": model.name,
        "pairs": case.pairs,
        "prompt_tokens": case.prompt_tokens,
        "tokens": case.tokens,
        "ratio_to_peft": peft_seconds / ours_seconds,
        "ratio_to_peft_of_means": statistics.mean(taken.peft) / statistics.mean(taken.ours),
        # The best step against the best of about as many groups of products, as long as a step.
        "roofline_share": exact / min(taken.ours) / sustained,
        "roofline_share_of_usual": exact / ours_seconds / usually,
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
        "matmul_usual_gflops": usually / 1e9,
        "matmul_peak_gflops": peak,
        "matmul_shape": fastest.shape,
        "steps_timed": len(taken.ours),
        "peft_steps_timed": len(taken.peft),
        "product_groups_timed": len(taken.products),
        "products_in_group": taken.in_group,
    }


def run(quick: bool, *, rounds: int | None = None) -> list[dict[str, object]]:
    """Every case.

    Args:
        quick: The small model only.
        rounds: So many of each case, however long they take; None for `SMALL` and `SMOLLM2`.

    Returns:
        One entry for each case.
    """
    with small_model() as small:
        found = list(_cases(small, SMALL_CASES, SMALL, rounds))
    return found if quick else found + list(_cases(smollm2(), SMOLLM2_CASES, SMOLLM2, rounds))


def _cases(
    model: Model, cases: Sequence[Case], patience: Patience, rounds: int | None
) -> Iterator[dict[str, object]]:
    if rounds is not None:
        patience = replace(patience, rounds=rounds, seconds=0.0)
    for case in cases:
        yield _told(measure(model, case, patience))


def _first_round(ours: EngineSteps, peft: PeftLoop) -> Counted:
    gradients: list[Tensor] = []
    ours_flops = executed_flops(lambda: gradients.append(ours.step()))
    peft_flops = executed_flops(peft.step)
    gap = (gradients[0] - peft.gradient).norm() / peft.gradient.norm()
    return Counted(ours=ours_flops, peft=peft_flops, gradient_gap=float(gap))


def in_turn(
    ours: Callable[[], object],
    multiply: Callable[[], object],
    peft: Callable[[], object],
    patience: Patience,
) -> Taken:
    """Rounds of all three; in each, a stretch of one is as long as of the others.

    A busy machine has quiet moments, and many short trials find them more easily than few: so no
    side has more time than another to find its own. Only where PEFT's steps take longer than a
    stretch may, it has more.
    """
    started, done = time.perf_counter(), 0
    taken = Taken(ours=[], products=[], peft=[], alone=min(stretch(multiply, 0.0)))
    while done < patience.rounds or time.perf_counter() - started < patience.seconds:
        began, done = time.perf_counter(), done + 1
        taken.peft.extend(stretch(peft, SHORTEST_SECONDS))
        length = min(time.perf_counter() - began, patience.stretch_seconds)
        taken.ours.extend(stretch(ours, length))
        count = taken.in_group
        groups = stretch(partial(_group, multiply, count), length)
        taken.products.extend(seconds / count for seconds in groups)
    return taken


def _group(multiply: Callable[[], object], count: int) -> None:
    """Products one after the other, as many as take about as long as our fastest step so far.

    A product of milliseconds finds quiet moments in which no step fits: alone, it would show a
    rate that the machine does not keep for as long as a step.
    """
    for _ in range(count):
        multiply()


def usual(taken: Sequence[float]) -> float:
    """The lower quartile: what else runs on a shared machine only ever adds time."""
    return min(taken) if len(taken) < 4 else statistics.quantiles(taken, n=4)[0]


def stretch(side: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of steps one after the other, as in training.

    The first quarter pays for the memory that another side has used in between, so it does not
    count; long steps all do.
    """
    taken = [_seconds_of(side)]
    long = taken[0] > LONG_STEP_SECONDS
    fewest = 1 if long else FEWEST_STEPS
    while len(taken) < fewest or sum(taken) < seconds:
        taken.append(_seconds_of(side))
    return taken if long else taken[len(taken) // 4 :]


def _seconds_of(side: Callable[[], object]) -> float:
    began = time.perf_counter()
    side()
    return time.perf_counter() - began


def _told(entry: dict[str, object]) -> dict[str, object]:
    sizes = f"({entry['pairs']}, {entry['prompt_tokens']}, {entry['tokens']})"
    ratio = f"{entry['ratio_to_peft']:.2f} times PEFT"
    print(f"steps: {entry['model']} {sizes} {ratio}", file=sys.stderr)
    return entry
