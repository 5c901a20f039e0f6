"""How many pairs of a list a prompt holds after so many seconds: working sets against doubling.

    python benchmarks/search.py                          capitals in 1 token, 3 seeds, 60 s each
    python benchmarks/search.py --prompt-tokens 1,2      a longer prompt starts from the shorter one
    python benchmarks/search.py --json                   JSON on standard output

Two searches of SmolLM2-135M from the same starts and for the same list: that of the package, and
the plain one, whose sizes double while they are solved and are then bisected, each from the best
prompt so far at half the rate, with Adam anew. Seconds are the processor's, of everything that a
search does at one length; afterwards the best prompts of both are asked the whole list, as
`promptlimits bracket` does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.engine_parts.doubling import doubling
from benchmarks.engine_parts.models import smollm2

from promptlimits.capacity.search.attempt import Attempt, RunContext
from promptlimits.capacity.search.choice import Choice, choose
from promptlimits.capacity.search.lists import FIRST_PAIRS, search_list
from promptlimits.capacity.search.ordering import Order, ordered
from promptlimits.capacity.search.search import SearchConfig
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.resolve import load_task
from promptlimits.capacity.task.targets import Targets
from promptlimits.capacity.train.config import SEARCH_DTYPE, TrainingConfig
from promptlimits.capacity.train.problem import Outcome
from promptlimits.capacity.train.state import TrainingState


@dataclass(frozen=True, kw_only=True)
class ProcessorTime:
    """A budget in seconds of this process from the moment it is made."""

    seconds: float  # allowed
    began: float  # moment of the process's clock
    began_wall: float  # moment of the wall's

    @classmethod
    def of(cls, seconds: float) -> ProcessorTime:
        """So many from now on."""
        return cls(seconds=seconds, began=time.process_time(), began_wall=time.monotonic())

    @property
    def used(self) -> float:
        """Seconds so far."""
        return time.process_time() - self.began

    def should_stop(self) -> Outcome | None:
        """Whether it is used up."""
        return Outcome.OUT_OF_BUDGET if self.used >= self.seconds else None

    def has_room(self, steps: int, seconds: float) -> bool:
        """Whether so many steps are left, each of so many seconds on the wall."""
        share = self.used / (time.monotonic() - self.began_wall)
        return self.used + steps * seconds * share <= self.seconds


Searcher = Callable[
    [RunContext, Targets, SearchConfig, TrainingState | None, ProcessorTime], Sequence[Attempt]
]


def working_sets(
    place: RunContext,
    targets: Targets,
    config: SearchConfig,
    warm: TrainingState | None,
    budget: ProcessorTime,
) -> Sequence[Attempt]:
    """The search of this package."""
    return search_list(
        place,
        targets,
        config,
        warm=warm,
        nearest_first=True,
        should_stop=budget.should_stop,
        has_room=budget.has_room,
    ).attempts


def plain(
    place: RunContext,
    targets: Targets,
    config: SearchConfig,
    warm: TrainingState | None,
    budget: ProcessorTime,
) -> Sequence[Attempt]:
    """Doubling sizes."""
    return doubling(place, targets, config, warm=warm, should_stop=budget.should_stop).attempts


SEARCHES: dict[str, tuple[Searcher, int]] = {
    "doubling": (plain, 8),
    "working sets": (working_sets, FIRST_PAIRS),
}
"""Each with the size that it begins with."""


def measure(
    lengths: Sequence[int], seeds: int, seconds: float, search_dtype: str | None = None
) -> list[dict[str, object]]:
    """Both searches, from every seed, at every length."""
    model = smollm2().engine
    task = load_task("capitals", model.codec)
    order = ordered(model, task.pairs, Order.EASIEST, seed=0)
    rows = []
    for seed in range(seeds):
        first = TrainingConfig(
            prompt_tokens=1, max_steps=400, patience=80, seed=seed, search_dtype=search_dtype
        )
        for name, (search, size) in SEARCHES.items():
            with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "s") as store:
                place = RunContext(model=model, store=store, task_hash=task.hash, provenance={})
                targets = task.targets.in_order(order)
                rows += _lengths(
                    place,
                    targets,
                    lengths,
                    SearchConfig(training=first, first_size=size),
                    name,
                    search,
                    seconds,
                )
    return rows


def _lengths(
    place: RunContext,
    targets: Targets,
    lengths: Sequence[int],
    first: SearchConfig,
    name: str,
    search: Searcher,
    seconds: float,
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    shorter: Choice | None = None
    for length in lengths:
        training = replace(first.training, prompt_tokens=length)
        config = replace(first, training=training)
        if shorter is not None:
            targets = targets.held_first(shorter.held)
            config = replace(config, first_size=max(config.first_size, len(shorter.held)))
        warm = None if shorter is None else shorter.state
        attempts = search(place, targets, config, warm, ProcessorTime.of(seconds))
        lead = training.relative_lead
        shorter = choose(place, targets, attempts, work={"length": length}, relative_lead=lead)
        held = 0 if shorter is None else len(shorter.held)
        rounds = [[one.size, len(one.held), one.steps] for one in attempts]
        rows.append(
            {
                "seed": training.seed,
                "prompt_tokens": length,
                "search": name,
                "held": held,
                "steps": sum(one.steps for one in attempts),
                "rounds": rounds,
            }
        )
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def summary(rows: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """Of each length, pairs held by both searches for each seed, and the ratio of their means."""
    told: list[dict[str, object]] = []
    for length in dict.fromkeys(row["prompt_tokens"] for row in rows):
        held = {
            name: [
                int(str(row["held"]))
                for row in rows
                if row["search"] == name and row["prompt_tokens"] == length
            ]
            for name in SEARCHES
        }
        means = [statistics.mean(held[name]) for name in SEARCHES]
        ratio = means[1] / means[0] if means[0] else None
        told.append({"prompt_tokens": length, "held": held, "ratio": ratio})
    return told


def main() -> None:
    """Run both and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompt-tokens", default="1", help="lengths, such as 1,2")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each search and length")
    parser.add_argument("--search-dtype", choices=["same", SEARCH_DTYPE], default="same")
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    options = parser.parse_args()
    lengths = [int(part) for part in options.prompt_tokens.split(",")]
    dtype = None if options.search_dtype == "same" else options.search_dtype
    rows = measure(lengths, options.seeds, options.seconds, dtype)
    told = summary(rows)
    if options.json:
        print(json.dumps({"seconds": options.seconds, "summary": told, "rows": rows}, indent=1))
        return
    for one in told:
        print(f"{one['prompt_tokens']} prompt tokens, {options.seconds:g} s: {one['held']}")
        print(f"  {one['ratio']:.2f} times as many by working sets" if one["ratio"] else "")


if __name__ == "__main__":
    main()
