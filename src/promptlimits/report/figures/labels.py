"""Where labels of a drawing go, so that none covers another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from promptlimits.report.wording import count

_LABEL_GAP: Final = 0.062


def spread(heights: Sequence[float], *, gap: float = _LABEL_GAP) -> tuple[float, ...]:
    """Heights moved as little as needed to stand at least a gap apart."""
    clusters: list[list[float]] = []
    for height in heights:
        clusters.append([height])
        while len(clusters) > 1 and _first(clusters[-1], gap) - _last(clusters[-2], gap) < gap:
            clusters[-2:] = [clusters[-2] + clusters[-1]]
    return tuple(_first(each, gap) + i * gap for each in clusters for i in range(len(each)))


def _first(cluster: Sequence[float], gap: float) -> float:
    return math.fsum(cluster) / len(cluster) - gap * (len(cluster) - 1) / 2


def _last(cluster: Sequence[float], gap: float) -> float:
    return _first(cluster, gap) + gap * (len(cluster) - 1)


def thinned(places: Sequence[float], *, gap: float) -> tuple[int, ...]:
    """Indices of places at least a gap apart; the first stays, and the last where there is room."""
    kept = [0]
    for index in range(1, len(places)):
        if places[index] - places[kept[-1]] >= gap:
            kept.append(index)
    if len(kept) > 1:
        kept[-1] = len(places) - 1
    return tuple(kept)


def short_count(number: int) -> str:
    """A number of pairs for an axis: 0, 10, 1,000, 100k, 10M."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if number >= size:
            return f"{number // min(size, 10**3 if letter == 'k' else size)}{letter}"
    return count(number)
