"""The largest error that a search finds, next to the proved limit; and where the limit holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promptlimits.base.errors import UserError
from promptlimits.lab.universal.chunked import Progress
from promptlimits.lab.universal.universal import UniversalPrompt, entrywise_norm, written
from promptlimits.lab.universal.universal_bound import ZETA, as_float_above
from promptlimits.lab.universal.value_table import TableNetwork
from promptlimits.nets.paper.weights import Array


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
    """The largest error found, in the map's own units; a search, no proof.

    Attributes:
        largest: The error.
        where: The input, token after token.
        points: Inputs tried off the ramps.
        left_out: Inputs drawn that lie on ramps.
    """

    largest: float
    where: tuple[float, ...]
    points: int
    left_out: int


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
