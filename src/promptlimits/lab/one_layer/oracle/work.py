"""How much a search or a proof computes, counted from sizes: no clock decides a result.

A unit is about a microsecond of one core. Costs were fitted to measured times, to a factor of 2;
only how long a run takes hangs on how well they fit, never what it finds: that is a function of
the problem, the seed and the budget.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from promptlimits.lab.one_layer.oracle.problem import Problem

SEARCH: Final = 2.5e6
"""Work of a search for the best statistics."""

PROOF: Final = 4e6
"""Work of a proof whose number of boxes is not given."""

PROMPTS: Final = 2e6
"""Work spent on prompts where not all statistics are some prompt's."""

MOST_BOXES: Final = 40_000
"""Boxes of a proof whose number is not given, however small the problem."""

_FEWEST_BOXES: Final = 64


class Budget:
    """Work that is left: spent by one piece after another, the last one in full.

    Attributes:
        left: What is left; at most 0 once it is used up.
    """

    def __init__(self, work: float) -> None:
        """Start with an amount."""
        self.left = work

    def take(self, cost: float) -> bool:
        """Spend the cost of a piece of work if anything is left."""
        if self.left <= 0:
            return False
        self.left -= cost
        return True


def step_cost(problem: Problem) -> float:
    """Work of one step of the search from one start."""
    return 10 + 0.0125 * _products(problem) + 8e-4 * float(len(problem.blocks)) ** 3


def boxes_of_balls(problems: list[Problem]) -> int:
    """How many boxes a proof in doubles looks at unless told otherwise."""
    cost = sum(
        50 + 0.2 * _products(problem) + 2.2e-3 * float(len(problem.blocks)) ** 3
        for problem in problems
    )
    return _boxes(cost)


def boxes_of_series(queries: int) -> int:
    """How many boxes a proof for one head looks at unless told otherwise."""
    return _boxes(50 + 6.5 * queries**2)


def slab_cost(points: int, numbers: int) -> float:
    """Work of one search for the best prompt of a length."""
    return 0.04 * points * numbers


def training_cost(numbers: int, heads: int, steps: int) -> float:
    """Work of training one prompt."""
    return steps * (200 + 150 * heads + 6 * numbers + 1.2e-4 * float(numbers) ** 3)


def _products(problem: Problem) -> float:
    queries, width = problem.targets.shape
    return float(queries * problem.heads**2 * width)


def _boxes(cost: float) -> int:
    return int(min(max(PROOF // max(cost, 1.0), _FEWEST_BOXES), MOST_BOXES))
