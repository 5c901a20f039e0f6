"""The training engine, measured: every ratio has both of its sides in one run.

    python benchmarks/engine.py                    everything, SmolLM2-135M included
    python benchmarks/engine.py --quick            the small model, some 3 minutes on 2 cores
    python benchmarks/engine.py --json             JSON on standard output
    python benchmarks/engine.py --part steps       one part; may be given several times

Parts: `steps` (one optimiser step against a plain PEFT loop, with operation counts and the
machine's matmul rate), `together` (32 problems at once), `regression` (Levenberg-Marquardt
against Adam, in a batch and in a loop), `end-to-end` (random pairs to 100% exact), `cramming` (a
text in one vector of SmolLM2; a small one of the small model with --quick), `growth` (cost against
each size), `narrow` (searches of SmolLM2 in bfloat16 against float32).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
PARTS: Final = ("steps", "together", "regression", "end-to-end", "cramming", "growth", "narrow")


def measured(part: str, options: argparse.Namespace) -> Any:
    """What one part returns."""
    module = importlib.import_module(f"benchmarks.engine_parts.{part.replace('-', '_')}")
    print(f"--- {part}", file=sys.stderr)
    if part == "steps":
        return module.run(options.quick, rounds=options.rounds)
    if part == "cramming":
        return module.run(options.quick, minutes=options.minutes)
    return module.run(options.quick)


def machine() -> dict[str, object]:
    """Where the figures come from."""
    import torch
    import transformers

    import promptlimits

    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": list(os.getloadavg()),
        "versions": {
            "promptlimits": promptlimits.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
    }


def _cpu_name() -> str:
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        for line in listed.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the small model only")
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part")
    parser.add_argument(
        "--rounds", type=_positive, help="just so many rounds of each case in `steps`"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="torch's threads, for both sides; by default 1: what one core makes of its rate",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=5.0,
        help="limit for each text of `cramming`, and for its protocol",
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Run the parts and print a table or JSON."""
    options = parse()
    sys.path.insert(0, str(ROOT))
    import torch

    torch.set_num_threads(options.threads)
    began = time.perf_counter()
    about = machine()
    found: dict[str, Any] = {}
    for part in options.part or PARTS:
        found["cases" if part == "steps" else part.replace("-", "_")] = measured(part, options)
    about["seconds"] = time.perf_counter() - began
    about["load_after"] = list(os.getloadavg())
    if options.json:
        print(json.dumps({"cases": [], **found, "machine": about}, indent=1))
        return
    from benchmarks.engine_parts.table import lines

    print("\n".join(lines(found)))
    print(json.dumps(about))


if __name__ == "__main__":
    main()
