"""What share of random subspaces holds an accessible tuple, around the dimension kd - R.

    python benchmarks/random_subspaces.py            200 subspaces a cell, about three minutes
    python benchmarks/random_subspaces.py --quick    40 subspaces a cell
    python benchmarks/random_subspaces.py --json     JSON on standard output

The theorem: almost every subspace of (R^d)^k of dimension kd - R - 1 or less holds no tuple
(u_j - x_0)_j that a prompt reaches, R the sum of the value ranks plus h.
One dimension more, and some are met: the count is sharp. Each cell has one random layer and its
queries for each subspace. A subspace counts as met where Gauss-Newton in (A, log Z), from many
starts, ends at a tuple that lies in it to 1e-9 with moderate log Z, so that no limit at
infinity counts. What is not found may still be met: shares are found, and so lower limits.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

from promptlimits.lab.one_layer.reachable import reach
from promptlimits.lab.one_layer.setting import (
    Floats,
    Statistics,
    query_statistics,
    shared_query,
    value_maps,
)
from promptlimits.nets.paper.weights import random_weights

CELLS = ((4, 1, 4, 2), (4, 2, 2, 2), (3, 1, 2, 2))
"""(d, h, rank, k)."""

_STARTS = 12
_STEPS = 25
_FAR = 12.0
"""|log Z - log Z_1| above this counts as infinity."""


def share_met(
    dim: int, heads: int, rank: int, queries: int, extra: int, *, count: int, seed: int = 0
) -> float:
    """Share of random subspaces of dimension kd - R + extra in which a tuple was found."""
    met = 0
    for number in range(count):
        generator = np.random.default_rng([dim, heads, rank, queries, extra + 10, seed, number])
        layer = random_weights(
            dim=dim,
            heads=heads,
            head_dim=rank,
            hidden=0,
            layers=1,
            generator=generator,
            masked=False,
            scale=1.5,
        ).layers[0]
        tokens = generator.standard_normal((queries + 1, dim))
        setting = shared_query(layer, tokens[0], list(tokens[1:]))
        size = queries * dim - reach(setting).reachable + extra
        basis = np.linalg.qr(generator.standard_normal((queries * dim, queries * dim)))[0]
        bases = [np.linalg.svd(value)[0][:, :rank] for value in value_maps(layer)]
        met += _is_met(query_statistics(setting), bases, basis[:, size:], generator)
    return met / count


def _is_met(
    known: Statistics, bases: list[Floats], outside: Floats, generator: np.random.Generator
) -> bool:
    """Whether some log Z has a tuple in the subspace, A being solved for."""
    center = known.log_weight.mean(axis=0)
    for _ in range(_STARTS):
        place = generator.uniform(-4, 4, len(center))
        rest, slope = _residual(known, bases, outside, center + place)
        damping = 1e-3
        for _ in range(_STEPS):
            step = np.linalg.solve(
                slope.T @ slope + damping * np.eye(len(place)), -(slope.T @ rest)
            )
            moved = np.clip(place + step, -_FAR, _FAR)
            trial, slopes = _residual(known, bases, outside, center + moved)
            if trial @ trial < rest @ rest:
                place, rest, slope, damping = moved, trial, slopes, damping / 4
            else:
                damping *= 4
                if damping > 1e4:
                    break
        if np.linalg.norm(rest) < 1e-9 and np.abs(place).max() < 0.999 * _FAR:
            return True
    return False


def _residual(
    known: Statistics, bases: list[Floats], outside: Floats, logs: Floats
) -> tuple[Floats, Floats]:
    """What of the best tuple for given log Z sticks out of the subspace, and its slope."""

    def rest(at: Floats) -> Floats:
        share = 1 / (1 + np.exp(at - known.log_weight))  # (k, h)
        fixed = (share[..., None] * known.mean).sum(axis=1).ravel()
        columns = np.concatenate(
            [np.kron((1 - share[:, i])[:, None], basis) for i, basis in enumerate(bases)], axis=1
        )
        matrix, right = outside.T @ columns, outside.T @ fixed
        solved = np.linalg.lstsq(matrix, -right, rcond=1e-9)[0]
        # Relative to the tuple: one that tends to 0 lies in every subspace.
        whole = fixed + columns @ solved
        return np.asarray((matrix @ solved + right) / np.linalg.norm(whole))

    here = rest(logs)
    small = 1e-6
    slope = [(rest(logs + small * axis) - here) / small for axis in np.eye(len(logs))]
    return here, np.stack(slope, axis=1)


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="40 subspaces a cell")
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    options = parser.parse_args()
    count = 40 if options.quick else 200
    found: list[dict[str, Any]] = [
        {"d": d, "h": h, "rank": rank, "k": k, "extra": extra, "subspaces": count}
        | {"met": share_met(d, h, rank, k, extra, count=count)}
        for d, h, rank, k in CELLS
        for extra in (-1, 0, 1)
    ]
    if options.json:
        print(json.dumps(found, indent=1))
        return
    print("(d, h, rank, k)     kd - R - 1   kd - R   kd - R + 1")
    for row in range(0, len(found), 3):
        cell = found[row]
        shares = "".join(f"{each['met']:>10.2f}" for each in found[row : row + 3])
        print(f"({cell['d']}, {cell['h']}, {cell['rank']}, {cell['k']})       {shares}")


if __name__ == "__main__":
    main()
