"""Whether products in bfloat16 are fast here: measured, and remembered under the machine's name.

Some processors multiply bfloat16 many times as fast as float32 (AMX, AVX-512 bf16, most GPUs), on
others it is far slower, and which it is no list of names tells for long. So it is measured, as a
search would use it (`promptlimits.nets.decoder.network.Decoder.narrowed`): rows come in float32 and
the result goes out in float32.
"""

from __future__ import annotations

import platform
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from promptlimits.base.errors import PromptLimitsError
from promptlimits.base.files import read_regular_text, strict_json, write_json
from promptlimits.nets.files.cache import cache_directory

WORTH_IT: Final = 1.5
"""How many times as fast a product must be for a search in bfloat16. A step gains about as much: at
2.8 times (width 576, a busy machine) a step of SmolLM2-135M was 2.0 to 2.7 times as fast, at 1.0
(width 128) one of a small model 1.1 to 1.3 times."""

_ROWS: Final = 256
_TIMES_WIDER: Final = 4
_ROUNDS: Final = 25
_LONGEST_SECONDS: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class ProductRates:
    """Rates of a product (256, D) by (D, 4 D), in both ways; on a CPU, of one core."""

    float32_gflops: float
    bfloat16_gflops: float

    @property
    def ratio(self) -> float:
        """How many times as fast it is in bfloat16."""
        return self.bfloat16_gflops / self.float32_gflops

    @property
    def pays(self) -> bool:
        """Whether a search should be in bfloat16."""
        return self.ratio >= WORTH_IT


def product_rates(width: int, device: torch.device) -> ProductRates:
    """The rates at a model's width D, from the cache, or measured now and put there.

    A cache that cannot be read or written changes nothing else.
    """
    path, key = cache_directory() / "product-rates.json", _key(width, device)
    known = _read(path)
    with suppress(LookupError, TypeError, ValueError):
        wide, narrow = known[key]
        if min(wide, narrow) > 0:
            return ProductRates(float32_gflops=wide, bfloat16_gflops=narrow)
    found = measure(width, device)
    known[key] = [found.float32_gflops, found.bfloat16_gflops]
    with suppress(OSError, PromptLimitsError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, known)
    return found


@torch.inference_mode()
def measure(width: int, device: torch.device) -> ProductRates:
    """The rates, each the best of some products in turn with the other's."""
    rows = torch.ones(_ROWS, width, device=device)
    weight = torch.ones(_TIMES_WIDER * width, width, device=device)
    narrow = weight.to(torch.bfloat16)
    wide_seconds, narrow_seconds = [], []
    for _ in range(_ROUNDS):
        began = _now(device)
        _ = rows @ weight.T
        between = _now(device)
        _ = (rows.to(torch.bfloat16) @ narrow.T).to(torch.float32)
        wide_seconds.append(between - began)
        narrow_seconds.append(_now(device) - between)
        if sum(wide_seconds) + sum(narrow_seconds) > _LONGEST_SECONDS:
            break
    gflop = 2e-9 * _ROWS * weight.numel()
    return ProductRates(
        float32_gflops=gflop / min(wide_seconds), bfloat16_gflops=gflop / min(narrow_seconds)
    )


def _now(device: torch.device) -> float:
    """Seconds of the processor, which others on it do not lengthen, or of a device that is done."""
    if device.type == "cpu":
        return time.process_time()
    torch.zeros((), device=device).item()  # waits for all before it
    return time.perf_counter()


def _key(width: int, device: torch.device) -> str:
    """The machine, and all else that a rate depends on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    threads = torch.get_num_threads()
    facts = (platform.node(), name, f"torch {torch.__version__}", f"{threads} threads", width)
    return ", ".join(map(str, facts))


def _read(path: Path) -> dict[str, Any]:
    """What was measured before; nothing where there is no such file, or none that can be read."""
    with suppress(OSError, ValueError, RecursionError):
        found = strict_json(read_regular_text(path))
        if isinstance(found, dict):
            return found
    return {}
