"""Whether `torch.compile` pays for the decoder's passes over memory, which are not products.

    python benchmarks/compiled_passes.py            a minute, most of it compiling
    python benchmarks/compiled_passes.py --json     JSON on standard output

Norms and gates of a small and of a larger model, forward and back, as they are and compiled. A
block runs two norms and one gate, beside products that take ten times as long: what is gained here
(at most some hundred microseconds a block on the CPU where this was written) is lost in a step, and
compiling takes minutes. So the engine has no such option.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor

from promptlimits.models.huggingface.decoder.pointwise import Activation, Norm
from promptlimits.models.huggingface.decoder.tape import Tape

SIZES = ((512, 128, 352), (456, 576, 1536))
"""Rows, width and hidden width: the small model of the engine's benchmark, and SmolLM2."""
SECONDS_EACH = 0.3


def passes(rows: int, width: int, hidden: int) -> dict[str, Callable[[], object]]:
    """Each pass as a function without arguments."""
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    x, gradient, beside = (normal(rows, width) for _ in range(3))
    up, gate, back = (normal(rows, hidden) for _ in range(3))
    norm = Norm(weight=normal(width), bias=None, epsilon=1e-6)
    scale = x.pow(2).mean(dim=-1, keepdim=True).rsqrt()
    unit, silu = x * scale, Activation("silu")

    def norm_forward() -> Tensor:
        return norm.forward(x, Tape(keep=False))

    def norm_back() -> Tensor:
        return norm.backward(gradient, Tape([unit, scale]), beside)

    def gate_forward() -> Tensor:
        return silu.forward(gate) * up

    def gate_back() -> Tensor:
        return silu.backward(back * up, gate)

    return {
        "norm": norm_forward,
        "norm, back": norm_back,
        "gate": gate_forward,
        "gate, back": gate_back,
    }


def best_seconds(run: Callable[[], object]) -> float:
    """The fastest of many runs."""
    run()
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < SECONDS_EACH:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def measure() -> list[dict[str, object]]:
    """Microseconds of every pass, as it is and compiled."""
    rows: list[dict[str, object]] = []
    for size in SIZES:
        for name, run in passes(*size).items():
            plain = best_seconds(run)
            compiled = best_seconds(torch.compile(run))
            rows.append(
                {
                    "pass": name,
                    "rows": size[0],
                    "width": size[1],
                    "hidden": size[2],
                    "plain_us": 1e6 * plain,
                    "compiled_us": 1e6 * compiled,
                    "ratio": plain / compiled,
                }
            )
    return rows


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    options = parser.parse_args()
    rows = measure()
    if options.json:
        print(json.dumps({"threads": torch.get_num_threads(), "passes": rows}, indent=1))
        return
    for row in rows:
        print(
            f"{row['pass']:<11} {row['rows']} x {row['width']}/{row['hidden']}: "
            f"{row['plain_us']:.0f} us, compiled {row['compiled_us']:.0f} us, "
            f"{row['ratio']:.2f} times as fast"
        )


if __name__ == "__main__":
    main()
