"""How far Lipschitz bounds lie above the largest Jacobian norm that a search finds.

    python benchmarks/lipschitz_gaps.py            d = 8 and 32, some minutes on 2 cores
    python benchmarks/lipschitz_gaps.py --quick    d = 8, one seed, a minute
    python benchmarks/lipschitz_gaps.py --full     d = 8, 32 and 64, five seeds, a long search
    python benchmarks/lipschitz_gaps.py --json     JSON on standard output

Random transformers of the paper (no normalisation, biases, every second one masked), n = 16
tokens of norm at most r, r = 1 and sqrt(d). A cell is log10(bound) - log10(found), median
[least, greatest] over widths, heads and seeds; bound and search have the same norm and domain.
A gap holds the slack of the bound and what the search missed. A negative one would be an error.
The mean-field constants are for transformers without a mask.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction

import numpy as np
import torch

import promptlimits
from promptlimits.lipschitz.ascent import Norm, singular_directions
from promptlimits.lipschitz.ellipsoid.certificate import ellipsoid_bound
from promptlimits.lipschitz.estimate import largest_jacobian_norm
from promptlimits.lipschitz.paper.compose import composed_bound
from promptlimits.nets.paper.transformer import from_weights
from promptlimits.nets.paper.weights import TransformerWeights, random_weights

TOKENS = 16
PROMPT = 12
DEPTHS = (1, 2, 4)
HEADS = (1, 4)
METHODS = (
    "published-frobenius",
    "published-meanfield",
    "frobenius",
    "token",
    "token-prompt",
    "ellipsoid",
    "ellipsoid-prompt",
)


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What a run covers.

    Attributes:
        dims: Widths.
        seeds: Transformers of each shape.
        starts: Points each search begins with.
        steps: Steps of each search.
        ellipsoid: Effort of the ellipsoid bound.
    """

    dims: tuple[int, ...]
    seeds: int
    starts: int
    steps: int
    ellipsoid: str


QUICK = Effort(dims=(8,), seeds=1, starts=14, steps=60, ellipsoid="quick")
USUAL = Effort(dims=(8, 32), seeds=1, starts=14, steps=60, ellipsoid="quick")
FULL = Effort(dims=(8, 32, 64), seeds=5, starts=56, steps=400, ellipsoid="full")


@dataclass(frozen=True, kw_only=True)
class Gap:
    """One bound against one search.

    Attributes:
        method: The bound.
        layers: Depth.
        dim: d.
        heads: h.
        masked: Whether attention is causal.
        radius: "1" or "sqrt(d)".
        seed: Of the weights and of the search.
        found_log10: log10 of the largest norm found.
        bound_log10: log10 of the bound, rounded up.
        gap: Their difference.
    """

    method: str
    layers: int
    dim: int
    heads: int
    masked: bool
    radius: str
    seed: int
    found_log10: float
    bound_log10: float
    gap: float


def exact_radius(name: str, dim: int) -> Fraction:
    """The radius as the exact number that both sides use."""
    return Fraction(1) if name == "1" else Fraction(math.sqrt(dim))


def found_log10(
    weights: TransformerWeights,
    radius: Fraction,
    norm: Norm,
    prompt: bool,
    effort: Effort,
    seed: int,
) -> float:
    """Logarithm of the largest Jacobian norm found."""
    found = largest_jacobian_norm(
        from_weights(weights),
        dim=weights.dim,
        tokens=TOKENS,
        radius=float(radius),
        norm=norm,
        perturbed=slice(0, PROMPT) if prompt else None,
        read=slice(PROMPT, None) if prompt else None,
        generator=torch.Generator().manual_seed(seed),
        aligned=singular_directions(weights),
        starts=effort.starts,
        steps=effort.steps,
    )
    return math.log10(found.value)


