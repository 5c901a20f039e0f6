"""Error of the universal network against the precision asked for: sin by its prompt alone.

    python benchmarks/universal_error.py                     table, seconds
    python benchmarks/universal_error.py --function cos      cos, abs or square instead
    python benchmarks/universal_error.py --plot error.svg    the same as a drawing
    python benchmarks/universal_error.py --json              JSON on standard output

For each eps: the length of the prompt, the proved bound on the error off the exceptional set,
the largest error measured on a grid, and the seconds of building and measuring. Measured must
stay at or under proved; the run ends if it does not.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

import promptlimits
from promptlimits.lab.universal.universal import BUILT_IN, measure_error, universal_prompt
from promptlimits.lab.universal.universal_bound import as_float_above
from promptlimits.report.figures.plain_svg import FOUND, PROVED, document, set_axes

PRECISIONS = (Fraction(1, 2), Fraction(1, 5), Fraction(1, 10), Fraction(1, 20), Fraction(1, 50))
FINER = (Fraction(1, 100), Fraction(1, 200), Fraction(1, 1000))
POINTS = 2001


def measure(name: str, eps: Fraction) -> dict[str, float]:
    """One row of the table."""
    begin = time.perf_counter()
    built = universal_prompt(BUILT_IN[name], eps)
    found = measure_error(built, points=POINTS, generator=np.random.default_rng(0))
    return {
        "eps": float(eps),
        "prompt_tokens": built.network.prompt_tokens,
        "bound": as_float_above(built.sup_error),
        "measured": found.largest,
        "seconds": time.perf_counter() - begin,
    }


def drawing(name: str, rows: list[dict[str, float]]) -> str:
    """Measured errors over the proved bounds, both axes as logarithms."""
    title = f"{name} by its prompt alone: error against the precision asked for"
    places = [math.log10(row["eps"]) for row in rows]

    def draw(axes) -> None:  # type: ignore[no-untyped-def]
        axes.plot(places, [math.log10(row["bound"]) for row in rows], color=PROVED, linewidth=2)
        axes.plot(places, [math.log10(row["measured"]) for row in rows], "o", color=FOUND)
        set_axes(axes, title=title, below="log10 of eps", beside="log10 of the largest error")
        axes.text(0.05, 0.92, "● measured", color=FOUND, transform=axes.transAxes)
        axes.text(0.05, 0.82, "▬ proved", color=PROVED, transform=axes.transAxes)

    words = "; ".join(
        f"eps {row['eps']:.6g}: {row['measured']:.6g} measured, {row['bound']:.6g} proved"
        for row in rows
    )
    return document(draw, title=title, description=words)


def main() -> None:
    """Run all precisions."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--function", choices=sorted(BUILT_IN), default="sin")
    parser.add_argument("--plot", type=Path, help="write a drawing, as SVG")
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    arguments = parser.parse_args()
    rows = [measure(arguments.function, eps) for eps in PRECISIONS + FINER]
    if any(row["measured"] > row["bound"] for row in rows):
        raise AssertionError("an error is above its proved bound")
    if arguments.plot is not None:
        arguments.plot.write_text(drawing(arguments.function, rows), encoding="utf-8")
    if arguments.json:
        print(json.dumps({"cases": rows, "promptlimits": promptlimits.__version__}))
        return
    print("| eps | prompt tokens | proved | measured | seconds |\n|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['eps']:g} | {row['prompt_tokens']:,} | {row['bound']:.6g} "
            f"| {row['measured']:.6g} | {row['seconds']:.2f} |"
        )


if __name__ == "__main__":
    main()
