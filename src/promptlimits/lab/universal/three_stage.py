"""The paper's own route to universality in three stages, exactly, in rational numbers.

After Theorem 1 of [@wang2023] and the network it builds on (quantiser, contextual map, value map
with hard maximum and activations of three pieces). The wording there was not available; what
runs here is derived and checked anew, so its counts are "after" that work.

Columns of a token matrix in Z = [P, X], n = m_p + m, are told apart by adding j to column j
(0-based). With u = (1, 1/delta, .., 1/delta^(d-1)) the *id* of a column is u . column.

1. Quantiser: row a, step k: an entry in [k delta, (k+1) delta) goes to k delta. d n/delta layers.
2. Contextual map: for every id g of the grid, column after column: the column with that id moves
   by delta^-d (largest id - least id) along the first row; a last layer adds
   n delta^(-(n+1)d - 1) times the largest id to all. n delta^-d + 1 layers with attention. Then
   every column's id tells its place and all columns of Z; `build` checks that ids differ.
3. Value map: for each id its column goes to its target. n delta^(-d n) layers.

The prompt is the table of the map on the grid, one block of m columns for each input, entries at
the middles of the quantiser's cells. The target of a query column is read off the block that
belongs to X: one network for every map of the class.

**Sizes that fit**: (d, m, 1/delta) = (1,1,2), (1,1,3), (1,1,4), (1,2,2), (2,1,2). Ids grow like
n^2 delta^(-2(n+1)d - 1): float64 holds those of the first two only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Final, TypeAlias

from promptlimits.base.errors import RunFailed, UserError, require_positive_int

Column: TypeAlias = tuple[Fraction, ...]
Columns: TypeAlias = tuple[Column, ...]
GridMap: TypeAlias = Callable[[Columns], Columns]
"""From m columns of the grid to m columns of the grid."""

MOST_IDS: Final = 100_000
"""Ids, hence layers of the value map, that are computed one by one."""


@dataclass(frozen=True, kw_only=True)
class StageSizes:
    """Counts of the route for one grid."""

    dim: int  # d
    tokens: int  # m
    steps: int  # 1/delta

    def __post_init__(self) -> None:
        for name in ("dim", "tokens", "steps"):
            require_positive_int(name, getattr(self, name))

    @property
    def delta(self) -> Fraction:
        """Side of a cell."""
        return Fraction(1, self.steps)

    @property
    def prompt_tokens(self) -> int:
        """m_p = m delta^(-d m)."""
        return int(self.tokens * self.steps ** (self.dim * self.tokens))

    @property
    def length(self) -> int:
        """Tokens in all, n = m_p + m."""
        return self.prompt_tokens + self.tokens

    @property
    def quantiser_layers(self) -> int:
        """Of stage 1: d n/delta."""
        return self.dim * self.length * self.steps

    @property
    def attention_layers(self) -> int:
        """Of stage 2: n delta^-d + 1."""
        return int(self.length * self.steps**self.dim + 1)

    @property
    def value_layers(self) -> int:
        """Of stage 3: n delta^(-d n)."""
        return int(self.length * self.steps ** (self.dim * self.length))


@dataclass(frozen=True, kw_only=True)
class ThreeStage:
    """The network: its layers as exact numbers."""

    sizes: StageSizes  # the grid
    # Of the quantiser: (row, k delta), in the order of the layers.
    thresholds: tuple[tuple[int, Fraction], ...]
    sweep: tuple[Fraction, ...]  # the ids g of the contextual map, in the order of the layers
    lift: Fraction  # factor of the last layer of the contextual map
    # Of the value map: (id, what is added to its column), in the order of the layers.
    values: tuple[tuple[Fraction, Column], ...]

    def __call__(self, prompt: Columns, queries: Columns) -> Columns:
        """g([P, X])_{:, m_p:}, exactly."""
        columns = placed((*prompt, *queries))
        for row, threshold in self.thresholds:
            columns = tuple(_floored(column, row, threshold, self) for column in columns)
        columns = self.contextual(columns)
        # The value map acts on each column alone, and the prompt's columns are dropped.
        return tuple(map(self._valued, columns[self.sizes.prompt_tokens :]))

    def contextual(self, columns: Columns) -> Columns:
        """The contextual map: attention with a hard maximum, layer by layer."""
        return contextual_map(columns, self.sizes, self.sweep, self.lift)

    def prompt(self, target: GridMap) -> Columns:
        """The prompt of a map: its table on the grid, at the middles of the quantiser's cells."""
        half = self.sizes.delta / 2
        table = [column for inputs in grid_inputs(self.sizes) for column in target(inputs)]
        for entry in (entry for column in table for entry in column):
            if not 0 <= entry < 1 or (entry * self.sizes.steps).denominator != 1:
                raise UserError(
                    "the map",
                    f"have values on the grid of {self.sizes.steps} steps",
                    got=str(entry),
                    remedy="round it with `on_grid`",
                )
        return tuple(tuple(entry + half for entry in column) for column in table)

    def _valued(self, column: Column) -> Column:
        """The value map: every layer in turn."""
        half, steps = self.sizes.delta / 2, self.sizes.steps
        from_id, to_id = column_id(column, steps) - half, column_id(column, steps) + half
        for number, move in self.values:
            if from_id < number <= to_id:  # the id is in [number - delta/2, number + delta/2)
                column = added(column, move)
                from_id, to_id = column_id(column, steps) - half, column_id(column, steps) + half
        return column


