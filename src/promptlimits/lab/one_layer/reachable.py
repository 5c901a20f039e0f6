"""What a prompt of any length can choose of the answers: R numbers, and of two answers a segment.

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

**The second answers that prompts reach once the first is met**, for plots and for insight. Notation
as in `setting`, two queries, t_j = u_j - x_0.

**One head** (after [@wang2023]; proved here). Behind a prompt with sum of exponentials Z that meets
t_1 exactly, with mu = Z_2/(Z_2 + Z) in (0, 1),

    t_2  =  (1 - mu) t_1 + mu ( a_2 + (Z_1/Z_2)(t_1 - a_1) ):

an open segment from t_1 (mu -> 0, a heavy prompt) to an end (mu -> 1, a light one).

*Proof.* (Z_j + Z) t_j = Z_j a_j + Z A for both j; eliminate Z A. []

Of it, prompts reach:
- nothing, unless t_1 lies in the range of V, as a_1 and A do;
- all of it, with one token, if c is no combination of the rows of V (`realise.rank_condition`);
- else, c = V^T eta, the Z with

      log Z - log m_p <= eta . A(Z) < log Z       (m_p = 1: eta . A(Z) = log Z),

  A(Z) = t_1 + (Z_1/Z)(t_1 - a_1), Gibbs' condition. With r = log(Z/Z_2), so mu = 1/(1 + e^r), that
  is -log m_p <= g(r) < 0 for g(r) = eta.t_1 - log Z_2 + (Z_1/Z_2) eta.(t_1 - a_1) e^(-r) - r. If
  eta.(t_1 - a_1) >= 0, g falls and one interval is reached; if not, g rises and then falls, and
  there are up to two. Only differences of scores enter, so scores may be large.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from flint import fmpz_mat

from promptlimits.base.errors import RunFailed, UserError, require_positive_int
from promptlimits.lab.one_layer.setting import (
    Floats,
    SharedQuery,
    query_statistics,
    score_vectors,
    statistics,
    value_maps,
)
from promptlimits.nets.paper.weights import Array, LayerWeights, exact_array


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


_ZERO: Final = 1e-10
_BISECTIONS: Final = 200
_FAR: Final = 700.0
"""log(Z/Z_2) is followed at least up to here: beyond, mu is 0 or 1 in floats, or nearly so."""

_FLAT: Final = 1e-300
"""A slope of Gibbs' condition below this is felt only where mu is 1 in floats."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """Second answers behind prompts that meet the first; one head."""

    first: Floats  # t_1, the end for heavy prompts (mu = 0), (d,); not reached
    end: Floats  # the end for light prompts (mu = 1), (d,); not reached
    log_second: float  # log Z_2
    free: bool  # whether one token reaches all of it
    # (eta.t_1 - log Z_2, (Z_1/Z_2) eta.(t_1 - a_1)) of Gibbs' condition; zeros if `free`.
    slopes: tuple[float, float]

    def point(self, mu: float) -> Floats:
        """The second answer t_2 at mu, (d,)."""
        return np.asarray((1 - mu) * self.first + mu * self.end)

    def log_weight(self, mu: float) -> float:
        """log Z of the prompts that reach the point at mu, of (0, 1)."""
        return float(self.log_second + np.log1p(-mu) - np.log(mu))

    def reached(self, prompt_tokens: int | None = None) -> tuple[tuple[float, float], ...]:
        """The part that prompts of a given length reach, as intervals of mu."""
        if prompt_tokens is not None:
            require_positive_int("prompt_tokens", prompt_tokens)
        if self.free:
            return ((0.0, 1.0),)
        low = -math.inf if prompt_tokens is None else -math.log(prompt_tokens)
        if prompt_tokens == 1:
            return tuple(sorted((_mu(r), _mu(r)) for r in self._roots(0.0)))
        ends = self._ends(low if math.isfinite(low) else -_FAR)
        cuts = sorted({*ends, *self._roots(0.0), *self._roots(low)})
        found: list[tuple[float, float]] = []
        for left, right in itertools.pairwise(cuts):
            if low <= self._gibbs((left + right) / 2) < 0:
                found.append((_mu(right), _mu(left)))
        return tuple(sorted(found))

    def _gibbs(self, ratio: float) -> float:
        """Gibbs' g at r = log(Z/Z_2); where e^(-r) is cut off, mu is 1 in floats."""
        constant, slope = self.slopes
        return constant + slope * math.exp(min(-ratio, _FAR)) - ratio

    def _ends(self, level: float) -> tuple[float, float]:
        """Limits on r: beyond, g crosses neither 0 nor the level unless mu is 1 in floats."""
        constant, slope = self.slopes
        wide = _FAR + abs(constant) + math.log1p(abs(slope)) - level
        return (-wide if slope >= 0 else -_FAR, wide)

    def _roots(self, level: float) -> tuple[float, ...]:
        """Where g equals a level, rising."""
        if not math.isfinite(level):
            return ()
        (low, high), slope = self._ends(level), self.slopes[1]
        if slope >= 0:
            return tuple(self._root(level, low, high))
        top = math.log(-slope)  # g' = 0
        return (*self._root(level, low, top), *self._root(level, top, high))

    def _root(self, level: float, low: float, high: float) -> list[float]:
        rising = self._gibbs(low) < level
        if rising == (self._gibbs(high) < level):
            return []
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            if (self._gibbs(middle) < level) == rising:
                low = middle
            else:
                high = middle
        return [(low + high) / 2]


