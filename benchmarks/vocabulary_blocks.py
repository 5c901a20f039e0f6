"""Logits in blocks of the vocabulary against whole rows of them, as many as 64 MiB hold.

    python benchmarks/vocabulary_blocks.py            half a minute on one thread
    python benchmarks/vocabulary_blocks.py --json     JSON on standard output

Loss, lead and gradient of every row of a head with random weights. Whole rows pass the head's
weights once for each 64 MiB of logits; blocks pass them once. Both sides write to memory that they
keep, and run in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from promptlimits.capacity.train.memory import LogitBuffer
from promptlimits.capacity.train.objective import Rows, score_rows
from promptlimits.nets.decoder.linear import Linear, LinearHead
from promptlimits.nets.protocol import EncodedPair, Memory, pack

SIZES = ((256, 576, 49_152), (1024, 576, 49_152), (256, 640, 262_144))
"""Rows, width and vocabulary: SmolLM2's, twice, and Gemma 3's."""
LOGIT_BYTES = 1 << 26
ROUNDS = 5


class WholeRows(LinearHead):
    """A head that gives all logits of a row at once."""

    def blocks(self, most: int) -> list[LinearHead]:
        """Itself, whatever is asked for."""
        return [self]


def sides(rows: int, width: int, vocabulary: int) -> dict[str, Callable[[], Tensor]]:
    """The gradient of every row, by both ways."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(rows, width, generator=generator) / width**0.5
    linear = Linear(weight=torch.randn(vocabulary, width, generator=generator))
    targets = torch.randint(vocabulary, (rows,), generator=generator).tolist()
    scored = Rows.plain(
        pack([EncodedPair(key="", value="", key_ids=(0,), value_ids=(one,)) for one in targets])
    )

    def gradient_of(head: LinearHead, memory: Memory) -> Tensor:
        return score_rows(states, head, scored, logit_bytes=LOGIT_BYTES, memory=memory).gradient

    heads = {"blocks": LinearHead(linear=linear), "whole rows": WholeRows(linear=linear)}
    return {name: partial(gradient_of, head, LogitBuffer().matrix) for name, head in heads.items()}


def measure(size: tuple[int, int, int], rounds: int = ROUNDS) -> dict[str, object]:
    """Seconds of both ways and how far apart their gradients are."""
    ways = sides(*size)
    blocks, whole = (way() for way in ways.values())
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - began)
    usual = {name: statistics.median(taken) for name, taken in seconds.items()}
    return {
        "rows": size[0],
        "width": size[1],
        "vocabulary": size[2],
        "seconds": usual["blocks"],
        "whole_rows_seconds": usual["whole rows"],
        "ratio": usual["whole rows"] / usual["blocks"],
        "relative_gradient_gap": float((blocks - whole).norm() / whole.norm()),
    }


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = [measure(size) for size in SIZES]
    if options.json:
        print(json.dumps({"threads": options.threads, "cases": found}, indent=1))
        return
    for case in found:
        print(
            f"{case['rows']} rows, {case['width']} wide, {case['vocabulary']} tokens: "
            f"{case['seconds']:.2f} s, whole rows {case['whole_rows_seconds']:.2f} s, "
            f"{case['ratio']:.2f} times as fast"
        )


if __name__ == "__main__":
    main()
