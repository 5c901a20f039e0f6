"""The share of random targets that some prompt reaches: Theorem 4.7's proportion.

**Claim.** Of all lists of k targets in the ball of radius r, those that some prompt of m_p tokens
brings within eps are a share that falls exponentially in k, at the rate d m log(3 eps/r) a pair.

**What holds.** Theorem 1 (`bounds.prompt_capacity`): the share is at most
(1 + 2 L rho/delta)^(d m_p) ((eps + delta)/r)^(d m k) for every delta > 0, where outputs are
L-Lipschitz in the prompt. Its rate is d m log((eps + delta)/r) at the best delta. The published
proportion is true where 3 L r >= eps and one norm is used throughout. The share is at least
(eps/r)^(d m k) where one list well inside the ball is reached.

**What is measured.** *On the line*, d = m = m_p = 1: the share that a grid of prompts reaches, by
counting cubes, down to 10^-8 (`lab.reached_share`), on many networks; each is held against the
bound with that network's own proved L, at every k where the bound is below 1. There the check
can fail. *In the plane*, d = 2 and m_p = 3: lists of targets each of which some prompt meets,
Levenberg-Marquardt from several starts; the share of lists that one prompt brings within eps, from
below. That is a share of another measure than Theorem 1's volume, and of prompts of any norm: the
theorem says nothing of it.

**Planted control.** In the plane: targets that one known prompt meets.

**What would refute it.** A share whose exact interval lies above the bound.

**Cost.** A network on the line takes half a second; in the plane twelve starts take 0.1 s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from promptlimits.base.files import JsonObject
from promptlimits.experiments.execute import Done, Work
from promptlimits.experiments.networks import Network
from promptlimits.experiments.recipe import Recipe
from promptlimits.experiments.statistics.proportions import exact_interval
from promptlimits.experiments.statistics.slopes import over_problems, with_intercept
from promptlimits.experiments.statistics.success import planted_control
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

Array = NDArray[np.float64]
RADIUS: Final = 1
"""Of targets and prompt tokens."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A network of width 1 and what a grid of prompts reaches."""

    layers: int
    hidden: int
    scale: float
    pairs: int  # 1, ..., pairs
    precisions: tuple[str, ...]  # exact numbers
    prompts: int
    draws: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Random lists and the errors of the best prompts found."""

    dim: int
    prompt_tokens: int
    layers: int
    pairs: int
    planted: bool
    problems: int
    starts: int
    steps: int
    tolerance: float  # training ends there: errors below it are not made smaller
    seed: int


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What is drawn."""

    line: Line  # for seed 0; the others differ in the seed
    networks: int
    plane: Plane  # for k = 1
    most_pairs: int

    def cells(self) -> tuple[Line | Plane, ...]:
        """The plane first: it takes longest."""
        planes = [
            replace(self.plane, pairs=pairs, planted=planted)
            for pairs in range(self.most_pairs, 0, -1)
            for planted in (False, True)
            if not (planted and pairs == 1)
        ]
        return (*planes, *(replace(self.line, seed=seed) for seed in range(self.networks)))


def measure(cell: Line | Plane) -> JsonObject:
    """Counts of one cell."""
    return _measure_line(cell) if isinstance(cell, Line) else _measure_plane(cell)


def _measure_line(cell: Line) -> JsonObject:
    """Draws that count, and logarithms of both bounds, for each eps and k."""
    from promptlimits.base.exact import grid_value
    from promptlimits.bounds.prompt_capacity import PromptCapacity, published_capacity
    from promptlimits.lab.reached_share import LineProblem
    from promptlimits.lab.regression.random_problems import NetworkShape
    from promptlimits.lipschitz.paper.compose import composed_bound
    from promptlimits.nets.paper.transformer import to_weights

    shape = NetworkShape(dim=1, layers=cell.layers, hidden=cell.hidden, scale=cell.scale)
    problem = LineProblem.draw(shape, pairs=cell.pairs, prompts=cell.prompts, seed=cell.seed)
    weights = to_weights(problem.model)
    limit = composed_bound(weights, radius=RADIUS, method="token-prompt").bound

    def row(eps: Fraction, pairs: int) -> dict[str, Any]:
        case = PromptCapacity.model_validate(
            {"dim": 1, "prompt_tokens": 1, "lipschitz": limit, "radius": RADIUS, "eps": eps,
             "pairs": pairs}
        )  # fmt: skip
        published = published_capacity(case).log_share
        return {
            "counted": problem.counted(float(eps), pairs, draws=cell.draws, seed=cell.seed),
            "factor": problem.factor(float(eps), pairs),
            "log_bound": _above(grid_value(min(case.log_shares()))),
            "log_published": None if published is None else _above(grid_value(published)),
            "log_slope": float(case.log_slope()),
        }

    return {
        "log_lipschitz": limit.upper_nats(),
        "shares": {
            text: [row(Fraction(text), k) for k in range(1, cell.pairs + 1)]
            for text in cell.precisions
        },
    }


