"""One head, prompts of a given length: what entropy forbids, and the best that is left.

**Statement** (proved here; the layer is that of [@meyer2025]). Let h = 1 and let the score
vector c, not 0, be V^T eta for some eta in range(V), as it is if V is invertible. Then (A, Z), A
in range(V), is that of a prompt of m_p >= 2 tokens if and only if

    log Z - log m_p  <=  eta.A  <  log Z,

and that of one token iff eta.A = log Z. For any length the left side is void.

**Proof.** With scores s_p = c.p and weights w_p = e^(s_p) / Z, sum_p w_p s_p = c.(sum w_p p)
= eta.(V sum w_p p) = eta.A, so log Z - eta.A is the entropy of w, which lies in (0, log m_p] for
m_p >= 2 positive weights. Conversely take weights of that entropy, any q with V q = A, hence
c.q = eta.A, and p_p = q + (log(w_p Z) - eta.A) c / |c|^2 plus what keeps V's mean: the weighted
mean of the added scores is 0, so the weighted mean of tokens is q, and their scores are
log(w_p Z). []

**The best error.** For fixed Z the squared error is a constant plus sum_j (c_j mu_j)^2 times
|A' - A'_LS|^2 in A' = (1 - v) A, so the best A of the slab is the projection of the free one; what
remains is a search over v alone, on a grid and then refined: found, not proved. The oracle's
certificate is below it for every length.

**Tightness.** Attained for one token and wherever the right side of the slab does not bind; on the
right side (entropy 0) it is approached as one token takes all the weight.

**In the oracle's proof** (V invertible, eta = V^(-T) c). In v = Zmin / (Zmin + Z) and
W = (1 - v) A, with l = log Zmin, the condition is

    b(v) - (1 - v) log m_p  <=  eta.W  <=  b(v),     b(v) = (1 - v) (l + log(1 - v) - log v),

a slab for each v. The weighted sum of squares is f(v) + S(v) |W - W*(v)|^2 with
S = sum_j (c_j mu_j)^2, so its least value on the slab is

    f(v) + S(v) e(v)^2 / |eta|^2,    e = how far eta.W*(v) lies outside.

For prompts of any length the left side is void; the empty prompt (v = 1, W = 0) meets the right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from flint import arb

from promptlimits.base.errors import UserError, require_positive_int
from promptlimits.base.exact import working_precision
from promptlimits.lab.one_layer.oracle.inputs import (
    PRECISION,
    ExactInputs,
    Vector,
    exact_entries,
)
from promptlimits.lab.one_layer.oracle.problem import Problem, oracle_problem
from promptlimits.lab.one_layer.reachable import value_ranks
from promptlimits.lab.one_layer.setting import (
    Floats,
    SharedQuery,
    attend,
    score_vectors,
    value_maps,
)
from promptlimits.lipschitz.balls.rounding import dot, exact_matrix

GRID: Final = 4001
DEPENDENT: Final = 1e-8
"""c counts as V^T eta if what is left of it is below this share of it."""

_TAIL: Final = 801
"""Points of the grid where Z is so large that almost nothing but the prompt is seen."""

_MARGINS: Final = (
    (1e-300, 14),
    *((10.0**-exponent, exponent) for exponent in (14, 10, 8, 6, 5, 4, 3)),
)
"""Distances that a witness keeps from v = 0, and from v = 1 as a power of ten."""

_NUMBERS: Final = 2**23
_LEAST_ENTROPY: Final = 1e-7
"""A witness keeps its entropy this far above 0, where it is not 0 by choice."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LengthOptimum:
    """The least sum of squared errors found for one head and a given length."""

    tokens: int | None  # m_p, or None for any length
    found: float  # sum_j c_j^2 |u_j - x_0 - t_j|^2 at the optimum
    log_weight: float  # log Z there
    mean: Floats  # A there, (d,)
    prompt: Floats | None  # A prompt that attains or approaches it; None for any length
    # Its (weighted) sum of squared errors, evaluated on the prompt itself; None without it.
    achieved: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Slab:
    """The constants of the slab."""

    targets: list[arb]  # eta.t_j
    means: list[arb]  # eta.a_j
    size: arb  # |eta|^2
    log_least: arb  # log Zmin
    room: arb | None  # log m_p, or None for prompts of any length
    tokens: int | None  # m_p, or None


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # what is not finite is not kept
def score_covector(setting: SharedQuery) -> Floats | None:
    """The eta in range(V) with V^T eta = c, (d,), or None if there is none (numerically)."""
    value, score = value_maps(setting.layer)[0], score_vectors(setting)[0]
    eta = np.linalg.pinv(value.T, rcond=1e-12) @ score
    off = float(np.linalg.norm(value.T @ eta - score))
    return None if off > DEPENDENT * float(np.linalg.norm(score)) else np.asarray(eta)


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # what is not finite is not kept
def best_of_length(
    setting: SharedQuery,
    targets: Floats,
    *,
    tokens: int | None = None,
    scale: Floats | None = None,
) -> LengthOptimum:
    """The least error that prompts of a given length reach, one head."""
    if setting.front is not None or setting.rotary_base is not None:
        raise ValueError("entropy limits A and Z in this form in the plain layer only")
    heads = len(setting.layer.heads)
    if heads != 1:
        raise UserError("the layer", "have one head", got=heads, remedy="use the oracle")
    eta = score_covector(setting)
    if eta is None or not eta.any():
        raise UserError(
            "the head",
            "have scores that its values determine (c = V^T eta, not 0)",
            got="scores that are free, or that doubles cannot tell from free ones",
            remedy="use the oracle: one token reaches all statistics of a head of free scores",
        )
    if tokens is not None:
        require_positive_int("the number of prompt tokens", tokens)
    problem = oracle_problem(setting, targets)
    weighted = problem if scale is None else problem.weighted(scale)
    return _best(setting, weighted, targets, eta, tokens)


