"""Whether `torch.compile` pays for the decoder's passes over memory, which are not products.

    python benchmarks/compiled_passes.py            a minute, most of it compiling
    python benchmarks/compiled_passes.py --json     JSON on standard output

Norms and gates of a small and of a larger model, forward and back, as they are and compiled. On
the CPU where this was written one gains now and then what is a thousandth of a step, and most take
longer: they are written in few passes over memory, and a compiled call has guards to check. So the
engine has no such option.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor

from promptlimits.nets.decoder.linear import Activation, Norm, SavedTensors

SIZES = ((512, 128, 352), (456, 576, 1536))
"""Rows, width and hidden width: the small model of the engine's benchmark, and SmolLM2."""
SECONDS_EACH = 0.3


def passes(
    rows: int, width: int, hidden: int
) -> tuple[dict[str, Callable[[], object]], Callable[[], None]]:
    """Each pass of a block as the decoder makes it; the products behind carry the norm's gain.

    Returns:
        The passes by name, and what fills again that which they overwrite.
    """
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    x, gradient, beside = (normal(rows, width) for _ in range(3))
    up, gate, back = (normal(rows, hidden) for _ in range(3))
    norm, silu = Norm(weight=None, bias=None, epsilon=1e-6), Activation("silu")
    scale = x.pow(2).mean(dim=-1, keepdim=True).rsqrt()
    unit = x * scale
    _, value, slope = silu.gate(gate.clone(), up.clone())
    overwritten = [(one, one.clone()) for one in (beside, up, gate, value, slope)]

    def restore() -> None:
        for one, kept in overwritten:
            one.copy_(kept)

    def norm_forward() -> Tensor:
        return norm.forward(x, SavedTensors())

    def norm_back() -> Tensor:
        saved = SavedTensors()
        saved.save((unit, scale))
        return norm.backward(gradient, saved, beside)

    def gate_forward() -> tuple[Tensor, Tensor, Tensor]:
        return silu.gate(gate, up)

    def gate_back() -> tuple[Tensor, Tensor]:
        return value.mul_(back), slope.mul_(back)

    made: dict[str, Callable[[], object]] = {
        "norm": norm_forward,
        "norm, back": norm_back,
        "gate": gate_forward,
        "gate, back": gate_back,
    }
    return made, restore


def best_seconds(run: Callable[[], object], restore: Callable[[], object]) -> float:
    """The fastest of many runs."""
    run()
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < SECONDS_EACH:
        restore()
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def measure() -> list[dict[str, object]]:
    """Microseconds of every pass, as it is and compiled."""
    rows: list[dict[str, object]] = []
    for size in SIZES:
        runs, restore = passes(*size)
        for name, run in runs.items():
            plain = best_seconds(run, restore)
            compiled = best_seconds(torch.compile(run), restore)
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
