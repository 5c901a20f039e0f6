"""How many numbers of the answers a prompt of any length can choose: the dimension R.

**Statement** (Theorem 3 of this package's errata to [@meyer2025], correcting its Theorem 5.7;
[@wang2023] has the case h = 1, k = 2). For k queries with one last token, the answers that
prompts of all lengths reach are the image, under a locally Lipschitz map, of

    R  =  sum_i rank(V_i) + h

numbers: A^i in the range of V_i, and Z^i. So they have Hausdorff dimension at most
min(R, k d), and at most min(R, d m_p, k d) for prompts of m_p tokens. If k d > R, they are a
null set: almost every tuple of answers is out of reach at every length.

**Assumptions.** None on the MLP but that it is locally Lipschitz, which weights make it; none on
ranks. A normalisation in front, a causal mask, and rotary positions among queries of one length
keep the form (`setting`).

**Proof.** The outputs are MLP(x_0 + sum_i lambda_j^i a_j^i + (1 - lambda_j^i) A^i), smooth in
(A, log Z) before the MLP. The ranges of the V_i have dimension rank(V_i), and a locally Lipschitz
image of R^R has Hausdorff dimension at most R, so measure zero in R^(kd) if R < kd. A countable
union over lengths changes nothing. []

**Where the paper differs.** It needs d > h^2 + 2h and an injective MLP, and multiplies h + 1
dimensions that should be added (E11, E12).

**Tightness.** The rank of the Jacobian of the answers in the prompt equals
min(d m_p, k min(d, sum_i rank(V_i)), R) at generic points of generic layers (tests).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from flint import fmpz_mat

from promptlimits.lab.one_layer.setting import (
    Floats,
    SharedQuery,
    score_vectors,
    statistics,
    value_maps,
)
from promptlimits.nets.paper.weights import Array, LayerWeights


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What a prompt can and cannot choose, in numbers.

    Attributes:
        dim: d.
        heads: h.
        queries: k.
        value_ranks: rank(V_i), exact.
        reachable: R = sum of ranks + h.
        ambient: k d, numbers that the answers consist of.
        out_of_reach: Whether k d > R: almost every tuple of answers is then out of reach of
            every prompt of every length.
        fewest_queries: The least k for which that is so.
    """

    dim: int
    heads: int
    queries: int
    value_ranks: tuple[int, ...]
    reachable: int
    ambient: int
    out_of_reach: bool
    fewest_queries: int

    def generic_rank(self, prompt_tokens: int) -> int:
        """Rank of the Jacobian at generic points, min(d m_p, k min(d, sum r_i), R)."""
        per_query = min(self.dim, sum(self.value_ranks))
        return min(self.dim * prompt_tokens, self.queries * per_query, self.reachable)


def exact_rank(matrix: Array) -> int:
    """The rank of a float64 matrix read as exact numbers.

    Scaled by a power of two its entries are integers, and flint's rank of an integer matrix is
    exact.
    """
    return int(_whole(matrix).rank()) if matrix.size else 0


@lru_cache(maxsize=8)  # asked for at every step of a search; layers are compared by identity
def value_ranks(layer: LayerWeights) -> tuple[int, ...]:
    """Exact ranks of V_i = W_o^i W_v^i.

    By Sylvester's inequality it is the size s' of a value if both factors have that rank; else
    the product of the exact integer matrices decides.
    """
    return tuple(_product_rank(head.output, head.value) for head in layer.heads)


def _product_rank(left: Array, right: Array) -> int:
    inner = left.shape[1]
    left_rank, right_rank = exact_rank(left), exact_rank(right)
    if inner in (left_rank, right_rank):
        # An injective W_o, or a surjective W_v, keeps the rank of the other factor.
        return min(left_rank, right_rank)
    return int((_whole(left) * _whole(right)).rank())


def stacked_ranks(layer: LayerWeights, token: Array) -> tuple[int, ...]:
    """Exact ranks of [V_g; c_1; ..; c_h], c_i = W_k^T W_q x_0, for each head g."""
    asked = _whole(token[:, None])
    scores = [
        (_whole(head.key.T) * (_whole(head.query) * asked)).transpose().tolist()[0]
        for head in layer.heads
    ]
    values = [_whole(head.output) * _whole(head.value) for head in layer.heads]
    return tuple(int(fmpz_mat(value.tolist() + scores).rank()) for value in values)


def joint_rank(layer: LayerWeights) -> int:
    """The exact dimension of the sum of the ranges of all V_i."""
    rows = [
        row
        for head in layer.heads
        for row in (_whole(head.output) * _whole(head.value)).transpose().tolist()
    ]
    return int(fmpz_mat(rows).rank())


def _whole(matrix: Array) -> fmpz_mat:
    """An integer multiple of a matrix."""
    ratios = [[float(x).as_integer_ratio() for x in row] for row in matrix]
    shift = max(denominator.bit_length() for row in ratios for _, denominator in row)
    return fmpz_mat([[(over << shift) // under for over, under in row] for row in ratios])


def reach(setting: SharedQuery) -> Reach:
    """The dimension count for given queries.

    Args:
        setting: The layer and its queries.

    Returns:
        The numbers of the theorem.
    """
    layer = setting.layer
    ranks = value_ranks(layer)
    total = sum(ranks) + len(layer.heads)
    ambient = setting.count * layer.dim
    return Reach(
        dim=layer.dim,
        heads=len(layer.heads),
        queries=setting.count,
        value_ranks=ranks,
        reachable=total,
        ambient=ambient,
        out_of_reach=ambient > total,
        fewest_queries=total // layer.dim + 1,
    )


def jacobian(setting: SharedQuery, prompt: Floats) -> Floats:
    """Derivative of attention's outputs in the prompt's tokens.

    For head i, weight w of token p in query j, and head output o: d o / d p is
    w [V_i + (V_i p - o) c_i^T].
    """
    if setting.front is not None or setting.rotary_base is not None:
        raise ValueError("the closed form of the derivative is that of the plain layer")
    scores, maps = score_vectors(setting), value_maps(setting.layer)
    blocks = []
    for query in setting.queries:
        whole = statistics(setting, np.concatenate([prompt, query], axis=1))
        row = np.zeros((prompt.shape[1], setting.layer.dim, setting.layer.dim))
        for score, value, mean, log in zip(scores, maps, whole.mean, whole.log_weight, strict=True):
            weights = np.exp(score @ prompt - log)
            away = (value @ prompt).T - mean
            row += weights[:, None, None] * (value + away[:, :, None] * score)
        blocks.append(row.transpose(1, 0, 2).reshape(setting.layer.dim, -1))
    return np.concatenate(blocks)