def _best(
    setting: SharedQuery, problem: Problem, targets: Floats, eta: Floats, tokens: int | None
) -> LengthOptimum:
    roots = problem.scale[:, None]
    room = np.inf if tokens is None else float(np.log(tokens))
    best = _search(problem, eta, room)
    value, mean = _slab(problem, eta, room, np.array([best]))
    least, mean_there = float(value[0]), mean[0]
    log_weight = float(problem.log_least[0] + np.log1p(-best) - np.log(best))
    prompt, achieved = None, None
    for low, exponent in _MARGINS if tokens is not None else ():
        inside = np.clip(best, low, 1 - 10.0**-exponent)
        here = _slab(problem, eta, room, np.array([inside]))[1][0]
        log = float(problem.log_least[0] + np.log1p(-inside) - np.log(inside))
        tried = _witness(setting, eta, here, log, tokens or 1)
        error = float(((roots * (attend(setting, tried) - targets)) ** 2).sum())
        if achieved is None or error < achieved:
            prompt, achieved = tried, error
    limit, free = _all_weight(problem)
    if tokens is None:
        least = min(least, limit)
    else:
        # Copies of one token of score eta.A: as good as v = 0 if that is far above log Zmin.
        token = np.linalg.pinv(value_maps(setting.layer)[0], rcond=1e-12) @ free
        tried = np.repeat(token[:, None], tokens, axis=1)
        error = float(((roots * (attend(setting, tried) - targets)) ** 2).sum())
        if achieved is None or error < achieved:
            prompt, achieved, least = tried, error, min(least, error)
            log_weight, mean_there = float(eta @ free + np.log(tokens)), free
    return LengthOptimum(
        tokens=tokens,
        found=least,
        log_weight=log_weight,
        mean=mean_there,
        prompt=prompt,
        achieved=achieved,
    )


def _slab(problem: Problem, eta: Floats, room: float, points: Floats) -> tuple[Floats, Floats]:
    """Least value and its A for each v, (N,) and (N, d)."""
    v = points[:, None]
    excess, means, basis = problem.excess[:, 0], problem.means[:, 0], problem.bases[0]
    own = 1 / (1 + excess * v)
    fixed = problem.targets - ((1 + excess) * v * own)[..., None] * means
    share = problem.scale * own
    weight = (share**2).sum(axis=1)
    free = np.einsum("bk,bkd->bd", share, fixed) @ basis @ basis.T / weight[:, None]
    mean = free / (1 - v)
    log_weight = problem.log_least[0] + np.log1p(-points) - np.log(points)
    scored = mean @ eta
    allowed = np.clip(scored, log_weight - room, log_weight)
    mean = mean + ((allowed - scored) / (eta @ eta))[:, None] * eta
    left = fixed - share[..., None] * ((1 - v) * mean)[:, None]
    return (left**2).sum(axis=(1, 2)), mean


