"""Free parameters of Theorems 2a and 2b, searched in floats: any choice is sound.

They are rounded to 12 bits or so, which costs nothing near an optimum and leaves short exact
numbers in the certificate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Final

from pydantic import Field

from promptlimits.base.errors import UserError
from promptlimits.bounds.core import Inputs, Positive, Share, Size

_NOTHING: Final = math.inf
_BLOCK_GRID: Final = tuple(sorted({max(2, round(2 * 1.5**i)) for i in range(14)}))


class Code(Inputs):
    """Free parameters of Theorem 2b."""

    delta: Positive  # as a multiple of the radius
    alphabet: Annotated[Size, Field(ge=2)]  # A
    theta: Share  # share of blocks that may go astray


class Choice(Code):
    """Free parameters of Theorem 2a."""

    cover_share: Share  # e0 L / delta
    list_size: Size = 1  # kappa


@dataclass(frozen=True, kw_only=True)
class Case:
    """Logarithms of one case: log L, log r, log eps; dimension d, order q."""

    dim: int
    order: float
    log_lipschitz: float
    log_radius: float
    log_eps: float
    rogers: bool
    largest_list: int


def best_choice(case: Case) -> Choice:
    """The best parameters of a coarse grid, refined coordinate by coordinate."""
    lists = {1, case.largest_list, min(case.largest_list, max(1, case.dim // 2))}
    starts = [_coarse(case, kappa) for kappa in sorted(lists)]
    value, found = min(starts, key=lambda pair: pair[0])
    if value == _NOTHING:
        raise UserError(
            "eps",
            "leave room for targets that differ",
            got="one too near half the radius",
            remedy="take a smaller one",
        )
    for step in (0.5, 0.25, 0.1, 0.03, 0.01):
        for _ in range(8):
            moved = [(_log_threshold(case, c), c) for c in _neighbours(found, step)]
            better = min(moved, key=lambda pair: pair[0])
            if not better[0] < value - 1e-9:
                break
            value, found = better
    return found


def _log_threshold(case: Case, choice: Choice) -> float:
    """log K of Theorem 2a at a choice, in floats; infinite where the choice is not allowed."""
    delta = case.log_radius + math.log(choice.delta)
    gain = _log_rate(choice) + _log_blocks(case, choice, delta)
    return _log_cover(case, choice, delta) - gain if gain > -_NOTHING else _NOTHING


def _coarse(case: Case, kappa: int) -> tuple[float, Choice]:
    # Where few points fit, whole numbers of blocks matter; else a coarse start will do.
    deltas = [0.48 * 0.8**i for i in range(20)] if case.dim <= 4 else [0.4, 0.25, 0.1, 0.01]
    thetas = [_short(1 - 0.5 ** (j / 2)) for j in range(1, 16)]
    grid = [
        Choice.model_construct(
            delta=delta,
            # Not _short(1 - x), which is 1 for a small x.
            cover_share=1 - _short(min(0.5, 1 / (case.dim + 1))),
            alphabet=size * kappa,
            theta=theta,
            list_size=kappa,
        )
        for delta in map(_short, deltas)
        for size in (range(2, 16) if case.dim <= 4 else _BLOCK_GRID)
        for theta in thetas
    ]
    return min(((_log_threshold(case, c), c) for c in grid), key=lambda pair: pair[0])


def _neighbours(choice: Choice, step: float) -> list[Choice]:
    changes: list[dict[str, Fraction | int]] = []
    for factor in (1 + step, 1 / (1 + step)):
        size = max(2, round(choice.alphabet * factor))
        changes += [
            {"delta": _short(float(choice.delta) * factor)},
            {"cover_share": 1 - _short(float(1 - choice.cover_share) * factor)},
            {"theta": 1 - _short(float(1 - choice.theta) * factor)},
            {"theta": _short(float(choice.theta) * factor)},
            {"alphabet": size},
            {"alphabet": size, "delta": _short(float(choice.delta) / factor)},
        ]
    changes += [{"alphabet": max(2, choice.alphabet + by)} for by in (-1, 1)]
    found = [choice.model_copy(update=change) for change in changes]
    return [c for c in found if 0 < c.cover_share < 1 and 0 < c.theta < 1 and c.delta > 0]


def _short(value: float) -> Fraction:
    """The value to 12 significant bits."""
    mantissa, exponent = math.frexp(value)
    return Fraction(round(mantissa * 2**12), 2**12) * Fraction(2) ** exponent


def _log_rate(choice: Choice) -> float:
    kept, part = 1 - float(choice.theta), choice.list_size / choice.alphabet
    if kept <= part or kept >= 1:
        return -_NOTHING
    rate = kept * math.log(kept / part) + (1 - kept) * math.log((1 - kept) / (1 - part))
    return math.log(rate) if rate > 0 else -_NOTHING


def _log_blocks(case: Case, choice: Choice, delta: float) -> float:
    spacing = (
        log_add(case.log_eps, delta)
        - math.log(choice.theta) / case.order
        + math.log(2 + 2 / choice.list_size) / 2
    )
    log_points = case.dim * (case.log_radius - spacing)
    if log_points <= 0:
        return -_NOTHING
    if log_points > 40:
        return log_points - math.log(choice.alphabet)
    # Just above a whole number of points the certified count may be one less.
    blocks = math.ceil(math.exp(log_points) * (1 - 1e-9)) // choice.alphabet
    return math.log(blocks) if blocks else -_NOTHING


def _log_cover(case: Case, choice: Choice, delta: float) -> float:
    ratio = math.log(2) + case.log_radius + case.log_lipschitz - delta
    near = ratio - math.log(choice.cover_share)
    if case.rogers:
        log = math.log(case.dim)
        centres = math.log(case.dim * (log + math.log(log) + 5))
        centres += case.dim * log_add(0, near - math.log(2))
    else:
        centres = case.dim * log_add(0, near)
    moved = case.order * (ratio - math.log(1 - choice.cover_share)) - math.log(4)
    return log_add(0, centres) + math.log(1 + log_add(0, moved))


def log_add(first: float, second: float) -> float:
    """log(e^first + e^second)."""
    return max(first, second) + math.log1p(math.exp(-abs(first - second)))
