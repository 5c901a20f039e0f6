"""Which settings of Adam get a prompt to answer every pair exactly, and in how many steps.

    python benchmarks/optimisers.py             the small model and SmolLM2-135M, half an hour
    python benchmarks/optimisers.py --quick     the small model, a minute or two
    python benchmarks/optimisers.py --json      JSON on standard output

Every combination of learning rate, sharpening and objective is a problem of its own, from the same
starts and for the same pairs; all of them train in one call of the engine. Learning rates of
prefixes are those of soft prompts, before `Problem.learning_rate_at` multiplies them. The last rows
change one thing about the best combination: the start (normal numbers instead of tokens), and the
learning rate held constant. Counts of steps do not depend on how busy the machine is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.engine_parts.cases import Case, random_packed
from benchmarks.engine_parts.models import small_model, smollm2
from torch import Tensor

from promptlimits.capacity.train.config import Objective, TrainingConfig
from promptlimits.capacity.train.engine import train_many
from promptlimits.capacity.train.problem import Fit, Outcome, Problem
from promptlimits.capacity.train.state import TrainingState, from_vocabulary
from promptlimits.nets.protocol import FrozenModel, PackedPairs, PromptKind


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be held.

    Attributes:
        name: For the table.
        case: Sizes.
        seeds: How many lists of pairs, each with a start of its own.
        most_steps: Steps after which a run counts as unsolved.
        learning_rates: Those tried.
        sharpenings: Those tried.
        objectives: Those tried.
        kind: What the prompts are.
    """

    name: str
    case: Case
    seeds: int
    most_steps: int
    kind: PromptKind = PromptKind.SOFT
    learning_rates: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0)
    sharpenings: tuple[float, ...] = (1.0, 4.0, 8.0)
    objectives: tuple[Objective, ...] = tuple(Objective)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One way to train.

    Attributes:
        learning_rate: Adam's.
        sharpening: Factor on the logits inside the loss.
        objective: The loss.
        start: "vocabulary" or "normal".
        final_share: Share of the learning rate left after 200 steps.
    """

    learning_rate: float
    sharpening: float
    objective: Objective
    start: str = "vocabulary"
    final_share: float = 0.1


SMALL_TASKS = (
    Task(
        name="small, 32 pairs of 4 tokens in 8",
        case=Case(pairs=32, prompt_tokens=8, tokens=4, values=2),
        seeds=4,
        most_steps=300,
    ),
    Task(
        name="small, 16 pairs of 4 tokens in 2",
        case=Case(pairs=16, prompt_tokens=2, tokens=4, values=2),
        seeds=4,
        most_steps=300,
    ),
)
SMALL_PREFIX_TASK = Task(
    name="small, 64 pairs of 4 tokens in a prefix of 2",
    case=Case(pairs=64, prompt_tokens=2, tokens=4, values=2),
    seeds=2,
    most_steps=100,
    kind=PromptKind.PREFIX,
    learning_rates=(0.1, 0.3, 1.0, 3.0, 10.0),
    sharpenings=(4.0,),
    objectives=(Objective.CROSS_ENTROPY,),
)
SMOLLM2_TASK = Task(
    name="smollm2, 8 pairs of 4 tokens in 1",
    case=Case(pairs=8, prompt_tokens=1, tokens=4, values=2),
    seeds=3,
    most_steps=150,
    learning_rates=(0.3, 1.0, 3.0),
    sharpenings=(1.0, 2.0, 4.0),
    objectives=(Objective.CROSS_ENTROPY,),
)
SMOLLM2_PREFIX_TASK = replace(
    SMALL_PREFIX_TASK,
    name="smollm2, 24 pairs of 4 tokens in a prefix of 1",
    case=Case(pairs=24, prompt_tokens=1, tokens=4, values=2),
    most_steps=60,
    learning_rates=(0.3, 1.0, 3.0),
    sharpenings=(2.0,),
)


def measure(model: FrozenModel, task: Task) -> list[dict[str, object]]:
    """Every combination, then what changes when one thing about the best is changed."""
    grid = [
        Settings(learning_rate=rate, sharpening=factor, objective=objective)
        for rate, factor, objective in product(
            task.learning_rates, task.sharpenings, task.objectives
        )
    ]
    rows = _run(model, task, grid)
    best = grid[min(range(len(rows)), key=lambda index: _rank(rows[index]))]
    changed = [
        replace(best, start="normal"),
        replace(best, final_share=1.0),
    ]
    return rows + _run(model, task, changed)


def _run(model: FrozenModel, task: Task, grid: list[Settings]) -> list[dict[str, object]]:
    fits: dict[object, Fit] = {}
    for fit in train_many(model, _problems(model, task, grid)):
        fits[fit.key] = fit
        if len(fits) % 20 == 0:
            print(f"{task.name}: {len(fits)} of {len(grid) * task.seeds}", file=sys.stderr)
    return [
        _row(task, settings, [fits[f"{index}/{seed}"] for seed in range(task.seeds)])
        for index, settings in enumerate(grid)
    ]


def _problems(model: FrozenModel, task: Task, grid: list[Settings]) -> Iterator[Problem]:
    vocabulary = model.head.vocabulary
    for seed in range(task.seeds):
        pairs = random_packed(task.case, vocabulary=vocabulary, seed=seed)
        for index, settings in enumerate(grid):
            start = _start(model, task, settings, seed)
            yield _problem(f"{index}/{seed}", task, settings, pairs, start)


def _problem(
    key: str, task: Task, settings: Settings, pairs: PackedPairs, start: Tensor
) -> Problem:
    config = TrainingConfig(
        prompt_tokens=task.case.prompt_tokens,
        learning_rate=settings.learning_rate,
        sharpening=settings.sharpening,
        objective=settings.objective,
        final_learning_rate_share=settings.final_share,
        max_steps=task.most_steps,
        patience=task.most_steps,
    )
    state = TrainingState.start(start, pairs.num_pairs)
    return Problem(key=key, pairs=pairs, config=config, state=state, kind=task.kind)


def _start(model: FrozenModel, task: Task, settings: Settings, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    tokens = task.case.prompt_tokens
    start = from_vocabulary(
        model, count=1, prompt_tokens=tokens, generator=generator, kind=task.kind
    )[0]
    if settings.start == "vocabulary":
        return start
    return torch.randn(start.shape, generator=generator)


def _row(task: Task, settings: Settings, fits: list[Fit]) -> dict[str, object]:
    steps = [fit.steps if fit.outcome is Outcome.SOLVED else task.most_steps for fit in fits]
    return {
        "task": task.name,
        "learning_rate": settings.learning_rate,
        "sharpening": settings.sharpening,
        "objective": settings.objective.value,
        "start": settings.start,
        "constant_rate": settings.final_share == 1.0,
        "solved": sum(fit.outcome is Outcome.SOLVED for fit in fits),
        "of": len(fits),
        "median_steps": statistics.median(steps),
        "pairs_held": statistics.mean(len(fit.held) for fit in fits),
    }


def _rank(row: dict[str, object]) -> tuple[float, float, float]:
    return (
        -float(str(row["solved"])),
        float(str(row["median_steps"])),
        -float(str(row["pairs_held"])),
    )


def _print_table(rows: list[dict[str, object]]) -> None:
    for task in dict.fromkeys(str(row["task"]) for row in rows):
        print(f"\n{task}")
        print("  lr     sharpening  objective      start       rate      solved  steps  pairs held")
        own = [row for row in rows if row["task"] == task]
        for row in sorted(own, key=_rank):
            rate = "constant" if row["constant_rate"] else "falling"
            print(
                f"  {row['learning_rate']:<6} {row['sharpening']:<11} {row['objective']:<14} "
                f"{row['start']:<11} {rate:<9} {row['solved']:>2} of {row['of']} "
                f"{row['median_steps']:>6} {row['pairs_held']:>8.1f}"
            )


def main() -> None:
    """Run every task and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the small model only, one seed")
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    with small_model() as model:
        for task in (*SMALL_TASKS, SMALL_PREFIX_TASK):
            few = replace(task, seeds=1, most_steps=100) if options.quick else task
            rows += measure(model.engine, few)
    if not options.quick:
        large = smollm2().engine
        for task in (SMOLLM2_TASK, SMOLLM2_PREFIX_TASK):
            rows += measure(large, task)
    if options.json:
        print(json.dumps({"threads": torch.get_num_threads(), "rows": rows}, indent=1))
    else:
        _print_table(rows)


if __name__ == "__main__":
    main()
