"""A map known by samples only: read from a table, checked, extended by the nearest sample.

**What is proved of it.** Let f be any map that takes the sampled values and is L-Lipschitz on a
cube that holds the samples. The table's entry at the middle C of a cell is the value of the
sample nearest to C, at most h away; so it is within L h of f(C), and the limit of
`universal_bound` holds for f with L h added, h the largest such distance over all middles.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np

from promptlimits.base.bound import PRECISION_BITS, Exact, LogBound, log_ball, working_precision
from promptlimits.base.errors import UserError
from promptlimits.base.files import read_regular
from promptlimits.lab.universal.chunked import Progress
from promptlimits.lab.universal.measured_error import MeasuredError, off_ramps
from promptlimits.lab.universal.universal import (
    RealMap,
    UniversalPrompt,
    entrywise_norm,
    universal_prompt,
    written,
)
from promptlimits.lab.universal.universal_bound import SOURCE, as_float_above
from promptlimits.lab.universal.value_table import MOST_BYTES, cell_middles
from promptlimits.nets.paper.weights import Array
from promptlimits.theory.prompt_setting import require_exact_positive

MOST_SAMPLES: Final = 20_000
"""Samples in more than one dimension: every pair of them is compared."""

_MOST_TABLE_BYTES: Final = 256_000_000
_ROUNDING: Final = 1e-9
_LARGEST: Final = 1e300
_PAIRS_AT_ONCE: Final = 2**22
_TRIES: Final = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Inputs and values of a map.

    Attributes:
        inputs: (n, d, m), in lexicographic order.
        values: (n, d, m).
        name: What messages call it.
    """

    inputs: Array
    values: Array
    name: str


def read_samples(path: Path, *, tokens: int = 1) -> Samples:
    """Samples from a table of comma-separated numbers, one sample a line."""
    try:
        text = read_regular(path, at_most=_MOST_TABLE_BYTES).decode("utf-8-sig")
        cells = csv.reader(io.StringIO(text, newline=""))
        lines = [(number, row) for number, row in enumerate(cells, 1) if any(row)]
    except (OSError, UnicodeError, csv.Error) as error:
        raise UserError(
            "--table",
            "be a file of comma-separated numbers",
            got=f"{path} ({getattr(error, 'strerror', None) or error})",
            remedy="write one sample a line: x,y",
        ) from error
    if lines and not any(map(_is_number, lines[0][1])):
        lines = lines[1:]
    numbers = len(lines[0][1]) // 2 if lines else 0
    if numbers == 0 or numbers % tokens:
        raise UserError(
            str(path),
            f"have an input and a value of {tokens} tokens on each line",
            got=f"{len(lines[0][1])} columns" if lines else "no samples",
            remedy="write one sample a line: x,y",
        )
    rows = [_parsed(path, number, row, 2 * numbers) for number, row in lines]
    return samples_from(rows, tokens=tokens, name=path.name)