def build(sizes: StageSizes) -> ThreeStage:
    """Build the network of a grid; it answers every map of the grid behind that map's prompt."""
    exponent = sizes.dim * sizes.length
    if exponent > 64 or sizes.value_layers > MOST_IDS:
        raise UserError(
            "dim, tokens and 1/delta",
            f"lead to at most {MOST_IDS:,} layers of the value map",
            got=f"{sizes.length} * {sizes.steps}^{exponent}",
            remedy="use the value table; (1,1,2), (1,1,3), (1,1,4), (1,2,2), (2,1,2) fit here",
        )
    thresholds = tuple(
        (row, step * sizes.delta)
        for row in range(sizes.dim)
        for step in range(sizes.length * sizes.steps)
    )
    sweep = _sweep(sizes)
    lift = Fraction(sizes.length * sizes.steps ** ((sizes.length + 1) * sizes.dim + 1))
    values: dict[Fraction, Column] = {}
    for columns in product(grid_columns(sizes), repeat=sizes.length):  # every Z = [P, X]
        mapped = contextual_map(placed(columns), sizes, sweep, lift)
        for before, target in zip(mapped, _targets(columns, sizes), strict=True):
            move = tuple(wanted - entry for wanted, entry in zip(target, before, strict=True))
            if values.setdefault(column_id(before, sizes.steps), move) != move:
                raise RunFailed("two columns got one id", remedy="report this grid")
    if len(values) != sizes.value_layers:
        raise RunFailed("two columns got one id", remedy="report this grid")
    return ThreeStage(
        sizes=sizes,
        thresholds=thresholds,
        sweep=sweep,
        lift=lift,
        values=tuple(sorted(values.items())),
    )


def contextual_map(
    columns: Columns, sizes: StageSizes, sweep: Sequence[Fraction], lift: Fraction
) -> Columns:
    """Selective shifts in the order of the ids, then one shift of all."""
    ids = [column_id(column, sizes.steps) for column in columns]
    moved = list(ids)
    gain, half = sizes.steps**sizes.dim, sizes.delta / 2
    for number in sweep:
        least, largest = min(moved), max(moved)
        # hardmax at g - delta/2 less hardmax at g + delta/2: they differ for ids between only
        moved = [
            each + gain * (largest - least) if number - half < each < number + half else each
            for each in moved
        ]
    largest = max(moved)
    moved = [each + lift * largest for each in moved]
    return tuple(
        (column[0] + after - before, *column[1:])
        for column, before, after in zip(columns, ids, moved, strict=True)
    )


def column_id(column: Column, steps: int) -> Fraction:
    """The id of a column: u . column, u = (1, 1/delta, ..)."""
    return sum((entry * steps**row for row, entry in enumerate(column)), Fraction(0))


def added(column: Column, move: Column) -> Column:
    """The sum of two columns."""
    return tuple(entry + by for entry, by in zip(column, move, strict=True))


def placed(columns: Columns) -> Columns:
    """Add j to every entry of column j."""
    return tuple(tuple(entry + j for entry in column) for j, column in enumerate(columns))


def grid_inputs(sizes: StageSizes) -> Iterator[Columns]:
    """The inputs of the grid, in the order of the blocks of a prompt."""
    yield from product(grid_columns(sizes), repeat=sizes.tokens)


def grid_columns(sizes: StageSizes) -> list[Column]:
    """Every column of the grid."""
    points = [Fraction(k, sizes.steps) for k in range(sizes.steps)]
    return list(product(points, repeat=sizes.dim))


def on_grid(target: Callable[[Columns], Columns], sizes: StageSizes) -> GridMap:
    """A map to [0, 1] with its values rounded down to the grid."""
    last = sizes.steps - 1

    def rounded(inputs: Columns) -> Columns:
        return tuple(
            tuple(Fraction(min(int(entry * sizes.steps), last), sizes.steps) for entry in column)
            for column in target(inputs)
        )

    return rounded


def _floored(column: Column, row: int, threshold: Fraction, network: ThreeStage) -> Column:
    excess = column[row] - threshold
    if not 0 <= excess < network.sizes.delta:
        return column
    return (*column[:row], threshold, *column[row + 1 :])


def _sweep(sizes: StageSizes) -> tuple[Fraction, ...]:
    """Ids of column 0, 1, .., n - 1, rising within each."""
    first = sorted(column_id(column, sizes.steps) for column in grid_columns(sizes))
    base = sum(sizes.steps**row for row in range(sizes.dim))
    return tuple(j * base + number for j in range(sizes.length) for number in first)


def _targets(columns: Columns, sizes: StageSizes) -> Columns:
    """Prompt columns stay; query columns go to the block of the prompt that belongs to X."""
    queries = columns[sizes.prompt_tokens :]
    block = 0
    for entry in (entry for column in queries for entry in column):
        block = block * sizes.steps + int(entry * sizes.steps)
    start = block * sizes.tokens
    return (*columns[: sizes.prompt_tokens], *columns[start : start + sizes.tokens])
