"""Logits in blocks of the vocabulary against whole rows of them, and against torch's own loss.

    python benchmarks/vocabulary_blocks.py            a minute on one thread
    python benchmarks/vocabulary_blocks.py --json     JSON on standard output

Gradient of every row of a head with random weights. Whole rows pass the head's weights once for
each 64 MiB of logits; blocks pass them once. Both find each row's lead as well, and write to memory
that they keep. torch's `linear_cross_entropy` (torch 2.13 and later) takes 64 rows at a time, the
fastest of its chunks here, and finds the loss and its gradient alone. All run in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from promptlimits.capacity.train.memory import LogitBuffer
from promptlimits.capacity.train.objective import Rows, score_rows
from promptlimits.nets.decoder.linear import Linear, LinearHead
from promptlimits.nets.protocol import EncodedPair, Memory, pack

SIZES = ((256, 576, 49_152), (1024, 576, 49_152), (256, 640, 262_144))
"""Rows, width and vocabulary: SmolLM2's, twice, and Gemma 3's."""
LOGIT_BYTES = 1 << 26
TORCH_ROWS = 64
ROUNDS = 5


class WholeRows(LinearHead):
    """A head that gives all logits of a row at once."""

    def blocks(self, most: int) -> list[LinearHead]:
        """Itself, whatever is asked for."""
        return [self]


def sides(rows: int, width: int, vocabulary: int) -> dict[str, Callable[[], Tensor]]:
    """The gradient of every row, by each way."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(rows, width, generator=generator) / width**0.5
    linear = Linear(weight=torch.randn(vocabulary, width, generator=generator))
    targets = torch.randint(vocabulary, (rows,), generator=generator)
    pairs = [EncodedPair.of_ids([0], [one]) for one in targets.tolist()]
    scored = Rows.plain(pack(pairs))

    @torch.inference_mode()
    def gradient_of(head: LinearHead, memory: Memory) -> Tensor:
        return score_rows(states, head, scored, logit_bytes=LOGIT_BYTES, memory=memory).gradient

    def gradient_of_torch() -> Tensor:
        leaf = states.clone().requires_grad_(True)
        options = nn.LinearCrossEntropyOptions(batch_chunk_size=TORCH_ROWS)
        loss = nn.functional.linear_cross_entropy(
            leaf, linear.weight, targets, reduction="sum", options=options
        )
        return torch.autograd.grad(loss, leaf)[0]

    heads = {"blocks": LinearHead(linear=linear), "whole_rows": WholeRows(linear=linear)}
    ways = {name: partial(gradient_of, head, LogitBuffer().matrix) for name, head in heads.items()}
    if hasattr(nn, "LinearCrossEntropyOptions"):
        return {**ways, "torch": gradient_of_torch}
    return ways


def measure(size: tuple[int, int, int], rounds: int = ROUNDS) -> dict[str, object]:
    """Seconds of each way, and how far its gradient is from that of blocks."""
    ways = sides(*size)
    gradients = {name: way() for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - began)
    usual = {name: statistics.median(taken) for name, taken in seconds.items()}
    blocks = gradients["blocks"]
    gaps = {name: float((one - blocks).norm() / blocks.norm()) for name, one in gradients.items()}
    return {
        **dict(zip(("rows", "width", "vocabulary"), size, strict=True)),
        "seconds": usual,
        "times_as_fast": {name: usual[name] / usual["blocks"] for name in usual},
        "relative_gradient_gap": gaps,
    }


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
        print(f"{case['rows']} rows, {case['width']} wide, {case['vocabulary']} tokens")
        for name, taken in case["seconds"].items():
            print(f"  {name:10} {taken:6.2f} s   {case['times_as_fast'][name]:.2f} of blocks")


if __name__ == "__main__":
    main()