def grid_points(targets: Floats) -> int:
    """Points of the first grid: fewer for large problems, whose arrays would not fit."""
    return max(min(GRID, _NUMBERS // targets.size), 41)


def _search(problem: Problem, eta: Floats, room: float) -> float:
    """A grid even in log Z, refined around its best points."""
    count = grid_points(problem.targets)
    far = _far(problem, eta)
    logit = np.concatenate([np.linspace(-30, 30, count), np.linspace(30, far, _TAIL)[1:]])
    place = int(_slab(problem, eta, room, 1 / (1 + np.exp(logit)))[0].argmin())
    best = logit[place]
    width = logit[place] - logit[place - 1] if place else logit[1] - logit[0]
    while width > 1e-13 * max(abs(best), 1.0):
        near = best + width * np.linspace(-1, 1, 41)
        best = near[_slab(problem, eta, room, 1 / (1 + np.exp(near)))[0].argmin()]
        width /= 10
    return float(1 / (1 + np.exp(best)))


def _far(problem: Problem, eta: Floats) -> float:
    """log((1 - v) / v) beyond which the free minimiser at v = 0 is within reach of entropy.

    There eta.W* <= log Z holds, and the error hardly depends on v any more.
    """
    free = _all_weight(problem)[1]
    return float(min(40 + abs(eta @ free) + abs(problem.log_least[0]), 690.0))


def _all_weight(problem: Problem) -> tuple[float, Floats]:
    """The least error where the prompt has all the weight, v = 0, and the A that leaves it."""
    share, basis = problem.scale, problem.bases[0]
    free = share @ problem.targets @ basis @ basis.T / (share @ share)
    return float(((problem.targets - share[:, None] * free) ** 2).sum()), np.asarray(free)


def _witness(
    setting: SharedQuery, eta: Floats, mean: Floats, log_weight: float, tokens: int
) -> Floats:
    """A prompt of given length with these statistics, or close if its entropy would be 0."""
    scored = float(eta @ mean)
    entropy = min(max(log_weight - scored, 0.0), float(np.log(tokens)))
    if tokens > 1:
        entropy = max(entropy, _LEAST_ENTROPY)
    weights = _weights_of_entropy(entropy, tokens)
    score = score_vectors(setting)[0]
    start = np.linalg.pinv(value_maps(setting.layer)[0], rcond=1e-12) @ mean
    own = np.log(weights) + log_weight
    away = own - weights @ own
    return np.asarray(start[:, None] + np.outer(score, away) / (score @ score))


def _weights_of_entropy(entropy: float, count: int) -> Floats:
    """One weight above count - 1 equal ones, of a given entropy from 0 to log(count)."""
    if count == 1:
        return np.ones(1)
    low, high = -700.0, -float(np.log(count))  # log of each small weight
    for _ in range(200):
        middle = (low + high) / 2
        small = np.exp(middle)
        large = -np.expm1(np.log(count - 1) + middle)
        value = -(count - 1) * small * middle - large * np.log(large)
        low, high = (middle, high) if value < entropy else (low, middle)
    small = np.exp(high)
    return np.array([1 - (count - 1) * small] + [small] * (count - 1))


def bound_by_entropy(setting: SharedQuery) -> bool:
    """Whether the layer is one for which `slab_of` gives a slab, but for rounding."""
    layer = setting.layer
    return (
        len(layer.heads) == 1
        and setting.front is None
        and setting.rotary_base is None
        and value_ranks(layer)[0] == layer.dim
        and score_covector(setting) is not None
        and bool(score_vectors(setting).any())
    )


def slab_of(setting: SharedQuery, inputs: ExactInputs, tokens: int | None) -> Slab | None:
    """The slab of a layer with one head, if V is exactly invertible and c is not 0."""
    if not bound_by_entropy(setting):
        return None
    with working_precision(PRECISION):
        eta = _covector(setting)
        if eta is None:
            return None
        size = dot(eta, eta)
        if not size > 0:
            return None
        return Slab(
            targets=[dot(eta, target) for target in inputs.targets],
            means=[dot(eta, mean[0]) for mean in inputs.means],
            size=size,
            log_least=inputs.log_least[0],
            room=None if tokens is None else arb(tokens).log(),
            tokens=tokens,
        )


def _covector(setting: SharedQuery) -> Vector | None:
    """Enclosure of eta = V^(-T) W_k^T W_q x_0, or None."""
    head = setting.layer.heads[0]
    token = exact_matrix(setting.token[:, None])
    score = exact_matrix(head.key).transpose() * (exact_matrix(head.query) * token)
    value = exact_matrix(head.output) * exact_matrix(head.value)
    try:
        entries = exact_entries(value.transpose().solve(score))
    except ZeroDivisionError:
        return None
    return entries if all(entry.is_finite() for entry in entries) else None
