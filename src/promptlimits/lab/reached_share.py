"""The share of random targets that prompts of one number reach, down to very small shares.

Width d = 1, one prompt token p of [-1, 1], k queries, targets uniform in [-1, 1]^k. A prompt p_j
reaches the targets of the cube of half-width eps around its outputs, so that a finite set of G
prompts reaches the union of G cubes, whose share may be 10^-8. Drawing targets would need as many
of them. Instead (Karp and Luby 1983) a cube is drawn, then a target in it, which counts if it lies
in [-1, 1]^k and in no earlier cube: each target of the union is counted in one cube alone, so that

    share = G eps^k (proportion that counts).

A proportion of independent draws has an exact interval. The share is that of the G prompts: what
prompts between them reach besides is not counted, so it is an estimate from below.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from promptlimits.lab.regression.random_problems import NetworkShape
from promptlimits.nets.paper.transformer import PaperTransformer


@dataclass(frozen=True, kw_only=True, eq=False)
class LineProblem:
    """A network of width 1 and the outputs of G prompts at k queries."""

    model: PaperTransformer
    outputs: NDArray[np.float64]  # of shape (G, k)

    @classmethod
    def draw(cls, shape: NetworkShape, *, pairs: int, prompts: int, seed: int) -> LineProblem:
        """A random network with queries uniform in [-1/2, 1/2]; the prompts are a grid of [-1, 1].

        Queries near the middle: outputs of most networks lie in [-1, 1] then.
        """
        generator = np.random.default_rng([seed, 2])
        model = shape.draw(generator)
        queries = torch.tensor(generator.uniform(-0.5, 0.5, (pairs, 1, 1)))
        grid = torch.linspace(-1, 1, prompts, dtype=torch.float64)[:, None, None]
        outputs = model.with_prompt(grid, queries)[..., 0, 0]
        return cls(model=model, outputs=outputs.numpy())

    def counted(self, eps: float, pairs: int, *, draws: int, seed: int) -> int:
        """How many of the draws count, for the first `pairs` queries."""
        generator = np.random.default_rng([seed, pairs, 3])
        centres = self.outputs[:, :pairs]
        cubes = generator.integers(len(centres), size=draws)
        targets = centres[cubes] + generator.uniform(-eps, eps, (draws, pairs))
        inside = (np.abs(targets) <= 1).all(axis=1)
        covered = np.ones((draws, len(centres)), dtype=bool)
        for pair in range(pairs):
            covered &= np.abs(targets[:, pair, None] - centres[None, :, pair]) <= eps
        covered[np.arange(draws), cubes] = True  # whatever rounding says
        return int((inside & (covered.argmax(axis=1) == cubes)).sum())

    def factor(self, eps: float, pairs: int) -> float:
        """G eps^k: the share over the proportion that counts."""
        return float(len(self.outputs) * eps**pairs)