def segment(setting: SharedQuery, first: Floats) -> Segment:
    """The segment of second answers given the first; one head, two queries."""
    _require_plain_pair(setting)
    if len(setting.layer.heads) != 1:
        raise UserError(
            "the layer",
            "have one head for a segment",
            got=f"{len(setting.layer.heads)} heads",
            remedy="several heads reach no segment: use a layer with one",
        )
    met = exact_array("t_1", first, (setting.layer.dim,))
    known = query_statistics(setting)
    one, two = known.mean[0, 0], known.mean[1, 0]
    logs = known.log_weight[:, 0]
    value, score = value_maps(setting.layer)[0], score_vectors(setting)[0]
    if not _in_range(value, met):
        raise UserError(
            "t_1",
            "lie in the range of V = W_o W_v",
            got="an offset outside",
            remedy="no prompt meets such an answer exactly",
        )
    eta = np.linalg.lstsq(value.T, score, rcond=_ZERO)[0]
    free = float(np.linalg.norm(value.T @ eta - score)) > _ZERO * (1 + float(np.linalg.norm(score)))
    if logs[0] - logs[1] > _FAR:
        raise RunFailed(
            f"the first query weighs e^{logs[0] - logs[1]:.0f} times what the second does: the "
            "segment ends beyond the range of floats",
            remedy="exchange the queries, or scale the tokens down",
        )
    ratio = math.exp(logs[0] - logs[1])
    slope = ratio * float(eta @ (met - one))
    slopes = (float(eta @ met - logs[1]), slope if abs(slope) > _FLAT else 0.0)
    return Segment(
        first=met,
        end=two + ratio * (met - one),
        log_second=float(logs[1]),
        free=free,
        slopes=(0.0, 0.0) if free else slopes,
    )


def _mu(ratio: float) -> float:
    """Z_2/(Z_2 + Z) for r = log(Z/Z_2)."""
    if abs(ratio) >= _FAR:
        return 0.0 if ratio > 0 else 1.0
    return 1 / (1 + math.exp(ratio))


def _basis(value: Floats) -> Floats:
    left, sizes, _ = np.linalg.svd(value)
    return np.asarray(left[:, : int((sizes > _ZERO * max(sizes[0], 1e-300)).sum())])


def _in_range(value: Floats, vector: Floats) -> bool:
    basis = _basis(value)
    rest = vector - basis @ (basis.T @ vector)
    return bool(np.linalg.norm(rest) <= 1e-8 * (1 + np.linalg.norm(vector)))


def _require_plain_pair(setting: SharedQuery) -> None:
    if setting.front is not None or setting.rotary_base is not None:
        raise ValueError("the closed form is that of the plain layer")
    if setting.count != 2:
        raise UserError("the queries", "be two", got=setting.count, remedy="give a pair")
