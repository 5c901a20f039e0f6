"""The oracle of one layer against training prompts: seconds, and which error they end at.

    python benchmarks/oracle.py            all cases, a minute or two
    python benchmarks/oracle.py --quick    one layer of each kind, seconds
    python benchmarks/oracle.py --json     JSON on standard output

For each random layer, in one process, in turn: the search for the best statistics, the proved
limit below every prompt of every length, the witness of h tokens, Levenberg-Marquardt on prompts
of h + 1 tokens from many starts, and Adam on the same prompts. A trained error below the proved
limit would be an error of this package and ends the run. `adam_ratio` and `lm_ratio` are seconds
of training over seconds of search and proof together.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

import promptlimits
from promptlimits.lab.one_layer.oracle.value import certify_value, oracle_value
from promptlimits.lab.one_layer.reachable import jacobian
from promptlimits.lab.one_layer.realise import train_prompt
from promptlimits.lab.one_layer.setting import Floats, SharedQuery, attend, shared_query
from promptlimits.nets.paper.weights import random_weights

CASES = ((6, 1, 3, 3), (16, 1, 16, 4), (6, 2, 3, 3), (12, 2, 4, 3), (16, 3, 4, 4), (16, 4, 4, 4))
"""Width, heads, head size, queries."""

T = TypeVar("T")


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """A result and the seconds it took."""
    begin = time.perf_counter()
    result = work()
    return result, time.perf_counter() - begin


def draw(case: tuple[int, int, int, int], seed: int) -> tuple[SharedQuery, Floats]:
    """A random layer with queries and targets."""
    dim, heads, head_dim, queries = case
    generator = np.random.default_rng([*case, seed])
    layer = random_weights(
        dim=dim,
        heads=heads,
        head_dim=head_dim,
        hidden=0,
        layers=1,
        generator=generator,
        masked=False,
    ).layers[0]
    tokens = generator.standard_normal((queries + 1, dim))
    return shared_query(layer, tokens[0], list(tokens[1:])), generator.standard_normal(
        (queries, dim)
    )


def adam(setting: SharedQuery, targets: Floats, tokens: int, seed: int, steps: int) -> float:
    """The least sum of squares that Adam meets on the way, from one start."""
    generator = np.random.default_rng(seed)
    prompt = generator.standard_normal((setting.layer.dim, tokens))
    first, second = np.zeros_like(prompt), np.zeros_like(prompt)
    best = float("inf")
    for step in range(1, steps + 1):
        residual = (attend(setting, prompt) - targets).ravel()
        best = min(best, float(residual @ residual))
        slope = 2 * (jacobian(setting, prompt).T @ residual).reshape(tokens, -1).T
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        scaled = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-12)
        prompt = prompt - 0.05 * scaled
    return best


def measure(case: tuple[int, int, int, int], seed: int, starts: int, steps: int) -> dict[str, Any]:
    """All sides on one layer."""
    setting, targets = draw(case, seed)
    heads = len(setting.layer.heads)
    generator = np.random.default_rng(seed)
    value, value_seconds = timed(lambda: oracle_value(setting, targets, generator=generator))
    tolerance = 1e-6 if heads == 1 else 1e-2
    proof, proof_seconds = timed(
        lambda: certify_value(setting, targets, value, tolerance=tolerance)
    )
    trained, lm_seconds = timed(
        lambda: train_prompt(setting, targets, heads + 1, generator, starts=starts, steps=200)
    )
    descended, adam_seconds = timed(
        lambda: min(adam(setting, targets, heads + 1, start, steps) for start in range(starts))
    )
    lower = float(proof.lower)
    if min(trained.squares, descended) < lower * (1 - 1e-12):
        raise AssertionError(f"a trained prompt is below the proved limit: {case}, seed {seed}")
    ours = value_seconds + proof_seconds
    return {
        "case": case,
        "seed": seed,
        "found": value.found,
        "proved": lower,
        "gap": proof.gap,
        "boxes": proof.boxes,
        "attained": value.attained,
        "search_seconds": value_seconds,
        "proof_seconds": proof_seconds,
        "lm_squares": trained.squares,
        "lm_ratio": lm_seconds / ours,
        "adam_squares": descended,
        "adam_ratio": adam_seconds / ours,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Medians of each case."""
    lines = [
        (
            "| d, h, s, k | search s | proof s | worst gap "
            "| LM excess | LM time | Adam excess | Adam time |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in dict.fromkeys(row["case"] for row in rows):
        of = [row for row in rows if row["case"] == case]

        def middle(name: str, of: list[dict[str, Any]] = of) -> float:
            return statistics.median(row[name] for row in of)

        excess = {
            kind: statistics.median(row[f"{kind}_squares"] / row["found"] - 1 for row in of)
            for kind in ("lm", "adam")
        }
        lines.append(
            f"| {', '.join(map(str, case))} | {middle('search_seconds'):.3f} "
            f"| {middle('proof_seconds'):.3f} | {max(row['gap'] for row in of):.1e} "
            f"| {excess['lm']:.1e} | {middle('lm_ratio'):.1f}x "
            f"| {excess['adam']:.1e} | {middle('adam_ratio'):.1f}x |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one layer of each kind")
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    arguments = parser.parse_args()
    seeds, starts, steps = (1, 2, 300) if arguments.quick else (5, 8, 1000)
    rows = []
    for case in CASES:
        rows.extend(measure(case, seed, starts, steps) for seed in range(seeds))
        print(f"d, h, s, k = {case}", file=sys.stderr)
    if arguments.json:
        versions = {"promptlimits": promptlimits.__version__, "numpy": np.__version__}
        print(json.dumps({"cases": rows, "versions": versions, "starts": starts, "steps": steps}))
    else:
        print(table(rows))


if __name__ == "__main__":
    main()
