"""E13, E14 and E15: what one layer does with a prompt, run on the actual prompt."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from promptlimits.lab.errata.statements import Counterexample, require_heads
from promptlimits.nets.paper.layers import PaperHead, PaperLayer
from promptlimits.nets.paper.transformer import PaperTransformer, from_weights
from promptlimits.nets.paper.weights import random_weights

MOST_HEADS: Final = 24
_PARTITION: Final = 1e6
"""Z, the sum of exponentials over the prompt; any large number does."""
_SMALL_SHARE: Final = 0.001


@dataclass(frozen=True, kw_only=True, eq=False)
class OrthogonalTargets:
    """A layer, a prompt, h + 1 queries [x_j, x_0] and h + 1 orthogonal target offsets."""

    model: PaperTransformer  # one layer without MLP, float64
    prompt: Tensor  # h tokens, (d, h)
    queries: Tensor  # (h + 1, d, 2)
    # Y'_j, one in each row, (h + 1, d): orthonormal, and orthogonal to the attention outputs of the
    # queries alone.
    offsets: Tensor

    def errors(self) -> list[float]:
        """|tau([P, X^j])_{-1} - MLP(y'_j + x_0)| for each j; the MLP is the identity."""
        outputs = self.model.with_prompt(self.prompt, self.queries)[..., -1]
        targets = self.queries[:, :, -1] + self.offsets
        return [float(error) for error in (outputs - targets).norm(dim=1)]


def orthogonal_targets(heads: int, seed: int | None = None) -> OrthogonalTargets:
    """The construction behind E13, whose errors all equal 1/sqrt(h+1).

    Statement: with v = (1, ..., 1, -1)/sqrt(h+1), the projection C = I - v v^T has rank h and
    columns 1/sqrt(h+1) away from the unit vectors. The rows of mu (h x (h+1)), with 1/2 on the
    diagonal, a small share elsewhere and the sum in the last column, span the complement of v,
    so C = Q mu. Key, query and prompt are such that head i puts the share mu_j^i on the
    prompt when it reads query j, and its value there is Y Q_i. The outputs are then the columns
    of Y C. Every basis of R^d will do; d = max(h^2 + 2h + 1, 3h + 2) satisfies
    d - h^2 - 2h > 0.
    """
    require_heads(heads, most=MOST_HEADS, usual=4)
    dim = max((heads + 1) ** 2, 3 * heads + 2)
    axes = torch.tensor(_axes(dim, seed))
    shares, factors = _shares_and_factors(heads)
    shared, scores = axes[:, 0], axes[:, 1 : 1 + heads]
    marks, offsets = axes[:, 1 + heads : 1 + 2 * heads], axes[:, 1 + 2 * heads : 2 + 3 * heads]
    # Head i gives prompt token i the weight (Z - h + 1)/Z.
    own = _PARTITION - heads + 1
    layer = PaperLayer.without_mlp(
        *(
            PaperHead(
                query=shared[None, :],
                key=scores[:, i][None, :],
                value=marks[:, i][None, :],
                output=(offsets @ factors[:, i])[:, None] * (_PARTITION / own),
            )
            for i in range(heads)
        )
    )
    # The sum of exponentials over the query is Z (1/mu - 1); x_0 contributes 1 to it.
    firsts = scores @ torch.log(_PARTITION * (1 / shares - 1) - 1)
    queries = torch.stack([firsts.T, shared.expand(heads + 1, -1)], dim=-1)
    return OrthogonalTargets(
        model=PaperTransformer(layers=(layer,)),
        prompt=math.log(own) * scores + marks,
        queries=queries,
        offsets=offsets.T,
    )


def floor_of_errors(heads: int = 4, seed: int | None = None) -> Counterexample:
    """E13: the errors of `orthogonal_targets` against r/2 and r/sqrt(h+1), r = 1."""
    built = orthogonal_targets(heads, seed)
    errors = built.errors()
    worst, corrected = max(errors), 1 / math.sqrt(heads + 1)
    refutes = worst < 0.5 - 1e-9
    verdict = "below" if refutes else "not below (it is from 4 heads)"
    return Counterexample(
        key="E13",
        refutes=refutes,
        measured=f"at h = {heads}, d = {built.model.dim}, m_p = {heads} the greatest of the "
        f"{heads + 1} errors is {worst:.6f}, {verdict} the published floor 0.5; "
        f"the corrected floor is {corrected:.6f}",
        numbers={
            "heads": heads,
            "dim": built.model.dim,
            "errors": list(errors),
            "published_floor": 0.5,
            "corrected_floor": corrected,
            "seed": seed,
        },
    )


def offset_of_targets() -> Counterexample:
    """E14: one head with V = 0, no MLP, x_0 = 100 e_1: the error is 1, published at least 50."""
    dim = 4  # d - h^2 - 2h > 0
    one = torch.eye(dim, dtype=torch.float64)
    head = PaperHead(query=one, key=one, value=torch.zeros_like(one), output=one)
    layer = PaperLayer.without_mlp(head)
    shared = 100 * one[:, 0]
    queries = torch.stack([torch.stack([one[:, j], shared], dim=1) for j in (1, 2)])
    offsets = one[2:]
    targets = offsets + shared
    outputs = PaperTransformer(layers=(layer,)).with_prompt(one[:, :1], queries)[..., -1]
    errors = [float(error) for error in (outputs - targets).norm(dim=1)]
    published = float(targets.norm(dim=1).min()) / 2
    corrected = float(offsets.norm(dim=1).min()) / math.sqrt(2)
    return Counterexample(
        key="E14",
        refutes=max(errors) < published,
        measured=f"one head: both errors are {max(errors):g}, where the published floor is "
        f"{published:.4f} and the corrected one {corrected:.4f}",
        numbers={
            "heads": 1,
            "dim": dim,
            "errors": list(errors),
            "published_floor": published,
            "corrected_floor": corrected,
        },
    )


def codimension(heads: int = 2, seed: int = 0) -> Counterexample:
    """E15: rank of the derivative of two outputs by a prompt, against 2d - 1.

    A random layer with heads of size 3, d = 3 h, ReLU MLP, two queries with one last token and
    a prompt of 3 tokens, which has more numbers than both outputs. The rank at one prompt
    is the dimension of what is accessible nearby where it is locally constant; Theorem 3 says
    that it is nowhere more than R = d + h.
    """
    require_heads(heads, most=MOST_HEADS, usual=2)
    dim = 3 * heads
    generator = np.random.default_rng(seed)
    tau = from_weights(
        random_weights(dim=dim, heads=heads, head_dim=3, hidden=2 * dim, generator=generator)
    )
    shared = generator.standard_normal((dim, 1))
    queries = torch.tensor(
        np.stack([np.hstack([generator.standard_normal((dim, 1)), shared]) for _ in range(2)])
    )
    prompt = torch.tensor(generator.standard_normal((dim, 3)))

    def outputs(of: Tensor) -> Tensor:
        return tau.with_prompt(of, queries)[..., -1].reshape(-1)

    jacobian = torch.func.jacrev(outputs)(prompt).reshape(2 * dim, -1)
    singular = torch.linalg.svdvals(jacobian)
    # Rounding leaves some 1e-15 of the largest; what counts here is many orders above.
    rank = int((singular > 1e-10 * singular[0]).sum())
    return Counterexample(
        key="E15",
        refutes=2 * dim - rank > 1,
        measured=f"at h = {heads}, d = {dim} the derivative of the {2 * dim} output numbers "
        f"by the {3 * dim} of a prompt has rank {rank}: codimension {2 * dim - rank}, at least "
        f"d - h = {dim - heads}",
        numbers={
            "heads": heads,
            "dim": dim,
            "rank": rank,
            "codimension": 2 * dim - rank,
            "published_codimension": 1,
            "corrected_codimension": dim - heads,
            "seed": seed,
        },
    )


def _axes(dim: int, seed: int | None) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Orthonormal columns: the coordinate axes, or random ones."""
    if seed is None:
        return np.eye(dim)
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]


def _shares_and_factors(heads: int) -> tuple[Tensor, Tensor]:
    """mu (h x (h+1)) and Q ((h+1) x h) with Q mu = I - v v^T."""
    shares = torch.full((heads, heads), _SMALL_SHARE, dtype=torch.float64)
    shares = shares + (0.5 - _SMALL_SHARE) * torch.eye(heads, dtype=torch.float64)
    shares = torch.cat([shares, shares.sum(dim=1, keepdim=True)], dim=1)
    normal = torch.ones(heads + 1, dtype=torch.float64) / math.sqrt(heads + 1)
    normal = torch.cat([normal[:-1], -normal[-1:]])
    projection = torch.eye(heads + 1, dtype=torch.float64) - torch.outer(normal, normal)
    return shares, projection @ torch.linalg.pinv(shares)