def bound_log10(
    weights: TransformerWeights, radius: Fraction, method: str, effort: Effort
) -> float:
    """Logarithm of a bound, rounded up."""
    if method.startswith("ellipsoid"):
        only = method == "ellipsoid-prompt"
        proved = ellipsoid_bound(weights, radius=radius, prompt_only=only, effort=effort.ellipsoid)
        return proved.bound.upper_log10()
    return composed_bound(weights, radius=radius, method=method, tokens=TOKENS).bound.upper_log10()


def gaps_of(
    weights: TransformerWeights, shape: dict[str, int], radius_name: str, effort: Effort
) -> Iterator[Gap]:
    """Every method on one transformer."""
    radius = exact_radius(radius_name, weights.dim)
    searched: dict[tuple[Norm, bool], float] = {}
    for method in METHODS:
        if method == "published-meanfield" and weights.masked:
            continue
        by_sum = method in ("published-frobenius", "published-meanfield", "frobenius")
        domain: tuple[Norm, bool] = ("frobenius" if by_sum else "token", method.endswith("prompt"))
        if domain not in searched:
            searched[domain] = found_log10(weights, radius, *domain, effort, shape["seed"])
        bound = bound_log10(weights, radius, method, effort)
        yield Gap(
            method=method,
            **shape,
            masked=weights.masked,
            radius=radius_name,
            found_log10=searched[domain],
            bound_log10=bound,
            gap=bound - searched[domain],
        )


def all_gaps(effort: Effort) -> Iterator[Gap]:
    """Every transformer; progress goes to standard error."""
    number = 0
    for layers in DEPTHS:
        for dim in effort.dims:
            for heads in HEADS:
                for seed in range(effort.seeds):
                    for radius in ("1", "sqrt(d)"):
                        weights = random_weights(
                            dim=dim,
                            heads=heads,
                            head_dim=dim // heads,
                            hidden=2 * dim,
                            layers=layers,
                            generator=np.random.default_rng([layers, dim, heads, seed]),
                            masked=(number // 2 + seed) % 2 == 1,
                            biases=True,
                        )
                        number += 1
                        print(
                            f"{layers} layers, d = {dim}, h = {heads}, r = {radius}",
                            file=sys.stderr,
                        )
                        shape = {"layers": layers, "dim": dim, "heads": heads, "seed": seed}
                        yield from gaps_of(weights, shape, radius, effort)


def table(gaps: list[Gap]) -> list[str]:
    """Rows of depth and radius, a column for each method."""
    cells: dict[tuple[int, str, str], list[float]] = defaultdict(list)
    for one in gaps:
        cells[one.layers, one.radius, one.method].append(one.gap)
    lines = ["| layers, r | " + " | ".join(METHODS) + " |", "|---" * (len(METHODS) + 1) + "|"]
    for layers in DEPTHS:
        for radius in ("1", "sqrt(d)"):
            row = [f"{layers}, {radius}"]
            for method in METHODS:
                values = cells[layers, radius, method]
                row.append(
                    f"{statistics.median(values):.3g} [{min(values):.3g}, {max(values):.3g}]"
                    if values
                    else "none"
                )
            lines.append("| " + " | ".join(row) + " |")
    return lines


def main() -> None:
    """Run every case and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="d = 8 only")
    size.add_argument("--full", action="store_true", help="d up to 64, five seeds, long searches")
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    options = parser.parse_args()
    effort = QUICK if options.quick else FULL if options.full else USUAL
    began = time.perf_counter()
    gaps = list(all_gaps(effort))
    if options.json:
        record = {
            "versions": {
                "promptlimits": promptlimits.__version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "threads": torch.get_num_threads(),
            "seconds": time.perf_counter() - began,
            "effort": asdict(effort),
            "gaps": [asdict(gap) for gap in gaps],
        }
        print(json.dumps(record, indent=1))
        return
    print("\n".join(table(gaps)))
    least = min(gaps, key=lambda gap: gap.gap)
    print(f"{len(gaps)} comparisons, least gap {least.gap:.3f} ({least.method})")


if __name__ == "__main__":
    main()