def samples_from(rows: list[list[float]] | Array, *, tokens: int = 1, name: str) -> Samples:
    """Samples from rows of 2 d m numbers, sorted, without repetition."""
    table = np.unique(np.asarray(rows, dtype=np.float64), axis=0)
    if np.abs(table).max() > _LARGEST:
        raise UserError(
            name,
            f"hold numbers up to {_LARGEST:g}",
            got=f"{np.abs(table).max():.6g}",
            remedy="measure in other units",
        )
    numbers = table.shape[1] // 2
    shape = (-1, tokens, numbers // tokens)
    inputs = table[:, :numbers].reshape(shape).transpose(0, 2, 1)
    values = table[:, numbers:].reshape(shape).transpose(0, 2, 1)
    if not np.ptp(inputs, axis=0).any():
        raise UserError(
            name,
            "hold samples at two inputs or more",
            got="one",
            remedy="sample the map more often",
        )
    return Samples(inputs=inputs, values=values, name=name)


def largest_slope(
    samples: Samples, exponent: Exact | None = None, *, progress: Progress | None = None
) -> tuple[float, int, int]:
    """The least Lipschitz constant that samples permit, and the pair that shows it."""
    inputs, values = samples.inputs, samples.values
    count = len(inputs)
    if inputs[0].size == 1:  # on a line neighbours suffice
        pairs = _slopes(inputs[1:] - inputs[:-1], values[1:] - values[:-1], exponent)
        worst = int(pairs.argmax())
        return float(pairs[worst]), worst, worst + 1
    if count > MOST_SAMPLES:
        raise UserError(
            samples.name,
            f"hold at most {MOST_SAMPLES:,} samples",
            got=f"{count:,}",
            remedy="thin them out",
        )
    best = (-1.0, 0, 0)
    rows = max(1, _PAIRS_AT_ONCE // (count * inputs[0].size))
    for start in range(0, count, rows):
        block = slice(start, start + rows)
        slopes = _slopes(
            inputs[block, None] - inputs[None, start:],
            values[block, None] - values[None, start:],
            exponent,
        )
        first, second = np.unravel_index(int(slopes.argmax()), slopes.shape)
        if slopes[first, second] > best[0]:
            best = (float(slopes[first, second]), start + int(first), start + int(second))
        if progress is not None:
            progress(min(start + rows, count), count)
    return best


@dataclass(frozen=True, kw_only=True, eq=False)
class SampledPrompt:
    """A sampled map answered by a prompt.

    Attributes:
        built: The network and the prompt.
        samples: The samples.
        slope: The least Lipschitz constant that they permit; found.
        gap: h, the largest distance from the middle of a cell to a sample, in own units.
        sup_error: Proved limit on the error for every L-Lipschitz map through the samples.
    """

    built: UniversalPrompt
    samples: Samples
    slope: float
    gap: float
    sup_error: LogBound

    def measured(self) -> MeasuredError:
        """The largest error at the samples themselves that the bound speaks about."""
        real_map = self.built.real_map
        unit = (self.samples.inputs - float(real_map.low)) / float(real_map.side)
        kept = off_ramps(self.built.network, unit)
        if not kept.any():
            raise UserError(
                self.samples.name,
                "have a sample off the edges of the cells",
                got="none",
                remedy="change eps a little",
            )
        errors = entrywise_norm(
            self.built.answers(unit[kept]) - self.samples.values[kept], real_map.exponent
        )
        worst = int(errors.argmax())
        return MeasuredError(
            largest=float(errors[worst]),
            where=tuple(float(x) for x in self.samples.inputs[kept][worst].T.ravel()),
            points=int(kept.sum()),
            left_out=int((~kept).sum()),
        )


def sampled_prompt(
    samples: Samples,
    eps: Exact,
    *,
    lipschitz: Exact | None = None,
    exponent: Exact | None = None,
    most_bytes: int = MOST_BYTES,
    progress: Progress | None = None,
) -> SampledPrompt:
    """The network and the prompt of a sampled map."""
    require_exact_positive("eps", eps)
    slope, first, second = largest_slope(samples, exponent, progress=progress)
    if math.isinf(slope) or (lipschitz is not None and slope > float(lipschitz) * (1 + _ROUNDING)):
        raise _violated(samples, slope, (first, second), lipschitz)
    constant = _least_constant(slope) if lipschitz is None else Fraction(lipschitz)
    nearest = _Nearest(samples, exponent)
    real_map = _as_map(samples, nearest, constant, exponent)
    best = _with_gap(samples, real_map, nearest, slope, Fraction(eps), most_bytes)
    for _ in range(_TRIES):
        spent = Fraction(best.gap) * constant * Fraction(21, 20)
        if as_float_above(best.sup_error) <= eps or spent >= eps:
            break
        best = _with_gap(samples, real_map, nearest, slope, eps - spent, most_bytes)
    return best


def _with_gap(
    samples: Samples,
    real_map: RealMap,
    nearest: _Nearest,
    slope: float,
    eps: Fraction,
    most_bytes: int,
) -> SampledPrompt:
    """The network for a precision that leaves room for the gaps between samples."""
    # The nearest sample jumps: that is in the gap, so cells are not compared.
    built = universal_prompt(real_map, eps, most_bytes=most_bytes, continuous=False)
    network = built.network
    middles = cell_middles(network, 0, network.prompt_tokens // real_map.tokens)
    gap = math.nextafter(nearest.distance(real_map.inputs(middles)) * (1 + 2**-40), math.inf)
    with working_precision(PRECISION_BITS):
        missed = (log_ball(real_map.lipschitz) + log_ball(Fraction(gap))).exp()
        logarithm = (built.sup_error.log.exp() + missed).log()
    proved = LogBound(
        direction="upper",
        log=logarithm,
        quantity="largest error off the exceptional set, for every map through the samples",
        source=SOURCE,
        assumptions=built.sup_error.assumptions,
    )
    return SampledPrompt(built=built, samples=samples, slope=slope, gap=gap, sup_error=proved)


def _violated(
    samples: Samples, slope: float, pair: tuple[int, int], lipschitz: Exact | None
) -> UserError:
    ends = [f"{written(samples.inputs[k])} -> {written(samples.values[k])}" for k in pair]
    seen = f"a slope of {slope:.6g} from {ends[0]} to {ends[1]}"
    if math.isinf(slope) and not np.array_equal(*(samples.inputs[k] for k in pair)):
        return UserError(
            samples.name,
            "have slopes that float64 holds",
            got=seen,
            remedy="measure in other units",
        )
    if lipschitz is None or math.isinf(slope):
        return UserError(
            samples.name, "have one value for one input", got=seen, remedy="mend the samples"
        )
    return UserError(
        samples.name,
        f"be Lipschitz with constant {float(lipschitz):.6g}",
        got=seen,
        remedy="give a larger --lipschitz",
    )


class _Nearest:
    """The value of the nearest sample."""

    def __init__(self, samples: Samples, exponent: Exact | None) -> None:
        from scipy.spatial import cKDTree

        self._samples = samples
        self._exponent = exponent
        self._power = math.inf if exponent is None else float(exponent)
        self._tree = cKDTree(samples.inputs.reshape(len(samples.inputs), -1))

    def __call__(self, inputs: Array) -> Array:
        _, places = self._tree.query(inputs.reshape(len(inputs), -1), p=self._power)
        found: Array = self._samples.values[places]
        return found

    def distance(self, inputs: Array) -> float:
        """The largest distance from an input to the nearest sample."""
        # Not the tree's own distances: its powers of small numbers vanish.
        _, places = self._tree.query(inputs.reshape(len(inputs), -1), p=self._power)
        steps = inputs - self._samples.inputs[places]
        return float(entrywise_norm(steps, self._exponent).max())


def _as_map(
    samples: Samples, nearest: _Nearest, lipschitz: Fraction, exponent: Exact | None
) -> RealMap:
    inputs, values = samples.inputs, samples.values
    low, base = Fraction(float(inputs.min())), Fraction(float(values.min()))
    side = Fraction(float(inputs.max())) - low
    return RealMap(
        name=samples.name,
        function=nearest,
        lipschitz=lipschitz,
        low=low,
        side=side,
        base=base,
        height=Fraction(float(values.max())) - base or side * lipschitz,
        dim=inputs.shape[1],
        tokens=inputs.shape[2],
        exponent=exponent,
    )


def _least_constant(slope: float) -> Fraction:
    """A constant a little above what was found; 1 for a constant map."""
    return Fraction(slope) * (1 + Fraction(1, 10**9)) if slope else Fraction(1)


def _slopes(steps: Array, rises: Array, exponent: Exact | None) -> Array:
    run, rise = entrywise_norm(steps, exponent), entrywise_norm(rises, exponent)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        slopes: Array = np.where(run > 0, rise / run, np.where(rise > 0, np.inf, 0.0))
    return slopes


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _parsed(path: Path, line: int, row: list[str], columns: int) -> list[float]:
    numbers = [float(text) if _is_number(text) else math.nan for text in row]
    if len(numbers) != columns or not all(map(math.isfinite, numbers)):
        raise UserError(
            f"{path}, line {line}",
            f"hold {columns} finite numbers",
            got=",".join(row)[:80],
            remedy="mend the line",
        )
    return numbers
