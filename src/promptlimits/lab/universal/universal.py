"""Any Lipschitz map by a prompt alone: the map in its own units, its network, its prompt.

A map on a cube, with values in an interval, is carried to the class on [0,1]^(d x m) by one
scale for its inputs and one for its values; its precision and its constant are carried along
exactly. Two maps of one class get equal networks, bit for bit: only the prompt differs.

`measure_error` is the largest error that a search finds, where the proved limit holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from promptlimits.base.bound import (
    PRECISION_BITS,
    Exact,
    LogBound,
    log_ball,
    require_exact_positive,
    short,
)
from promptlimits.base.errors import UserError
from promptlimits.base.exact import working_precision
from promptlimits.lab.universal.universal_bound import SOURCE, ZETA, FunctionClass, as_float_above
from promptlimits.lab.universal.value_table import (
    MOST_BYTES,
    Progress,
    TableNetwork,
    answers,
    cell_middles,
    table_network,
)
from promptlimits.nets.paper.weights import Array

RealFunction: TypeAlias = Callable[[Array], Array]
"""From inputs (B, d, m) to values of the same shape."""

_ROUNDING: Final = 1e-9
_CELLS_AT_ONCE: Final = 2**16
_UNIT_ROUNDINGS: Final = Fraction(1, 2**48)
"""Share of a number that the few roundings of carrying it to the unit cube and back may take."""

_LARGEST: Final = Fraction(10) ** 300
_PAIRS: Final = 64
_PAIR_NUMBERS: Final = 2**20


@dataclass(frozen=True, kw_only=True)
class RealMap:
    """A map of (d, m) matrices whose entries lie in [low, low + side], in its own units.

    Attributes:
        name: What messages call it.
        function: From inputs (B, d, m) to values of that shape.
        lipschitz: L, in an entrywise norm: ||f(X) - f(X')|| <= L ||X - X'||.
        low: Least entry of an input.
        side: Length of the interval of inputs.
        base: Least value.
        height: Length of the interval of values.
        dim: d.
        tokens: m.
        exponent: p of the norm; None for the largest entry.

    Raises:
        UserError: A number is out of range.
        TypeError: A quantity is a float.
    """

    name: str
    function: RealFunction
    lipschitz: Exact
    low: Exact = 0
    side: Exact = 1
    base: Exact = 0
    height: Exact = 1
    dim: int = 1
    tokens: int = 1
    exponent: Exact | None = None

    def __post_init__(self) -> None:
        for name in ("lipschitz", "side", "height"):
            require_exact_positive(name, getattr(self, name))
        for name in ("low", "base"):
            if not isinstance(getattr(self, name), int | Fraction):
                raise TypeError(f"{name} must be an int or a Fraction, which are exact")
        for name in ("low", "base", "side", "height"):
            number = abs(getattr(self, name))
            if number > _LARGEST or (name in ("side", "height") and number < 1 / _LARGEST):
                raise UserError(
                    f"{self.name}: {name}",
                    "be of a size from 1e-300 to 1e300",
                    got=short(number),
                    remedy="measure in other units",
                )

    def rounding(self) -> Fraction:
        """Upper limit on what float64 adds by carrying inputs and values to the unit cube and back.

        Inputs are off by a few parts in 2^53 of |low| + side, which the map stretches by L;
        values by as little of |base| + height.
        """
        inputs = Fraction(self.lipschitz) * (abs(Fraction(self.low)) + Fraction(self.side))
        values = abs(Fraction(self.base)) + Fraction(self.height)
        ones = 1 if self.exponent is None else self.dim * self.tokens
        return ones * _UNIT_ROUNDINGS * (inputs + values)

    def function_class(self, eps: Exact) -> FunctionClass:
        """The class on the unit cube that holds the map once it is rescaled.

        Args:
            eps: The error allowed, in the map's own units.

        Returns:
            The class.

        Raises:
            UserError: Roundings of float64 alone may reach eps.
        """
        require_exact_positive("eps", eps)
        left = Fraction(eps) - self.rounding()
        if left <= 0:
            raise UserError(
                "eps",
                "be above what float64 resolves",
                got=f"{short(eps)}; rounding may cost {short(self.rounding())}",
                remedy="raise eps, or shift inputs and values next to 0",
            )
        return FunctionClass(
            dim=self.dim,
            tokens=self.tokens,
            lipschitz=Fraction(self.lipschitz) * Fraction(self.side) / Fraction(self.height),
            eps=left / Fraction(self.height),
            exponent=self.exponent,
        )

    def inputs(self, unit: Array) -> Array:
        """Points of the unit cube in the map's own units."""
        moved: Array = float(self.low) + float(self.side) * unit
        return moved

    def unit_values(self, unit: Array) -> Array:
        """Values at points of the unit cube, rescaled to [0, 1].

        Args:
            unit: Points, (B, d, m).

        Returns:
            Values of that shape.

        Raises:
            UserError: A value is no number, or outside of the interval.
        """
        inputs = self.inputs(unit)
        values = _as_numbers(self.name, self.function(inputs))
        if values.shape != inputs.shape:
            raise UserError(
                self.name,
                "return values of the shape of its inputs",
                got=f"{values.shape} for {inputs.shape}",
                remedy="take and return arrays (B, d, m)",
            )
        scaled: Array = (values - float(self.base)) / float(self.height)
        inside = (scaled >= -_ROUNDING) & (scaled <= 1 + _ROUNDING)
        if not inside.all():
            where = np.argwhere(~inside.all(axis=(1, 2)))[0, 0]
            low = float(self.base)
            raise UserError(
                self.name,
                f"have values from {low:g} to {low + float(self.height):g}",
                got=f"{written(values[where])} at {written(inputs[where])}",
                remedy="give the interval of its values",
            )
        return np.clip(scaled, 0, 1)


def _as_numbers(name: str, values: object) -> Array:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(
            name,
            "return arrays of numbers",
            got=type(values).__name__,
            remedy="take and return arrays (B, d, m)",
        ) from error


def _elementary(name: str, function: RealFunction, end: float, lipschitz: int) -> RealMap:
    span = Fraction(end)
    signed = name in ("sin", "cos")
    return RealMap(
        name=name,
        function=function,
        lipschitz=lipschitz,
        low=-span,
        side=2 * span,
        base=-1 if signed else 0,
        height=2 if signed else 1,
    )


BUILT_IN: Final = {
    "sin": _elementary("sin", np.sin, math.pi, 1),
    "cos": _elementary("cos", np.cos, math.pi, 1),
    "abs": _elementary("abs", np.abs, 1.0, 1),
    "square": _elementary("square", np.square, 1.0, 2),
}
"""Maps that the command line knows by name, with a Lipschitz constant each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class UniversalPrompt:
    """A map answered by a prompt."""

    real_map: RealMap  # the map
    network: TableNetwork  # the network of its class
    prompt: Array  # its prompt, (width, m_p)
    sup_error: LogBound  # proved limit on the error off the exceptional set, in the map's own units

    def answers(self, unit: Array, *, progress: Progress | None = None) -> Array:
        """What the network says behind the prompt, in the map's own units."""
        found = answers(self.network, self.prompt, unit, progress=progress)
        scaled: Array = float(self.real_map.base) + float(self.real_map.height) * found
        return scaled


def universal_prompt(
    real_map: RealMap,
    eps: Exact,
    *,
    ramp: Fraction | None = None,
    most_bytes: int = MOST_BYTES,
) -> UniversalPrompt:
    """Build the network of a map's class and the map's prompt.

    Args:
        real_map: The map; it is evaluated at the middles of the cells, and its values there and at
            some other pairs of points are checked against its constant.
        eps: The error allowed, in its own units.
        ramp: eta, for the unit cube.
        most_bytes: Memory that the prompt may take.

    Returns:
        The network, the prompt and what is proved.

    Raises:
        UserError: Two values violate the Lipschitz constant, a value is out of its interval, or
            the prompt does not fit.
    """
    network = table_network(real_map.function_class(eps), ramp=ramp, most_bytes=most_bytes)
    cells = network.prompt_tokens // real_map.tokens
    values = np.empty((cells, real_map.dim, real_map.tokens))
    for start in range(0, cells, _CELLS_AT_ONCE):
        stop = min(start + _CELLS_AT_ONCE, cells)
        values[start:stop] = real_map.unit_values(cell_middles(network, start, stop))
    require_lipschitz(network, values, real_map)
    require_lipschitz_elsewhere(real_map)
    return UniversalPrompt(
        real_map=real_map,
        network=network,
        prompt=prompt_of(network, values),
        sup_error=in_own_units(network.bound.sup_error, real_map),
    )


def prompt_of(network: TableNetwork, values: Array) -> Array:
    """The prompt that holds given values."""
    return network.prompt(values.transpose(1, 0, 2).reshape(network.target.dim, -1))


def in_own_units(bound: LogBound, real_map: RealMap) -> LogBound:
    """A limit for the unit cube as one in the map's own units, with the roundings between them."""
    with working_precision(PRECISION_BITS):
        scaled = (bound.log + log_ball(real_map.height)).exp()
        logarithm = (scaled + log_ball(real_map.rounding()).exp()).log()
    return LogBound(
        direction="upper",
        log=logarithm,
        quantity=bound.quantity,
        source=SOURCE,
        assumptions=bound.assumptions,
    )


def require_lipschitz(network: TableNetwork, values: Array, real_map: RealMap) -> None:
    """Check the values of neighbouring cells against the Lipschitz constant."""
    target, cells = network.target, network.shape.cells
    if cells == 1:
        return
    axes = target.numbers
    table = values.reshape(*([cells] * axes), target.dim, target.tokens)
    allowed = float(Fraction(target.lipschitz) / cells) * (1 + _ROUNDING) + _ROUNDING / cells
    for axis in range(axes):
        steps = entrywise_norm(np.diff(table, axis=axis), target.exponent)
        if steps.size and steps.max() > allowed:
            place = np.unravel_index(int(steps.argmax()), steps.shape)
            other = tuple(k + (number == axis) for number, k in enumerate(place))
            shape = (cells,) * axes
            numbers = [int(np.ravel_multi_index(each, shape)) for each in (place, other)]
            points = [real_map.inputs(cell_middles(network, k, k + 1))[0] for k in numbers]
            raise _not_lipschitz(real_map, points, float(steps.max()) * cells)


def require_lipschitz_elsewhere(real_map: RealMap) -> None:
    """Check values at some pairs of points, near and far: cells alone may be too few to tell."""
    shape = (real_map.dim, real_map.tokens)
    pairs = max(4, min(_PAIRS, _PAIR_NUMBERS // (real_map.dim * real_map.tokens)))
    generator = np.random.default_rng(0)
    first, second = generator.random((2, pairs, *shape))
    first[0], first[1] = 0, 1
    near = slice(pairs // 2)
    second[near] = np.clip(first[near] + (second[near] - 0.5) / 8, 0, 1)
    rises = real_map.unit_values(first) - real_map.unit_values(second)
    rise = entrywise_norm(rises, real_map.exponent)
    run = entrywise_norm(first - second, real_map.exponent)
    slope = Fraction(real_map.lipschitz) * Fraction(real_map.side) / Fraction(real_map.height)
    slack = 2 * float(min(real_map.rounding() / Fraction(real_map.height), _LARGEST))
    excess = rise - slack - float(min(slope, _LARGEST)) * run * (1 + _ROUNDING)
    worst = int(excess.argmax())
    if excess[worst] > 0:
        points = [real_map.inputs(each[worst : worst + 1])[0] for each in (first, second)]
        raise _not_lipschitz(real_map, points, float(rise[worst] / run[worst]))


def _not_lipschitz(real_map: RealMap, points: list[Array], unit_slope: float) -> UserError:
    slope = unit_slope * float(Fraction(real_map.height) / Fraction(real_map.side))
    return UserError(
        real_map.name,
        f"be Lipschitz with constant {float(real_map.lipschitz):.6g}",
        got=f"a slope of {slope:.6g} between {written(points[0])} and {written(points[1])}",
        remedy="give a larger --lipschitz",
    )


def entrywise_norm(matrices: Array, exponent: Exact | None) -> Array:
    """Norm of the last two axes."""
    size = np.abs(matrices)
    largest: Array = size.max(axis=(-2, -1))
    if exponent is None:
        return largest
    power = float(exponent)
    # Relative to the largest entry, so that no power overflows or vanishes.
    scale = np.where(largest > 0, largest, 1)
    shares = (size / scale[..., None, None]) ** power
    summed: Array = scale * shares.sum(axis=(-2, -1)) ** (1 / power)
    return summed


def written(matrix: Array) -> str:
    """A matrix in a message: one number, or tokens one after another."""
    numbers = [f"{x:.6g}" for x in np.asarray(matrix).T.ravel()[:6]]
    more = ", …" if np.size(matrix) > len(numbers) else ""
    return numbers[0] if np.size(matrix) == 1 else f"({', '.join(numbers)}{more})"


def off_ramps(network: TableNetwork, unit: Array) -> NDArray[np.bool_]:
    """Which inputs the bound speaks about: no entry on a ramp of the digits."""
    cells, zeta = network.shape.cells, float(ZETA)
    jump = np.round(unit * cells)
    gap = unit - jump / cells
    ramp = (gap > -(float(network.shape.ramp) + zeta)) & (gap < zeta)
    on = ramp & (jump >= 1) & (jump <= cells - 1)
    kept: NDArray[np.bool_] = np.logical_not(on.any(axis=(1, 2)))
    return kept


@dataclass(frozen=True, kw_only=True)
class MeasuredError:
    """The largest error found, in the map's own units; a search, no proof."""

    largest: float  # the error
    where: tuple[float, ...]  # the input, token after token
    points: int  # inputs tried off the ramps
    left_out: int  # inputs drawn that lie on ramps


def measure_error(
    built: UniversalPrompt,
    *,
    points: int,
    generator: np.random.Generator,
    progress: Progress | None = None,
) -> MeasuredError:
    """Compare the network with the map on a grid, at random inputs and at the edges of cells."""
    unit = probes(built.network, points, generator)
    kept = off_ramps(built.network, unit)
    used = unit[kept]
    real_map = built.real_map
    wanted = np.asarray(real_map.function(real_map.inputs(used)), dtype=np.float64)
    errors = entrywise_norm(
        built.answers(used, progress=progress) - wanted, built.network.target.exponent
    )
    worst = int(errors.argmax())
    proved = as_float_above(built.sup_error)
    if not errors[worst] <= proved:
        raise UserError(
            real_map.name,
            f"be Lipschitz with constant {float(real_map.lipschitz):.6g}, its values in their "
            "interval",
            got=f"an error of {errors[worst]:.6g} at {written(real_map.inputs(used)[worst])}, "
            f"where {proved:.6g} follows from that",
            remedy="give a larger constant",
        )
    return MeasuredError(
        largest=float(errors[worst]),
        where=tuple(float(x) for x in real_map.inputs(used)[worst].T.ravel()),
        points=len(used),
        left_out=int((~kept).sum()),
    )


def probes(network: TableNetwork, points: int, generator: np.random.Generator) -> Array:
    """Inputs where errors are likely large: next to the edges of cells; and inputs anywhere."""
    target, cells = network.target, network.shape.cells
    shape = (points // 2, target.dim, target.tokens)
    corner = generator.integers(0, cells, shape) / cells
    inward = 4 * float(ZETA)
    right = corner + 1 / cells - float(network.shape.ramp) - inward
    edges = np.where(generator.random(shape) < 0.5, corner + inward, right)
    rest = points - points // 2
    if target.numbers == 1:
        anywhere = np.linspace(0, 1, rest).reshape(-1, 1, 1)
    else:
        anywhere = generator.random((rest, target.dim, target.tokens))
    return np.concatenate([edges, anywhere])
