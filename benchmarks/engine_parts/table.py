"""The figures of a run as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Lines of every part that was run.

    Args:
        found: What the parts returned, by their names in the JSON.

    Yields:
        A table of the cases, then a block for each other part.
    """
    if "cases" in found:
        yield from _cases(found["cases"])
    for part, entry in found.items():
        if part == "growth":
            yield from _growth(entry)
        elif part != "cases":
            yield ""
            yield part
            yield from _entry(entry, indent=2)


def _cases(cases: list[dict[str, Any]]) -> Iterator[str]:
    yield (
        "model    (pairs, prompt tokens, tokens)    PEFT ms     ms   times as fast"
        "   PEFT FLOPs   share of matmul rate     usual   of peak   done/exact   gradient gap"
    )
    for case in cases:
        sizes = f"({case['pairs']}, {case['prompt_tokens']}, {case['tokens']})"
        yield (
            f"{case['model']:<9}{sizes:<33}{1e3 * case['peft_seconds']:8.0f}"
            f"{1e3 * case['seconds']:8.1f}{case['ratio_to_peft']:14.1f}"
            f"{case['flop_ratio']:13.1f}{case['roofline_share']:21.2f}"
            f"{case['roofline_share_of_usual']:10.2f}{case['roofline_share_of_peak']:10.2f}"
            f"{case['executed_over_exact']:13.2f}{case['relative_gradient_gap']:15.1e}"
        )


def _growth(entry: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield "growth: ms of a step; the line's R^2; slope on logarithmic axes"
    for size, row in entry.items():
        points = "  ".join(f"{n}: {ms:.1f}" for n, ms in zip(row["sizes"], row["ms"], strict=True))
        fit = f"R^2 {row['r_squared']:.4f}  slope {row['log_log_slope']:.2f}"
        yield f"  {size:<14}{fit}   {points}"


def _entry(entry: Any, *, indent: int) -> Iterator[str]:
    """A nested entry, one line for each number; a list of entries one line for each."""
    margin = " " * indent
    for name, value in entry.items():
        if isinstance(value, dict):
            yield f"{margin}{name}"
            yield from _entry(value, indent=indent + 2)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield f"{margin}{name}"
            yield from (margin + "  " + _row(one) for one in value)
        else:
            yield f"{margin}{name}: {_number(value)}"


def _row(entry: dict[str, Any]) -> str:
    return "  ".join(f"{name} {_number(value)}" for name, value in entry.items())


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
