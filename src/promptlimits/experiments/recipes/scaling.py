"""How many pairs a prompt of m_p tokens holds: the scaling law of Theorem 4.7.

**Claim.** A prompt of m_p tokens holds k in O(m_p/m) pairs whose answers have m tokens.

**What holds.** For almost every list of targets no prompt of m_p < m k tokens meets all of them
exactly, whatever its norm (Proposition 1, `bounds.prompt_capacity`). Nothing says that m_p = m k
tokens suffice: they do not, for a part of the lists.

**What is measured.** Random networks of the papers; Levenberg-Marquardt from several random
prompts, side by side; a problem is solved if some start brings the largest error of a pair to
the tolerance. The share of solved problems against k gives k50, and k50 against m_p/m a line. Every
problem has a network, queries and targets of its own, so problems are independent and an exact
interval applies. Starts on one problem are not: how much more they agree than
chance is the correlation of a beta-binomial distribution, near 1 where problems are solvable
or not, near 0 where the optimiser is lucky or not.

**Planted control.** The same networks with targets that one prompt meets. A failure is the
model's only where the control solves more than 95%. For k = 1 each target can be met alone, so the
problem is its own control.

**What would refute it.** k50 that grows faster than m_p/m. Of Proposition 1: many problems with
m k > m_p solved to rounding.

**Cost.** A start takes up to 80 steps of about 3 ms for twelve of them together.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from promptlimits.base.files import JsonObject
from promptlimits.experiments.execute import Done, Work
from promptlimits.experiments.networks import Network
from promptlimits.experiments.recipe import Recipe
from promptlimits.experiments.statistics.proportions import overdispersion, variance_factor
from promptlimits.experiments.statistics.slopes import through_origin, with_intercept
from promptlimits.experiments.statistics.success import K50Lines, SuccessCurve, planted_control
from promptlimits.experiments.statistics.thresholds import threshold
from promptlimits.record.experiment import (
    Control,
    Estimated,
    Findings,
    Found,
    Interval,
    NotMeasured,
    Proved,
)
from promptlimits.report.figures.curves import Curve, Curves
from promptlimits.report.figures.plain_svg import Drawing

Record: TypeAlias = dict[str, Any]
TRUSTED: Final = 0.95
"""Share of planted problems above which failures on other targets are the model's."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Problems of one shape."""

    network: Network
    prompt_tokens: int
    columns: int
    pairs: int
    planted: bool
    block: int  # problems block * problems, ...
    problems: int
    starts: int
    steps: int
    tolerance: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Which problems."""

    networks: tuple[Network, ...]
    prompt_tokens: tuple[int, ...]
    columns: tuple[int, ...]
    beyond: int  # pairs beyond m_p/m that are tried, too
    blocks: int = 1
    problems: int = 24  # of a block
    starts: int = 12
    steps: int = 80
    tolerance: float = 1e-6
    seed: int = 0

    def cells(self) -> tuple[Cell, ...]:
        """The largest first: they take longest."""
        shapes = [
            (network, tokens, columns, pairs)
            for network, tokens, columns in itertools.product(
                self.networks, self.prompt_tokens, self.columns
            )
            for pairs in range(1, tokens // columns + self.beyond + 1)
        ]
        cells = [
            Cell(
                network=network,
                prompt_tokens=tokens,
                columns=columns,
                pairs=pairs,
                planted=planted,
                block=block,
                problems=self.problems,
                starts=self.starts,
                steps=self.steps,
                tolerance=self.tolerance,
                seed=self.seed,
            )
            for network, tokens, columns, pairs in shapes
            for planted in (False, True)
            if not (planted and pairs == 1)
            for block in range(self.blocks)
        ]
        return tuple(sorted(cells, key=lambda c: -c.pairs * c.prompt_tokens * c.network.layers))


def measure(cell: Cell) -> JsonObject:
    """Of each problem, the starts that solve it and the least error."""
    from promptlimits.lab.regression.levenberg_marquardt import LevenbergMarquardt
    from promptlimits.lab.regression.random_problems import ProblemShape, starts_that_solve

    shape = ProblemShape(
        network=cell.network.shape(),
        prompt_tokens=cell.prompt_tokens,
        pairs=cell.pairs,
        columns=cell.columns,
        planted=cell.planted,
    )
    settings = LevenbergMarquardt(tolerance=cell.tolerance, max_steps=cell.steps)
    first = 1_000_000 * cell.seed + cell.block * cell.problems
    found = [
        starts_that_solve(shape, seed=first + i, starts=cell.starts, settings=settings)
        for i in range(cell.problems)
    ]
    return {
        "solving_starts": [solved for solved, _ in found],
        "errors": [error if np.isfinite(error) else None for _, error in found],
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class Length:
    """What was measured of one network shape at one prompt length."""

    network: Network
    prompt_tokens: int
    columns: int
    starts: int
    tolerance: float
    # Starts that solve, of each number of pairs 1, 2, ... and each problem.
    random: NDArray[np.int64]
    planted: NDArray[np.int64]  # the same of planted targets; of one pair the random ones

    @property
    def ratio(self) -> float:
        """m_p/m."""
        return self.prompt_tokens / self.columns

    @property
    def kind(self) -> str:
        """Network and m, for a figure."""
        return f"{self.network.in_words}, m = {self.columns}"

    @property
    def name(self) -> str:
        """Kind and m_p."""
        return f"{self.kind}, m_p = {self.prompt_tokens}"

    @property
    def sizes(self) -> tuple[int, ...]:
        """k."""
        return tuple(range(1, len(self.random) + 1))

    @property
    def curve(self) -> SuccessCurve:
        """Problems that some start solves."""
        return SuccessCurve(sizes=self.sizes, solved=self.random > 0)

    @property
    def agreement(self) -> list[Interval]:
        """How much starts on one problem agree, at each k."""
        return [overdispersion(row.tolist(), self.starts) for row in self.random]

    @property
    def k50_of_a_start(self) -> Interval:
        """Where half of the starts succeed; their agreement makes their number count for less."""
        agreement = max((each.value or 0.0 for each in self.agreement), default=0.0)
        return threshold(
            self.sizes,
            self.random.sum(axis=1),
            self.starts * self.random.shape[1],
            dispersion=variance_factor(agreement, self.starts),
        )

    @property
    def controls(self) -> NDArray[np.float64]:
        """Share of planted problems solved at each k."""
        found: NDArray[np.float64] = (self.planted > 0).mean(axis=1)
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Summary:
    """All lengths, and the lines through their k50."""

    lengths: tuple[Length, ...]
    slope: Interval  # b of k50 = a + b m_p/m, over all
    slopes: Mapping[str, Interval]  # the same of each network and m, by their names
    proportional: Interval  # c of k50 = c m_p/m, over all

    @property
    def beyond(self) -> tuple[int, int]:
        """Problems solved, of those with m k > m_p."""
        pairs = [
            (int((row > 0).sum()), len(row))
            for each in self.lengths
            for k, row in zip(each.sizes, each.random, strict=True)
            if k > each.ratio
        ]
        return sum(s for s, _ in pairs), sum(n for _, n in pairs)


def summary(done: Sequence[Done[Cell]]) -> Summary:
    """Gather the cells and fit the line."""
    groups: dict[tuple[Network, int, int], list[Done[Cell]]] = {}
    for each in done:
        cell = each.cell
        key = (cell.network, cell.prompt_tokens, cell.columns)
        groups.setdefault(key, []).append(each)
    lengths = tuple(_length(cells) for _, cells in sorted(groups.items(), key=_order))
    lines = K50Lines([each.ratio for each in lengths], [each.curve for each in lengths])
    kinds: dict[str, list[int]] = {}
    for place, length in enumerate(lengths):
        kinds.setdefault(length.kind, []).append(place)
    return Summary(
        lengths=lengths,
        slope=lines.slope(with_intercept),
        slopes={name: lines.slope(with_intercept, places) for name, places in kinds.items()},
        proportional=lines.slope(through_origin),
    )


def _order(group: tuple[tuple[Network, int, int], list[Done[Cell]]]) -> tuple[Any, ...]:
    (network, tokens, columns), _ = group
    return (*asdict(network).values(), columns, tokens)


def _length(cells: Sequence[Done[Cell]]) -> Length:
    first = cells[0].cell

    def counts(planted: bool) -> NDArray[np.int64]:
        rows: dict[int, list[int]] = {}
        for each in sorted(cells, key=lambda each: each.cell.block):
            # One pair that can be met is a planted problem.
            if each.cell.planted == planted or (planted and each.cell.pairs == 1):
                rows.setdefault(each.cell.pairs, []).extend(each.record["solving_starts"])
        return np.array([rows[k] for k in sorted(rows)])

    return Length(
        network=first.network,
        prompt_tokens=first.prompt_tokens,
        columns=first.columns,
        starts=first.starts,
        tolerance=first.tolerance,
        random=counts(False),
        planted=counts(True),
    )


def findings(found: Summary) -> Findings:
    """What the curves say."""
    beyond, of = found.beyond
    control = _control(found)
    tolerance = found.lengths[0].tolerance
    ratio = np.array([each.ratio for each in found.lengths])
    estimated = [Estimated.of(f"k50, {each.name}", each.curve.k50) for each in found.lengths]
    estimated += [
        Estimated.of(f"slope of k50 against m_p/m, {name}", slope)
        for name, slope in found.slopes.items()
    ]
    estimated.append(Estimated.of("c of k50 = c m_p/m", found.proportional))
    estimated += [
        Estimated.of(f"k50 of a single start, {each.name}", each.k50_of_a_start)
        for each in found.lengths
    ]
    estimated += [
        Estimated.of(f"agreement of starts on a problem, {each.name}, k = {k}", agreement)
        for each in found.lengths
        for k, agreement in zip(each.sizes, each.agreement, strict=True)
        if k == int(each.ratio)
    ]
    return Findings(
        verdict=_verdict(found, control),
        agrees=_agrees(found),
        measured=Estimated.of("slope of k50 against m_p/m", found.slope),
        proved=(
            Proved(
                name="pairs that almost every list of targets has at most, if it is met exactly, "
                "over m_p/m",
                value=1.0,
                direction="at most",
                source="promptlimits: Proposition 1 (bounds.prompt_capacity)",
                assumes="The outputs are locally Lipschitz in the prompt. It speaks of exact "
                f"access, and not of lists met within {tolerance:g}.",
            ),
        ),
        found=(
            Found(name=f"problems with m k > m_p solved within {tolerance:g}", count=beyond, of=of),
            *(
                Found(
                    name=f"problems with m k = m_p solved within {tolerance:g}, {each.name}",
                    count=each.curve.counts[int(each.ratio) - 1],
                    of=each.curve.problems,
                )
                for each in found.lengths
                if each.ratio >= 1 and each.ratio == int(each.ratio)
            ),
        ),
        estimated=tuple(estimated),
        not_measured=(
            NotMeasured(
                name=f"k50 for m_p/m above {ratio.max():g}",
                why="the line is fitted to the ratios tried, and says nothing beyond them",
            ),
        ),
        control=control,
    )


def _control(found: Summary) -> Control:
    rows = [row > 0 for each in found.lengths for row in each.planted]
    meaning = (
        "Share of problems solved whose targets one known prompt meets, from starts that do not "
        f"know it. Only where it is above {TRUSTED:g} are other failures the model's."
    )
    return planted_control("planted targets", rows, meaning)


def _agrees(found: Summary) -> bool | None:
    """Whether nothing beyond m_p/m was solved where the optimiser would have found it."""
    if found.beyond[0]:
        return False
    controls = [
        control
        for each in found.lengths
        for k, control in zip(each.sizes, each.controls, strict=True)
        if k > each.ratio
    ]
    return True if np.mean(controls) > TRUSTED else None


def _verdict(found: Summary, control: Control) -> str:
    beyond, of = found.beyond
    slope, share = found.slope, control.share
    trusted, tried = _trusted(found)
    ratios = [each.ratio for each in found.lengths]
    words = [
        (
            f"k50 rises by {slope.value:.2f} ({slope.low:.2f} to {slope.high:.2f}, 95%) for each "
            f"unit of m_p/m from {min(ratios):g} to {max(ratios):g}."
        ),
        (
            f"Of {of:,} random problems with m k > m_p, {beyond:,} were solved; Proposition 1 says "
            "that almost none can be, exactly."
        ),
    ]
    if tried:
        words.append(
            f"Up to m k = m_p problems failed at {tried} of the sizes tried; at {trusted} of these "
            f"the planted control is above {TRUSTED:g}, and there the failures are the model's"
            + ("." if trusted == tried else "; at the others the optimiser may be the limit.")
        )
    words.append(
        f"Over all sizes the control solves {control.solved:,} of {control.of:,} "
        f"({share.low:.3f} to {share.high:.3f})."
    )
    words.append(
        {
            True: "So k grows at most like m_p/m here, and m_p = m k tokens do not suffice for "
            "every list.",
            False: "Some problems with m k > m_p were solved, which the claim does not explain.",
            None: "The control is too weak beyond m_p/m to call its failures the model's.",
        }[_agrees(found)]
    )
    return " ".join(words)


def _trusted(found: Summary) -> tuple[int, int]:
    """Sizes up to m_p/m with failures: those with a good control, and all."""
    failed = [
        control > TRUSTED
        for each in found.lengths
        for k, solved, control in zip(each.sizes, each.curve.counts, each.controls, strict=True)
        if k <= each.ratio and solved < each.curve.problems
    ]
    return sum(failed), len(failed)


def drawings(found: Summary) -> Mapping[str, Drawing]:
    """Success against k of each network, and k50 against m_p/m."""
    kinds = [[each for each in found.lengths if each.kind == kind] for kind in found.slopes]
    drawn: dict[str, Drawing] = {
        f"success-{number}": _success(lengths) for number, lengths in enumerate(kinds, 1)
    }
    return drawn | {"k50": _k50(kinds)}


def _success(lengths: Sequence[Length]) -> Curves:
    curves = [
        Curve.of(f"m_p = {each.prompt_tokens}", "found", each.sizes, each.curve.shares)
        for each in lengths
    ]
    sizes = range(1, max(len(each.sizes) for each in lengths) + 1)
    least = [min(e.controls[k - 1] for e in lengths if k in e.sizes) for k in sizes]
    curves.append(Curve(name="planted, least", sort="estimated", across=sizes, up=least))
    return Curves(
        name=f"Problems solved against k: {lengths[0].kind}",
        below="k",
        beside="share of problems solved",
        curves=curves,
        whole=True,
    )


def _k50(kinds: Sequence[Sequence[Length]]) -> Curves:
    curves = [
        Curve.of(
            lengths[0].kind,
            "estimated",
            [each.ratio for each in lengths],
            [each.curve.k50 for each in lengths],
        )
        for lengths in kinds
    ]
    most = max(each.ratio for lengths in kinds for each in lengths)
    curves.append(
        Curve(
            name="m k = m_p",
            sort="proved",
            across=(0.0, most),
            up=(0.0, most),
            marks=False,
        )
    )
    return Curves(name="k50 against m_p/m", below="m_p/m", beside="k50", curves=curves)


_QUICK: Final = Spec(
    networks=(Network(dim=2, heads=1, layers=1), Network(dim=2, heads=1, layers=2)),
    prompt_tokens=(1, 2, 3),
    columns=(1,),
    beyond=1,
)
_FULL: Final = replace(
    _QUICK,
    networks=(
        *(
            Network(dim=dim, heads=dim // 2, layers=layers, masked=masked, activation=activation)
            for dim in (2, 4)
            for layers in (1, 2, 3, 4)
            for masked in (False, True)
            for activation in ("relu", "gelu")
        ),
        *(
            Network(dim=4, heads=2, layers=2, norm=norm)
            for norm in ("layer-pre", "layer-post", "rms-pre", "rms-post")
        ),
    ),
    prompt_tokens=(1, 2, 3, 4, 5, 6),
    columns=(1, 2),
    beyond=2,
    blocks=2,
)

RECIPE: Final = Recipe(
    name="scaling",
    claim="The number of pairs that a prompt holds grows at most like its length over that of an "
    "answer.",
    paper="2509.00421, Theorem 4.7; experiment 1",
    published="k in O(m_p/m)",
    holds="For almost every list of targets no prompt of m_p < m k tokens meets all of them "
    "exactly. That m_p = m k tokens suffice does not hold.",
    varied="pairs k, prompt tokens m_p, answer tokens m, width d, depth, mask, activation, norms",
    specs={"quick": _QUICK, "full": _FULL},
    seconds={"quick": 100, "full": 150_000},
    work=Work(name="scaling", engine=1, measure=measure),
    summary=summary,
    findings=findings,
    drawings=drawings,
)
