"""The search for texts against doubling, in the same processor time, confirmed by `generate`.

    python benchmarks/text_search.py                    six texts, both searches, 2 minutes each
    python benchmarks/text_search.py --seconds 240 --text prelude --only lines
    python benchmarks/text_search.py --json             JSON on standard output

One prompt vector of SmolLM2-135M. `lines` is the product's search (`search_text`). `doubling` is
what it replaced: a prompt for the first 8 tokens, then for twice as many, each from the best so far
at half the learning rate with Adam begun anew; where that fails a fresh start, then bisection.
`small-steps` is `lines` with first steps, and so vectors, a third as large.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.engine_parts.cramming import PROSE
from benchmarks.engine_parts.doubling import doubling
from benchmarks.engine_parts.models import smollm2
from benchmarks.engine_parts.text_runs import Search, run_text
from benchmarks.engine_parts.texts import TEXTS

from promptlimits.capacity.search.attempt import Attempt
from promptlimits.capacity.search.search import SearchConfig
from promptlimits.capacity.search.texts import LineSettings, search_text
from promptlimits.capacity.train.config import TEXT_SHARPENING_SHARE, TrainingConfig

SMALL_STEPS: Final = LineSettings(scout_rates=(3.0, 1.0), relative_rate=0.2)
COMPARED: Final[dict[str, Search]] = {"lines": search_text, "doubling": doubling}
SEARCHES: Final = {**COMPARED, "small-steps": partial(search_text, line=SMALL_STEPS)}
EVERY: Final = {"prelude": PROSE, **TEXTS}


def config(seed: int) -> SearchConfig:
    """The command's settings."""
    return SearchConfig(
        training=TrainingConfig(
            prompt_tokens=1,
            first_sharpening_share=TEXT_SHARPENING_SHARE,
            max_steps=400,
            patience=80,
            seed=seed,
        ),
        starts=2,
    )


def main() -> None:
    """Run the searches and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="processor time of each")
    parser.add_argument("--text", action="append", choices=EVERY, help="only this text")
    parser.add_argument("--only", choices=SEARCHES, help="one search alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = smollm2()
    rows = []
    for name in options.text or EVERY:
        ids = model.engine.codec.encode_key(EVERY[name])
        for which in [options.only] if options.only else COMPARED:
            rows.append(_row(model, name, ids, which, options))
            print(_line(rows[-1]), file=sys.stderr, flush=True)
    ratio = _median_ratio(rows)
    if options.json:
        print(json.dumps({"rows": rows, "median_ratio": ratio}, indent=1))
        return
    print("\n".join(map(_line, rows)))
    if ratio is not None:
        print(f"median of the ratios over the texts written for this: {ratio:.2f}")


def _row(model, name, ids, which, options):
    began, most, reached = time.process_time(), 0, []

    def note(one: Attempt) -> None:
        nonlocal most
        if len(one.held) > most:
            most = len(one.held)
            reached.append([round(time.process_time() - began, 1), most])

    done = run_text(
        model, ids, config(options.seed), SEARCHES[which], seconds=options.seconds, on_attempt=note
    )
    return {
        "text": name,
        "search": which,
        "of": len(ids),
        "held": most,
        "confirmed": done.confirmed,
        "steps": done.steps,
        "seconds": done.seconds,
        "reached": reached,
    }


def _line(row) -> str:
    reached = ", ".join(f"{held} at {seconds:.0f} s" for seconds, held in row["reached"])
    return (
        f"{row['text']:9} {row['search']:9} {row['confirmed']:4} of {row['of']} confirmed "
        f"({row['held']} held), {row['steps']} steps, {row['seconds']:.0f} s: {reached}"
    )


def _median_ratio(rows) -> float | None:
    """Of `lines` over `doubling`, over the texts of `texts`; None where one of them is missing."""
    held = {(row["text"], row["search"]): row["confirmed"] for row in rows}
    ratios = [
        held[name, "lines"] / max(1, held[name, "doubling"])
        for name in TEXTS
        if (name, "lines") in held and (name, "doubling") in held
    ]
    return statistics.median(ratios) if ratios else None


if __name__ == "__main__":
    main()
