"""The best that any prompt can do, as a small problem on a cube.

**The compact form** (derived here; the layer is that of [@meyer2025]). With rho_j^i =
Z_j^i / min_j Z_j^i, v_i = Z_min^i / (Z_min^i + Z^i) and W^i = (1 - v_i) A^i,

    u_j - x_0  =  sum_i  rho_j^i v_i mu_j^i a_j^i  +  mu_j^i W^i,
    mu_j^i     =  1 / (1 + (rho_j^i - 1) v_i),

so for fixed v in (0, 1)^h the distance from targets t_j is a linear least-squares problem in
W^i of range(V_i), and f(v) = min over W of sum_j w_j |t_j - (u_j - x_0)|^2 is what remains to be
minimised. As the distance is continuous in (v, W), its infimum over the open cube is that over
the closed one: v_i = 0 is a prompt of infinite weight, v_i = 1 one of no weight and infinite
values. f itself may jump **up** where the mu of several heads become dependent (v = 0, where all
are 1, if ranges meet): there the infimum is only approached, with |W| going to infinity.

**The local model.** Write x = v - c and m_j^i for mu_j^i at c. For w(v) = w_0 + sum_l D_l x_l
(coordinates of W in bases B_i) the residuals are, exactly,

    q_j(v) = q_j(c) - sum_i (1 - s_j^i mu_j^i(v) x_i) sum_l T_j^il x_l,          s = rho - 1,
    T_j^il = [i = l] m^2 (rho a_j^i - s B_i w_0^i) + m_j^i B_i D_l^i,

since mu(v) = m (1 - s mu(v) x). With w_0 the minimiser at c and D its derivative this gives f,
its gradient 2 J^T q and its exact Hessian 2 (J^T J + K) at c, J_l = -sum_i T^il, in one solve:
`local_model`. The optimiser (`value`) and the proofs (`boxes`) both use it.

**Work** is counted from sizes: no clock decides a result. A unit is about a microsecond of one
core. Costs were fitted to measured times, to a factor of 2; only how long a run takes hangs on how
well they fit, never what it finds: that is a function of the problem, the seed and the budget.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from promptlimits.base.errors import RunFailed
from promptlimits.lab.one_layer.oracle.inputs import exact_range, float_rank
from promptlimits.lab.one_layer.reachable import value_ranks
from promptlimits.lab.one_layer.setting import (
    LARGEST,
    Floats,
    SharedQuery,
    Statistics,
    query_statistics,
    require_moderate,
)
from promptlimits.nets.paper.weights import HeadWeights, exact_array

NORMAL_CUT: Final = 1e-12
"""Eigenvalues of the normal matrix below this share of the largest count as zero."""

WIDEST: Final = 30.0
"""Largest log rho: beyond it squares of rho leave too few digits."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """min over v in [0, 1]^h and w of sum_j |c_j (t_j - ...)|^2, in the module's notation."""

    targets: Floats  # c_j t_j, (k, m)
    means: Floats  # c_j a_j^i, (k, h, m)
    excess: Floats  # s_j^i = rho_j^i - 1, (k, h)
    scale: Floats  # c_j, (k,): roots of the weights
    bases: tuple[Floats, ...]  # for each head a basis of range(V_i), (m, r_i), orthonormal
    log_least: Floats  # log of min_j Z_j^i, (h,)

    @property
    def heads(self) -> int:
        """Number h of heads."""
        return int(self.excess.shape[1])

    @property
    def blocks(self) -> NDArray[np.int64]:
        """The head that each coordinate of w belongs to, (n,)."""
        sizes = [basis.shape[1] for basis in self.bases]
        return np.repeat(np.arange(len(sizes)), sizes)

    def weighted(self, scale: Floats) -> Problem:
        """The same problem with other weights c_j^2."""
        factor = scale / self.scale
        return replace(
            self,
            targets=self.targets * factor[:, None],
            means=self.means * factor[:, None, None],
            scale=scale,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class LocalModel:
    """f near each of N points c: f(c + x) = value + 2 slope.x + x.curvature.x + O(x^3)."""

    solution: Floats  # w_0, (N, n)
    motion: Floats  # D_l as rows, (N, h, n)
    whitening: Floats  # C with C^T N C = I on the part of the normal matrix N that was not cut
    regular: NDArray[np.bool_]  # whether nothing was cut, (N,)
    residual: Floats  # q_j, (N, k, m)
    value: Floats  # f(c), (N,)
    slope: Floats  # (N, h)
    curvature: Floats  # (N, h, h), symmetric


def orthonormal_range(head: HeadWeights, rank: int) -> Floats:
    """An orthonormal basis of the range of V = W_o W_v."""
    if rank == head.dim:
        return np.eye(head.dim)
    value = np.asarray(head.output @ head.value)
    # Directions that V barely writes are lost in the rounding of the product.
    if float_rank(value) < rank:
        return exact_range(head, rank)
    return np.asarray(np.linalg.svd(value)[0][:, :rank])


def oracle_problem(setting: SharedQuery, targets: Floats) -> Problem:
    """The compact form for targets t_j of u_j - x_0."""
    # The layer and its queries were checked when the setting was made.
    wanted = exact_array("the targets", targets, (setting.count, setting.layer.dim))
    require_moderate("the targets", wanted)
    with np.errstate(over="ignore", invalid="ignore"):
        own = query_statistics(setting)
    if not (np.abs(own.log_weight) < LARGEST).all() or not (np.abs(own.mean) < LARGEST).all():
        raise RunFailed(
            "attention's scores or values on the queries leave the range of doubles",
            remedy="scale the weights or tokens down",
        )
    least = own.log_weight.min(axis=0)
    spread_of_logs = float((own.log_weight - least).max())
    if spread_of_logs > WIDEST:
        raise RunFailed(
            f"the queries' weights of one head differ by e^{spread_of_logs:.0f}, beyond doubles",
            remedy="scale tokens or keys down, or ask about fewer of the queries",
        )
    return Problem(
        targets=np.array(wanted),
        means=own.mean,
        excess=np.expm1(own.log_weight - least),
        scale=np.ones(setting.count),
        bases=tuple(
            orthonormal_range(head, rank)
            for head, rank in zip(setting.layer.heads, value_ranks(setting.layer), strict=True)
        ),
        log_least=least,
    )


def spread(problem: Problem, coordinates: Floats) -> Floats:
    """The vectors B_i w^i from coordinates (..., n): (..., h, m)."""
    blocks = problem.blocks
    parts = [coordinates[..., blocks == i] @ basis.T for i, basis in enumerate(problem.bases)]
    return np.stack(parts, axis=-2)


def gather(problem: Problem, vectors: Floats) -> Floats:
    """The coordinates B_i^T y^i from vectors (..., h, m): (..., n)."""
    parts = [vectors[..., i, :] @ basis for i, basis in enumerate(problem.bases)]
    return np.concatenate(parts, axis=-1)


def local_model(problem: Problem, points: Floats) -> LocalModel:
    """Value, minimiser, gradient and Hessian of f at points (N, h) of the cube."""
    excess, scale = problem.excess, problem.scale[:, None]
    share = 1.0 / (1.0 + excess * points[:, None, :])
    carried = scale * share
    fixed = problem.targets - np.einsum(
        "bki,kim->bkm", (1 + excess) * points[:, None, :] * share, problem.means
    )
    whitening, regular = _whitening(problem, carried)
    right = gather(problem, np.einsum("bki,bkm->bim", carried, fixed))
    solution = _solved(whitening, right[:, None])[:, 0]
    held = spread(problem, solution)
    residual = fixed - np.einsum("bki,bim->bkm", carried, held)
    own = (share**2)[..., None] * (
        (1 + excess)[..., None] * problem.means - (scale * excess)[..., None] * held[:, None]
    )
    motion = _motion(problem, carried, share, own, residual, whitening)
    turned = carried[:, :, :, None, None] * spread(problem, motion).swapaxes(1, 2)[:, None]
    for i in range(problem.heads):
        turned[:, :, i, i] += own[:, :, i]
    change = -turned.sum(axis=2)
    bent = np.einsum("bki,bkm,bkilm->bil", excess * share, residual, turned)
    return LocalModel(
        solution=solution,
        motion=motion,
        whitening=whitening,
        regular=regular,
        residual=residual,
        value=(residual**2).sum(axis=(1, 2)),
        slope=np.einsum("bkm,bklm->bl", residual, change),
        curvature=np.einsum("bkim,bklm->bil", change, change) + bent + bent.swapaxes(1, 2),
    )


def _whitening(problem: Problem, carried: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """C with C^T N C = I for the normal matrix N at each point, and whether N is regular."""
    blocks = problem.blocks
    joined = np.concatenate(problem.bases, axis=1)
    products = np.einsum("bki,bkl->bil", carried, carried)
    if problem.heads == 1:
        # The basis is orthonormal: N is a multiple of the identity.
        return np.eye(len(blocks)) / np.sqrt(products), np.ones(len(products), dtype=np.bool_)
    normal = products[:, blocks[:, None], blocks] * (joined.T @ joined)
    sizes, vectors = np.linalg.eigh(normal)
    kept = sizes > NORMAL_CUT * sizes[:, -1:]
    scaled = np.where(kept, 1.0 / np.sqrt(np.where(kept, sizes, 1.0)), 0.0)
    return vectors * scaled[:, None, :], np.asarray(kept.all(axis=1))


def _motion(
    problem: Problem,
    carried: Floats,
    share: Floats,
    own: Floats,
    residual: Floats,
    whitening: Floats,
) -> Floats:
    """The derivative of the minimiser: S^T q stays 0 to first order."""
    pulled = np.einsum("bki,bklm->blim", carried, own)
    own_pull = np.einsum("bki,bkm->bim", carried * problem.excess * share, residual)
    for i in range(problem.heads):
        pulled[:, i, i] += own_pull[:, i]
    return -_solved(whitening, gather(problem, pulled))


def _solved(whitening: Floats, rows: Floats) -> Floats:
    """N^-1 on rows (N, p, n)."""
    return np.asarray((rows @ whitening) @ whitening.swapaxes(1, 2))


def prompt_statistics(problem: Problem, point: Floats, solution: Floats) -> Statistics:
    """The (A, Z) that a point of the open cube and coordinates of W stand for."""
    mean = spread(problem, solution) / (1 - point)[:, None]
    return Statistics(mean=mean, log_weight=problem.log_least + np.log1p(-point) - np.log(point))


SEARCH: Final = 2.5e6
"""Work of a search for the best statistics."""

PROOF: Final = 4e6
"""Work of a proof whose number of boxes is not given."""

PROMPTS: Final = 2e6
"""Work spent on prompts where not all statistics are some prompt's."""

MOST_BOXES: Final = 40_000
"""Boxes of a proof whose number is not given, however small the problem."""

_FEWEST_BOXES: Final = 64


class Budget:
    """Work that is left: spent by one piece after another, the last one in full.

    Attributes:
        left: What is left; at most 0 once it is used up.
    """

    def __init__(self, work: float) -> None:
        """Start with an amount."""
        self.left = work

    def take(self, cost: float) -> bool:
        """Spend the cost of a piece of work if anything is left."""
        if self.left <= 0:
            return False
        self.left -= cost
        return True


def step_cost(problem: Problem) -> float:
    """Work of one step of the search from one start."""
    return 10 + 0.0125 * _products(problem) + 8e-4 * float(len(problem.blocks)) ** 3


def boxes_of_balls(problems: list[Problem]) -> int:
    """How many boxes a proof in doubles looks at unless told otherwise."""
    cost = sum(
        50 + 0.2 * _products(problem) + 2.2e-3 * float(len(problem.blocks)) ** 3
        for problem in problems
    )
    return _boxes(cost)


def boxes_of_series(queries: int) -> int:
    """How many boxes a proof for one head looks at unless told otherwise."""
    return _boxes(50 + 6.5 * queries**2)


def slab_cost(points: int, numbers: int) -> float:
    """Work of one search for the best prompt of a length."""
    return 0.04 * points * numbers


def training_cost(numbers: int, heads: int, steps: int) -> float:
    """Work of training one prompt."""
    return steps * (200 + 150 * heads + 6 * numbers + 1.2e-4 * float(numbers) ** 3)


def _products(problem: Problem) -> float:
    queries, width = problem.targets.shape
    return float(queries * problem.heads**2 * width)


def _boxes(cost: float) -> int:
    return int(min(max(PROOF // max(cost, 1.0), _FEWEST_BOXES), MOST_BOXES))
