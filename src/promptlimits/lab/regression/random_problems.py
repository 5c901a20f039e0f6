"""Random networks of the papers with problems that prompts may or may not solve.

A *problem* is a network with random weights, k random queries X^i and k targets, all drawn anew
from one seed. Each target can be met alone: it is tau([P^i, X^i]) for a random prompt P^i of the
length that is tried. Whether one prompt meets all k is the question. Its *planted* twin has the
same network and queries and one P^i for all i: there one does. A problem of k pairs is the
beginning of the one of k + 1 pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from promptlimits.capacity.train.problem import Outcome
from promptlimits.lab.regression.levenberg_marquardt import LevenbergMarquardt
from promptlimits.lab.regression.regression import (
    RegressionProblems,
    all_reads,
    solve_regression,
)
from promptlimits.nets.paper.layers import Activation, PaperNorm
from promptlimits.nets.paper.transformer import PaperTransformer, from_weights
from promptlimits.nets.paper.weights import random_weights

Norm: TypeAlias = Literal["none", "layer-pre", "layer-post", "rms-pre", "rms-post"]
MOST_PAIRS: Final = 64
_EPSILON: Final = 1e-5


@dataclass(frozen=True, kw_only=True)
class NetworkShape:
    """What a random network looks like."""

    dim: int  # d
    heads: int = 1  # h, each of d / h numbers
    layers: int = 1
    hidden: int = 8  # of the MLP
    masked: bool = False
    norm: Norm = "none"
    activation: Activation = "relu"
    scale: float = 1.0  # of the weights, over 1/sqrt(fan-in)

    def draw(self, generator: np.random.Generator) -> PaperTransformer:
        """A network with Gaussian weights and biases, in float64."""
        weights = random_weights(
            dim=self.dim,
            heads=self.heads,
            head_dim=max(1, self.dim // self.heads),
            hidden=self.hidden,
            layers=self.layers,
            generator=generator,
            masked=self.masked,
            scale=self.scale,
            biases=True,
        )
        plain = from_weights(weights)
        layers = tuple(replace(layer, activation=self.activation) for layer in plain.layers)
        plain = replace(plain, layers=layers)
        return plain if self.norm == "none" else _normalised(plain, self.norm)


def _normalised(plain: PaperTransformer, norm: str) -> PaperTransformer:
    kind, _, place = norm.partition("-")
    ones = torch.ones(plain.dim, dtype=plain.dtype)
    each = PaperNorm(
        kind="layer" if kind == "layer" else "rms",
        weight=ones,
        bias=torch.zeros_like(ones) if kind == "layer" else None,
        epsilon=_EPSILON,
    )
    layers = tuple(replace(x, attention_norm=each, mlp_norm=each) for x in plain.layers)
    return replace(plain, layers=layers, norm_place="pre" if place == "pre" else "post")


@dataclass(frozen=True, kw_only=True)
class ProblemShape:
    """What is asked of a prompt."""

    network: NetworkShape
    prompt_tokens: int  # m_p
    pairs: int  # k
    columns: int = 1  # m, tokens of a query and of a target
    planted: bool = False

    def draw(self, seed: int) -> tuple[PaperTransformer, Tensor, Tensor]:
        """The network, queries (k, d, m) and targets (k, d, m)."""
        generator = np.random.default_rng([seed, self.prompt_tokens, self.columns])
        model = self.network.draw(generator)
        dim = self.network.dim
        queries = torch.tensor(generator.standard_normal((MOST_PAIRS, dim, self.columns)))
        prompts = torch.tensor(generator.standard_normal((MOST_PAIRS, dim, self.prompt_tokens)))
        queries, prompts = queries[: self.pairs], prompts[: self.pairs]
        if self.planted:
            prompts = prompts[:1].expand_as(prompts)
        both = torch.cat([prompts, queries], dim=-1)
        return model, queries, model(both)[..., self.prompt_tokens :]


def starts_that_solve(
    shape: ProblemShape, *, seed: int, starts: int, settings: LevenbergMarquardt
) -> tuple[int, float]:
    """Try a problem from several random prompts, side by side.

    Args:
        shape: The problem.
        seed: Of the problem and its starts.
        starts: How many.
        settings: Of the optimiser.

    Returns:
        How many starts ended within the tolerance, and the least error of all (infinite if every
        start diverged).
    """
    model, queries, targets = shape.draw(seed)
    generator = np.random.default_rng([seed, shape.prompt_tokens, shape.columns, 1])
    size = (1, starts, shape.network.dim, shape.prompt_tokens)
    first = torch.tensor(generator.standard_normal(size))
    problems = RegressionProblems(
        queries=queries.expand(starts, -1, -1, -1).contiguous(),
        targets=targets.mT.flatten(1).expand(starts, -1, -1).contiguous(),
        reads=all_reads(shape.network.dim, shape.columns),
    )
    found = solve_regression(model, problems, first, settings=settings)
    solved = sum(outcome is Outcome.SOLVED for outcome in found.outcomes)
    return solved, float(found.errors.min())
