"""The rate at which this machine multiplies float32 matrices, with the threads of this run.

The best of a few shapes: large squares, and the products that the measured step is made of
(its packed tokens against the MLP, the attention's projections and the vocabulary).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from benchmarks.engine_parts.cases import Case
from benchmarks.engine_parts.flops import LlamaShape

SQUARES: Final = (512, 1024, 1536)
SECONDS_EACH: Final = 0.08
LARGEST: Final = 4e9
"""FLOPs of the largest product that is tried."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """The best rate found.

    Attributes:
        gflops: 1e9 operations a second.
        shape: (a, b, c) of the product, (a, b) with (b, c).
    """

    gflops: float
    shape: tuple[int, int, int]


def matmul_rate(shape: LlamaShape, case: Case) -> Rate:
    """The best rate among the squares and the step's own products."""
    tokens = case.prompt_tokens + case.input_tokens
    own = (
        (tokens, shape.dim, shape.mlp),
        (tokens, shape.mlp, shape.dim),
        (tokens, shape.dim, shape.dim),
        (case.reads, shape.dim, shape.vocabulary),
    )
    tried = [(side, side, side) for side in SQUARES]
    tried += [sizes for sizes in own if product_flops(sizes) <= LARGEST]
    return max((_rate(sizes) for sizes in tried), key=lambda rate: rate.gflops)


def product_flops(sizes: tuple[int, int, int]) -> int:
    """Operations of a product (a, b) with (b, c)."""
    return 2 * sizes[0] * sizes[1] * sizes[2]


def product(sizes: tuple[int, int, int]) -> Callable[[], object]:
    """One product (a, b) with (b, c) into a buffer that is reused."""
    rows, inner, columns = sizes
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(rows, inner, generator=generator)
    right = torch.randn(inner, columns, generator=generator)
    into = torch.empty(rows, columns)
    return lambda: torch.mm(left, right, out=into)


def _rate(sizes: tuple[int, int, int]) -> Rate:
    """The fastest of several runs of one product."""
    multiply = product(sizes)
    multiply()
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < SECONDS_EACH:
        start = time.perf_counter()
        multiply()
        best = min(best, time.perf_counter() - start)
    return Rate(gflops=product_flops(sizes) / best / 1e9, shape=sizes)