def _above(value: Fraction) -> float:
    """A float that is no less."""
    return math.nextafter(float(value), math.inf)


def _measure_plane(cell: Plane) -> JsonObject:
    """The least error of each problem."""
    from promptlimits.lab.regression.levenberg_marquardt import LevenbergMarquardt
    from promptlimits.lab.regression.random_problems import ProblemShape, starts_that_solve

    shape = ProblemShape(
        network=Network(dim=cell.dim, heads=1, layers=cell.layers).shape(),
        prompt_tokens=cell.prompt_tokens,
        pairs=cell.pairs,
        planted=cell.planted,
    )
    settings = LevenbergMarquardt(tolerance=cell.tolerance, max_steps=cell.steps)
    found = [
        starts_that_solve(shape, seed=1_000_000 * cell.seed + i, starts=cell.starts,
                          settings=settings)
        for i in range(cell.problems)
    ]  # fmt: skip
    return {"errors": [error if math.isfinite(error) else None for _, error in found]}


@dataclass(frozen=True, kw_only=True, eq=False)
class OnLine:
    """All networks of width 1, at one eps."""

    eps: Fraction
    counted: NDArray[np.int64]  # (networks, k)
    draws: int
    factor: Array  # (k,)
    log_bound: Array  # (networks, k)
    log_published: Array  # (networks, k)
    log_slope: Array  # (networks, k), of the bound

    @property
    def shares(self) -> Array:
        """(networks, k)."""
        found: Array = self.counted / self.draws * self.factor
        return found

    @property
    def sizes(self) -> tuple[int, ...]:
        """k."""
        return tuple(range(1, len(self.factor) + 1))

    @property
    def checks(self) -> tuple[int, int]:
        """Shares proved above the bound by their exact interval, of those with a bound below 1."""
        above, tried = 0, 0
        for network, k in np.argwhere(self.log_bound < 0).tolist():
            low = exact_interval(int(self.counted[network, k]), self.draws, 1 - 1e-9).low or 0.0
            above += bool(low * self.factor[k] > math.exp(self.log_bound[network, k]))
            tried += 1
        return above, tried

    @property
    def reaching(self) -> int:
        """Networks whose prompts reach some targets of the ball at every k."""
        return int((self.counted > 0).all(axis=1).sum())

    def slope(self) -> Interval:
        """Of the logarithm of the share in k, the mean over the networks that reach some."""
        whole = self.shares[(self.counted > 0).all(axis=1)]
        if len(whole) < 2:
            return Interval(
                value=None, low=None, high=None, way="fewer than two networks reach any"
            )
        slopes = with_intercept(self.sizes, np.log(whole))
        return over_problems(lambda i: slopes[i].mean(axis=-1), len(whole))

    def mean(self, values: Array) -> list[Interval]:
        """The mean over networks of (networks, k), with a bootstrap interval for each k."""
        columns = values.T
        return [
            over_problems(lambda i, c=column: c[i].mean(axis=-1), len(column))  # type: ignore[misc]
            for column in columns
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Summary:
    """Both parts."""

    line: tuple[OnLine, ...]
    plane: Plane
    errors: Array  # (k, problems), of targets that can be met alone
    planted: Array  # (k - 1, problems), from k = 2 on
    networks: int

    def share(self, eps: Fraction, pairs: int) -> Interval:
        """Lists in the plane that one prompt brings within eps."""
        row = self.errors[pairs - 1]
        return exact_interval(int((row <= float(eps)).sum()), len(row))


def summary(done: Sequence[Done[Line | Plane]]) -> Summary:
    """Gather the cells."""
    lines = [(e.cell, e.record) for e in done if isinstance(e.cell, Line)]
    planes = [(e.cell, e.record) for e in done if isinstance(e.cell, Plane)]
    first = lines[0][0]

    def on_line(text: str) -> OnLine:
        def table(name: str) -> Array:
            rows = [[row[name] for row in record["shares"][text]] for _, record in lines]
            return np.array(rows, dtype=np.float64)

        return OnLine(
            eps=Fraction(text),
            counted=table("counted").astype(np.int64),
            draws=first.draws,
            factor=table("factor")[0],
            log_bound=table("log_bound"),
            log_published=table("log_published"),
            log_slope=table("log_slope"),
        )

    def errors(planted: bool) -> Array:
        rows = {cell.pairs: r["errors"] for cell, r in planes if cell.planted == planted}
        table = np.array([rows[k] for k in sorted(rows)], dtype=np.float64)
        return np.where(np.isnan(table), np.inf, table)

    return Summary(
        line=tuple(map(on_line, first.precisions)),
        plane=planes[0][0],
        errors=errors(False),
        planted=errors(True),
        networks=len(lines),
    )


def findings(found: Summary) -> Findings:
    """What the shares say."""
    above = sum(each.checks[0] for each in found.line)
    tried = sum(each.checks[1] for each in found.line)
    first = found.line[0]
    control = _control(found)
    return Findings(
        verdict=_verdict(found, above, tried),
        agrees=None if not tried else above == 0,
        measured=Estimated.of(
            f"slope of log share in k on the line, eps = {float(first.eps):g}, mean of the "
            f"{first.reaching} networks that reach some targets at every k",
            first.slope(),
        ),
        proved=tuple(_proved(found)),
        found=(
            Found(name="shares on the line above their bound, where it is below 1", count=above,
                  of=max(1, tried)),
            *(
                Found(
                    name=f"lists of {k} in the plane, each met alone, met by one prompt within "
                    f"{float(eps):g}",
                    count=int((row <= float(eps)).sum()),
                    of=len(row),
                )
                for eps in (each.eps for each in found.line)
                for k, row in enumerate(found.errors, 1)
            ),
        ),
        estimated=tuple(_estimated(found)),
        not_measured=(
            NotMeasured(
                name="the share in the plane that Theorem 1 bounds, that of the ball's volume",
                why="where its bound is below 1 at m_p = 3, the share is too small to count",
            ),
        ),
        control=control,
    )  # fmt: skip


def _proved(found: Summary) -> list[Proved]:
    rows = []
    for each in found.line:
        eps, k = float(each.eps), each.sizes[-1]
        source = "promptlimits: Theorem 1, in place of meyer2025 Theorem 4.7"
        rows += [
            Proved(
                name=f"log share a pair from k = {k} on, line, eps = {eps:g}, any network tried",
                value=float(each.log_slope[:, -1].max()),
                direction="at most",
                source=source,
                assumes="It is the slope of the bound, not of the share.",
            ),
            Proved(
                name=f"mean over networks of the share, line, k = {k}, eps = {eps:g}",
                value=float(np.exp(np.minimum(0, each.log_bound[:, -1])).mean()),
                direction="at most",
                source=source,
                assumes="L is proved from the weights (token-prompt, lipschitz.paper.compose).",
            ),
        ]
    return rows


def _estimated(found: Summary) -> list[Estimated]:
    rows = []
    for each in found.line:
        eps = float(each.eps)
        rows.append(Estimated.of(f"slope of log share in k, line, eps = {eps:g}", each.slope()))
        rows += [
            Estimated.of(f"mean share, line, k = {k}, eps = {eps:g}", mean)
            for k, mean in zip(each.sizes, each.mean(each.shares), strict=True)
        ]
        rows += [
            Estimated.of(f"share in the plane from below, k = {k}, eps = {eps:g}",
                         found.share(each.eps, k))
            for k in range(1, len(found.errors) + 1)
        ]  # fmt: skip
    return rows


def _control(found: Summary) -> Control:
    solved = found.planted <= found.plane.tolerance
    meaning = (
        "Share of lists met within the smallest eps that one known prompt meets exactly, from "
        "starts that do not know it."
    )
    return planted_control("planted targets in the plane", solved.tolist(), meaning)


def _verdict(found: Summary, above: int, tried: int) -> str:
    first = found.line[0]
    slope, eps = first.slope(), float(first.eps)
    means = [mean.value or 0.0 for mean in first.mean(first.shares)]
    bound = np.exp(np.minimum(0, first.log_bound)).mean(axis=0)
    published = np.exp(np.minimum(0, first.log_published)).mean(axis=0)
    return (
        f"On the line, eps = {eps:g}, the share falls from {means[0]:.2g} at k = 1 to "
        f"{means[-1]:.2g} at k = {first.sizes[-1]}; its logarithm changes by {slope.in_words} a "
        f"pair; log(eps/r) is {math.log(eps):.2f}, Theorem 1's rate "
        f"there {first.log_slope[:, -1].mean():.2f}, the published one {math.log(3 * eps):.2f}. "
        f"At k = {first.sizes[-1]} Theorem 1 allows {bound[-1]:.2g}, the published proportion "
        f"{published[-1]:.2g}. Of {tried:,} shares whose bound is below 1, {above:,} lie above it. "
        f"In the plane, of lists whose targets can be met alone, one prompt of "
        f"{found.plane.prompt_tokens} tokens met {found.share(first.eps, 2).value:.2f} of those of "
        f"2 and {found.share(first.eps, len(found.errors)).value:.2f} of those of "
        f"{len(found.errors)} within {eps:g} (from below)."
    )


def drawings(found: Summary) -> Mapping[str, Drawing]:
    """Shares on the line for each eps, and in the plane."""
    drawn: dict[str, Drawing] = {
        f"line-{number}": _line_figure(each, found.networks)
        for number, each in enumerate(found.line, 1)
    }
    return drawn | {"plane": _plane_figure(found)}


def _line_figure(each: OnLine, networks: int) -> Curves:
    means, eps = each.mean(each.shares), float(each.eps)

    def limited(logs: Array) -> list[float]:
        mean: list[float] = np.exp(np.minimum(0, logs)).mean(axis=0).tolist()
        return mean

    return Curves(
        name=f"Share of targets reached: d = m_p = 1, eps = {eps:g}, {networks} networks",
        below="k",
        beside="share, mean over networks",
        whole=True,
        log_scale=True,
        curves=(
            Curve.of("measured", "estimated", each.sizes, means),
            Curve(name="Theorem 1", sort="proved", across=each.sizes,
                  up=limited(each.log_bound), marks=False),
            Curve(name="as published", sort="published", across=each.sizes,
                  up=limited(each.log_published), marks=False),
        ),
    )  # fmt: skip


def _plane_figure(found: Summary) -> Curves:
    sizes = tuple(range(1, len(found.errors) + 1))
    plane = found.plane
    curves = [
        Curve.of(
            f"eps = {float(each.eps):g}",
            "found",
            sizes,
            [found.share(each.eps, k) for k in sizes],
        )
        for each in found.line
    ]
    planted = (found.planted <= plane.tolerance).mean(axis=1).tolist()
    curves.append(Curve(name="planted", sort="estimated", across=sizes[1:], up=planted))
    return Curves(
        name=f"Lists met by one prompt: d = {plane.dim}, m_p = {plane.prompt_tokens}, from below",
        below="k",
        beside="share of lists, each target met alone",
        whole=True,
        log_scale=True,
        curves=curves,
    )


_QUICK: Final = Spec(
    line=Line(
        layers=2, hidden=4, scale=0.5, pairs=6, precisions=("1/10", "1/5"), prompts=201,
        draws=4000, seed=0,
    ),
    networks=24,
    plane=Plane(
        dim=2, prompt_tokens=3, layers=2, pairs=1, planted=False, problems=24, starts=12,
        steps=60, tolerance=0.1, seed=0,
    ),
    most_pairs=6,
)  # fmt: skip
_FULL: Final = replace(
    _QUICK,
    line=replace(_QUICK.line, prompts=801, draws=100_000, precisions=("1/20", "1/10", "1/5")),
    networks=200,
    plane=replace(_QUICK.plane, problems=1000, starts=48, steps=100, tolerance=0.05),
)

RECIPE: Final = Recipe(
    name="accessible-share",
    claim="The share of target lists that some prompt reaches falls exponentially in their length.",
    paper="2509.00421, Definition 4.4 and Theorem 4.7",
    published="at most [(3 L r/eps)^(m_p) / (r/(3 eps))^(m k)]^d",
    holds="at most (1 + 2 L rho/delta)^(d m_p) ((eps + delta)/r)^(d m k), for every delta > 0; the "
    "published proportion where 3 L r >= eps, in one norm.",
    varied="pairs k, eps, networks; width 1 with one token, width 2 with three",
    specs={"quick": _QUICK, "full": _FULL},
    seconds={"quick": 60, "full": 30_000},
    work=Work(name="accessible-share", engine=1, measure=measure),
    summary=summary,
    findings=findings,
    drawings=drawings,
)
