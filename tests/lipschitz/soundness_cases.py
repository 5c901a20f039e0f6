"""Adversarial comparisons: many transformers, what a search finds in each, and every bound.

Transformers of one shape are searched together (`tests.reference.batched_transformer`), which
is what makes thousands of comparisons affordable.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

import numpy as np
import torch
from tests.reference.batched_transformer import TransformerStack, trained
from torch import Tensor

from promptlimits.lipschitz.attack.ascent import Domain, Norm, search, towards_outputs
from promptlimits.lipschitz.attack.starts import project, singular_directions, starting_points
from promptlimits.lipschitz.ellipsoid.certificate import EllipsoidBound, ellipsoid_bound
from promptlimits.lipschitz.paper.compose import composed_bound
from promptlimits.nets.paper.weights import TransformerWeights, random_weights

DIM: Final = 4
PROMPT: Final = 4
QUERY: Final = 2
TOKENS: Final = PROMPT + QUERY
STARTS: Final = 7
STEPS: Final = 16
RADII: Final = (Fraction(3, 10), Fraction(1), Fraction(2))
"""0.3, 1 and sqrt(d)."""
SCALES: Final = (0.5, 1.0, 2.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """A transformer, the radius of its tokens, and how it was made."""

    weights: TransformerWeights
    radius: Fraction
    made: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One bound against one search, in nats."""

    method: str
    problem: str
    found: float
    bound: float

    @property
    def gap(self) -> float:
        return (self.bound - self.found) / math.log(10)


def problems(depth: int, heads: int, count: int) -> list[Problem]:
    """Masked and not, with biases, without, without MLP, every radius and scale; half trained."""
    random = np.random.default_rng([depth, heads])
    made = []
    for number in range(count):
        weights = random_weights(
            dim=DIM,
            heads=heads,
            head_dim=DIM if heads == 1 else 2,
            hidden=2 * DIM,
            layers=depth,
            generator=random,
            masked=number % 2 == 0,
            scale=SCALES[number // 2 % 3],
            biases=number % 5 < 3,
        )
        if number % 5 == 4:
            weights = _without_mlp(weights)
        radius = RADII[(number // 6 + number) % 3]
        made.append(Problem(weights=weights, radius=radius, made="random"))
    half = made[count // 2 :]
    radii = torch.tensor([float(problem.radius) for problem in half], dtype=torch.float64)
    learned = trained(
        [problem.weights for problem in half],
        tokens=TOKENS,
        radii=radii,
        steps=40,
        generator=torch.Generator().manual_seed(10 * depth + heads),
    )
    return made[: count // 2] + [
        replace(problem, weights=weights, made="trained")
        for problem, weights in zip(half, learned, strict=True)
    ]


def _without_mlp(weights: TransformerWeights) -> TransformerWeights:
    """The same attention; W_1, W_2 and biases zero, so that shapes stay equal."""
    zeroed = [
        replace(layer, **{name: 0 * getattr(layer, name) for name in ("w1", "b1", "w2", "b2")})
        for layer in weights.layers
    ]
    return TransformerWeights(layers=tuple(zeroed), masked=weights.masked)


def found_norms(group: list[Problem], norm: Norm, perturbed: int, read: int) -> list[float]:
    """Logarithms of the largest Jacobian norms found: the first columns move, the last are read."""
    forward = TransformerStack.of([problem.weights for problem in group])
    generator = torch.Generator().manual_seed(1)
    radius = torch.tensor([float(p.radius) for p in group], dtype=torch.float64)
    starts = [
        starting_points(
            dim=DIM,
            tokens=TOKENS,
            radius=1.0,
            count=STARTS,
            generator=generator,
            aligned=singular_directions(problem.weights),
        )
        for problem in group
    ]
    radii = radius.repeat_interleave(STARTS)[:, None, None]
    points = project(torch.cat(starts) * radii, radii)
    moved = torch.arange(TOKENS) < perturbed
    domain = Domain(radius=radii, norm=norm, moving=torch.ones_like(moved), perturbed=moved)

    def compared(batch: Tensor) -> Tensor:
        return forward(batch)[..., TOKENS - read :]

    directions = towards_outputs(compared, points, domain=domain, generator=generator)
    reached = search(
        compared,
        points,
        directions,
        domain=domain,
        steps=STEPS,
        generator=generator,
        groups=len(group),
    )
    assert bool(reached.values.isfinite().all())
    assert bool((reached.points.norm(dim=1, keepdim=True) <= radii).all())
    return reached.values.reshape(len(group), STARTS).amax(dim=1).log().tolist()


def comparisons(depth: int, heads: int, count: int, ellipsoids: int) -> Iterator[Comparison]:
    """Every bound for transformers of one shape; the costly ellipsoids for some."""
    group = problems(depth, heads, count)
    token = found_norms(group, "token", TOKENS, TOKENS)
    prompt = found_norms(group, "token", PROMPT, QUERY)
    frobenius = found_norms(group, "frobenius", TOKENS, TOKENS)
    query = found_norms(group, "frobenius", TOKENS, QUERY)
    spread = np.linspace(0, count - 1, ellipsoids).astype(int).tolist()
    for number, problem in enumerate(group):
        name = f"{problem.made} {number} of depth {depth}, {heads} heads, radius {problem.radius}"
        bound = functools.partial(composed_bound, problem.weights, radius=problem.radius)
        cases = [
            ("token", token, bound(method="token")),
            ("token-prompt", prompt, bound(method="token-prompt")),
            ("frobenius", frobenius, bound(method="frobenius", tokens=TOKENS)),
            ("frobenius, read", query, bound(method="frobenius", tokens=TOKENS, queries=QUERY)),
            ("published-frobenius", frobenius, bound(method="published-frobenius", tokens=TOKENS)),
        ]
        if not problem.weights.masked:
            # n distinct tokens of weight 1/n: W_2 of a small move is |move|_F / sqrt(n), on
            # both sides of the map, so the Frobenius norm of J limits the W_2 constant below.
            cases += [
                (method, frobenius, bound(method=method))
                for method in ("meanfield", "published-meanfield")
            ]
        if number in spread:
            only = spread.index(number) % 2 == 1
            name_of = "ellipsoid, prompt" if only else "ellipsoid"
            cases.append((name_of, prompt if only else token, _ellipsoid(problem, only)))
        for method, found, proved in cases:
            yield Comparison(
                method=method,
                problem=name,
                found=found[number],
                bound=proved.bound.upper_nats(),
            )


def _ellipsoid(problem: Problem, prompt_only: bool) -> EllipsoidBound:
    return ellipsoid_bound(
        problem.weights, radius=problem.radius, prompt_only=prompt_only, effort="quick"
    )
