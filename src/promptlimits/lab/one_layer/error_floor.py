"""Below this error no prompt of any length brings a layer: Theorem 5, proved for given floats.

Notation as in `setting`; t_j is the offset asked for in query j, y_j = MLP(x_0 + t_j) the target,
e_j = |u_j - x_0 - t_j|.

**Statement** (Theorem 5 of this package's errata to [@meyer2025], correcting its Theorem 5.8).
Let E be the span of all a_j^i, pi the projection on its complement, U = [t_1 .. t_k]. For all
prompts of all lengths together, and all weights w of the simplex,

    max_j e_j^2  >=  sum_j w_j e_j^2  >=  sum over l > h of sigma_l( pi U diag(sqrt w) )^2.

If c < 1 for the Lipschitz constant c of MLP - id, which ||W_1|| ||W_2|| limits, some output is
wrong by (1 - c) times the root of it.

**Proof.** pi(u_j - x_0) = sum_i mu_j^i pi A^i, so these columns have rank at most h, with or
without diag(sqrt w), and pi shortens. The best approximation of rank h misses the tail of the
singular values (Eckart, Young, Mirsky). Last, |MLP(u) - MLP(v)| >= (1 - c)|u - v|. []

**In floats.** Any linear contraction B serves in the place of pi, with the error D it leaves:
with |D_j| = sum_i |B a_j^i| (as 0 <= lambda <= 1),

    ( sum_j w_j e_j^2 )^(1/2)  >=  ( sum over l > h of sigma_l(B U diag(sqrt w))^2 )^(1/2)
                                   -  ( sum_j w_j D_j^2 )^(1/2).

So pi need not be exact. The a_j^i are enclosed in balls; the eigenvalues of a Gram matrix G are
limited from below through G = Q L Q^T + F (L diagonal): each is at least
(1 - ||Q^T Q - I||) l - ||F||, by Ostrowski and Weyl. The weights are chosen in floats and then
are exact.

**Orthogonal offsets.** For t_j orthogonal and orthogonal to E, weights proportional to
1/|t_j|^2 make all singular values equal, and the floor is, for the best q of the k offsets,

    max_j e_j^2  >=  (q - h) / sum_j |t_j|^(-2),       for k = h + 1 at least r^2/(h+1).

**Tightness.** 1/sqrt(h+1) is attained for every h (`promptlimits errata E13`); for one head it is
above the published r/2. With ranks and signs taken into account the oracle is higher.

**Where the paper differs.** r/2 is false from h = 4 (E13); its r is that of the outputs, which
is false from h = 1 (E14).

**Best weights.** For a d x k matrix U = Q R the floor at weights w is

    f(w)  =  sum of the k - h least eigenvalues of diag(sqrt w) U^T U diag(sqrt w)
          =  min over projections X of rank k - h (their hull: 0 <= X <= I, tr X = k - h)
             of  sum_j w_j (R^T X R)_jj.

It is a minimum of linear functions: concave, homogeneous of degree one, and with kinks where
eigenvalues meet, as they do at the best weights. Here the projection is smoothed to an occupation
1/(1 + exp((lambda - mu)/T)), and weights are multiplied by powers of their slopes while T falls.
Any weights give a true floor; these are only chosen well.

**Cost.** Milliseconds.

**Offsets of answers**: t_j with MLP(x_0 + t_j) = y_j. For ||W_1|| ||W_2|| < 1 the MLP is one to one
and onto, so t_j exists and is the only one. Else there may be several or none; one that is found is
used, and `unique` says that others may exist. Newton's method on a piecewise linear map ends in
finitely many steps or cycles; where it cycles, and the MLP is a contraction beside its residual,
the fixed point z = y - (MLP(z) - z) is iterated as in [@behrmann2019].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from flint import arb

from promptlimits.base.bound import PRECISION_BITS, Exact, LogBound, Source
from promptlimits.base.errors import UserError
from promptlimits.base.exact import working_precision
from promptlimits.lab.one_layer.setting import Floats, SharedQuery, feed_forward, proved_means
from promptlimits.lipschitz.balls.matrix import MatrixBall
from promptlimits.lipschitz.balls.rounding import ball, lower, total
from promptlimits.lipschitz.balls.spectral import spectral_norm
from promptlimits.lipschitz.paper.feedforward import branch_lipschitz
from promptlimits.nets.paper.weights import LayerWeights, exact_array

SOURCE: Final = Source(
    reference="promptlimits",
    statement="Theorem 5: error floor of one layer, prompts of every length",
    form="corrected",
)
_ROOT_STEP: Final = 2.0**-30
"""Roots of weights are multiples of this, so that the weights are short exact numbers."""

_SPAN: Final = 1e-10
"""Directions of E weaker than this share of the longest offset are left to the error D."""

_STEPS: Final = 240
_HOTTEST: Final = 0.1
_COLDEST: Final = 3e-4
"""T as a share of the mean eigenvalue, at the first and at the last step."""

_LEAST: Final = 1e-12
_PACE: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class ErrorFloor:
    """A proved floor under the errors of all prompts.

    Attributes:
        squared: max_j e_j^2 >= sum_j w_j e_j^2 >= this, before the MLP; 0 if nothing is proved.
        error: max_j e_j is at least this; the root of `squared`, rounded down.
        weights: w, exact, of sum 1.
        rank: Singular values that prompts take away; h for prompts of every length.
        contraction: 1 - c of the MLP, rounded down; 0 if c < 1 is not proved.
        source: The theorem.
    """

    squared: Fraction
    error: Fraction
    weights: tuple[Fraction, ...]
    rank: int
    contraction: Fraction
    source: Source = SOURCE

    @property
    def output_error(self) -> Fraction:
        """Some output of the layer is wrong by at least this."""
        return self.error * self.contraction

    def bound(self) -> LogBound | None:
        """The floor before the MLP as a lower limit on a logarithm; None if it is 0."""
        if not self.error:
            return None
        return LogBound.of(
            self.error,
            direction="lower",
            quantity="largest error of any prompt, before the MLP",
            source=self.source,
        )


def error_floor(
    setting: SharedQuery, targets: Floats, *, weights: Sequence[Exact] | None = None
) -> ErrorFloor:
    """The floor of Theorem 5 for given queries and offsets.

    Args:
        setting: The layer and its queries; without rotary positions.
        targets: t_j = y'_j as rows, (k, d), read as exact numbers.
        weights: w, of any sum above 0; by default they are optimised.

    Returns:
        The floor; a floor of 0 says nothing.

    Raises:
        UserError: The targets have another shape or hold NaN; weights are negative or all 0.
    """
    rows = exact_array("the target offsets", targets, (setting.count, setting.layer.dim))
    known = [list(proved_means(setting, query)) for query in setting.queries]
    return tail_floor(
        MatrixBall.exact(np.ascontiguousarray(rows.T)),
        known,
        rank=len(setting.layer.heads),
        contraction=contraction(setting.layer),
        weights=weights,
    )


def tail_floor(
    targets: MatrixBall,
    known: Sequence[Sequence[MatrixBall]],
    *,
    rank: int,
    contraction: Fraction,
    weights: Sequence[Exact] | None = None,
) -> ErrorFloor:
    """The theorem for columns t_j, known vectors with shares in [0, 1], and rank h matrices."""
    beside = _complement(known, float(np.abs(targets.center).max(initial=0.0)))
    projected = MatrixBall.exact(beside) @ targets
    chosen = _roots(projected.center, rank, weights)
    squared = error = Fraction(0)
    if 0 <= rank < len(known) and len(beside):
        squared, error = _evaluate(projected, beside, known, chosen, rank)
    whole = sum(Fraction(root) ** 2 for root in chosen)
    return ErrorFloor(
        squared=squared,
        error=error,
        weights=tuple(Fraction(root) ** 2 / whole for root in chosen),
        rank=rank,
        contraction=contraction,
    )


def contraction(layer: LayerWeights) -> Fraction:
    """1 - c for a limit c on the Lipschitz constant of MLP - id, or 0.

    c is at most ||W_1|| ||W_2||, and less where neurons can be balanced.
    """
    if layer.hidden == 0:
        return Fraction(1)
    return max(1 - branch_lipschitz(layer.w1, layer.w2), Fraction(0))


def _complement(known: Sequence[Sequence[MatrixBall]], size: float) -> Floats:
    """Rows that are nearly an orthonormal basis of E's complement, (m, d)."""
    columns = np.concatenate([each.center for one in known for each in one], axis=1)
    left, sizes, _ = np.linalg.svd(columns)
    used = int((sizes > _SPAN * size).sum())
    return np.ascontiguousarray(left[:, used:].T)


def _roots(projected: Floats, rank: int, weights: Sequence[Exact] | None) -> list[float]:
    """Roots of weights as short floats."""
    count = projected.shape[1]
    if weights is None:
        usable = len(projected) and count > rank and projected.any()
        plain = best_weights(projected, rank) if usable else np.ones(count)
    else:
        if len(weights) != count or min(weights) < 0 or not any(weights):
            raise UserError(
                "the weights",
                f"be {count} numbers of at least 0, not all 0",
                got=str(list(weights)),
                remedy="leave them out for the best",
            )
        plain = np.array([float(weight) for weight in weights])
    roots = np.sqrt(plain / plain.max())
    return [float(root) for root in np.rint(roots / _ROOT_STEP) * _ROOT_STEP]


def _evaluate(
    projected: MatrixBall,
    beside: Floats,
    known: Sequence[Sequence[MatrixBall]],
    roots: list[float],
    rank: int,
) -> tuple[Fraction, Fraction]:
    """The floor's square and the floor, proved at given weights."""
    tail = _tail(projected @ MatrixBall.exact(np.diag(roots)), rank)
    left = [
        sum(Fraction((MatrixBall.exact(beside) @ each).frobenius_upper()) for each in one)
        for one in known
    ]
    with working_precision(PRECISION_BITS):
        whole = total(ball(Fraction(root)) ** 2 for root in roots)
        lost = total(
            (ball(Fraction(root)) * ball(Fraction(one))) ** 2
            for root, one in zip(roots, left, strict=True)
        )
        longest = ball(spectral_norm(beside))
        error = (ball(tail).sqrt() - lost.sqrt()) / (longest * whole.sqrt())
        if not error > 0:
            return Fraction(0), Fraction(0)
        lowest = arb(error.lower())
        return lower(lowest * lowest), lower(lowest)


def _tail(matrix: MatrixBall, rank: int) -> Fraction:
    """Lower limit on the sum of all squared singular values but the `rank` greatest."""
    gram = (matrix.T @ matrix).symmetrised()
    values, vectors = np.linalg.eigh(gram.center)
    values = np.maximum(values, 0.0)
    basis = MatrixBall.exact(np.ascontiguousarray(vectors))
    skew = (basis.T @ basis - MatrixBall.identity(len(values))).frobenius_upper()
    middle = basis @ MatrixBall.exact(np.diag(values)) @ basis.T
    rest = Fraction((gram - middle).frobenius_upper())
    kept = (Fraction(float(value)) for value in values[: len(values) - rank])
    return sum(
        (max((1 - Fraction(skew)) * value - rest, Fraction(0)) for value in kept), Fraction(0)
    )


def best_weights(projected: Floats, rank: int) -> Floats:
    """Weights of the simplex for which the tail of squared singular values is large."""
    factor: Floats = np.asarray(np.linalg.qr(projected, mode="r"), dtype=np.float64)
    start = max(_by_length(factor, rank), key=lambda weights: _float_tail(factor, weights, rank))
    best, value = start, _float_tail(factor, start, rank)
    weights = (start + 1 / len(start)) / 2
    kept = factor.shape[1] - rank
    for step in range(_STEPS):
        cold = _HOTTEST * (_COLDEST / _HOTTEST) ** (step / _STEPS)
        slopes = _slopes(factor, weights, kept, cold)
        top = float(slopes.max())
        if not top > 0:
            break
        # The smoothed function bends as 1/T: steps that fall with T neither jump nor stall.
        weights = weights * np.maximum(slopes / top, _LEAST) ** min(1.0, _PACE * cold)
        weights = np.maximum(weights / weights.sum(), _LEAST)
        weights = weights / weights.sum()
        found = _float_tail(factor, weights, rank)
        if found > value:
            best, value = weights, found
    return np.asarray(best)


def _by_length(factor: Floats, rank: int) -> list[Floats]:
    """For each q the weights 1/|t_j|^2 on the q longest: the best for orthogonal columns."""
    squares = np.maximum((factor**2).sum(axis=0), 1e-300)
    order = np.argsort(-squares)
    found = [np.full(len(squares), 1 / len(squares))]
    for count in range(rank + 1, len(squares) + 1):
        weights = np.zeros(len(squares))
        weights[order[:count]] = squares[order[count - 1]] / squares[order[:count]]
        found.append(weights / weights.sum())
    return found


def _float_tail(factor: Floats, weights: Floats, rank: int) -> float:
    sizes = np.linalg.svd(factor * np.sqrt(weights), compute_uv=False)
    return float((sizes[rank:] ** 2).sum())


def _slopes(factor: Floats, weights: Floats, kept: int, cold: float) -> Floats:
    """Derivative of the smoothed floor in the weights, (k,)."""
    values, vectors = np.linalg.eigh((factor * weights) @ factor.T)
    scale = cold * max(float(values.mean()), 1e-300)
    occupied = _occupation(values / scale, kept - (factor.shape[1] - len(values)))
    return np.asarray(occupied @ (vectors.T @ factor) ** 2)


def _occupation(values: Floats, total: int) -> Floats:
    """1/(1 + exp(values - mu)) with mu such that they add up to `total`."""
    if total <= 0:
        return np.zeros_like(values)
    low, high = values.min() - 40.0, values.max() + 40.0
    for _ in range(40):
        middle = (low + high) / 2
        filled = 1 / (1 + np.exp(np.clip(values - middle, -700, 700)))
        low, high = (middle, high) if filled.sum() < total else (low, middle)
    return np.asarray(filled)


CLOSE: Final = 1e-10
"""Relative error of an answer that counts as met."""

_NEWTON: Final = 60
_FIXED_POINT: Final = 20_000
_STARTS: Final = 40


@dataclass(frozen=True, kw_only=True, eq=False)
class Preimages:
    """Offsets before the MLP."""

    offsets: Floats  # t_j as rows, (k, d)
    error: float  # largest |MLP(x_0 + t_j) - y_j|, measured
    unique: bool  # whether the MLP is proved one to one


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # what is not finite is not kept
def preimages(layer: LayerWeights, token: Floats, answers: Floats) -> Preimages:
    """Find the offsets that answers stand for."""
    rows = exact_array("the answers", answers, (np.shape(answers)[0], layer.dim))
    onto = contraction(layer) > 0
    found = []
    for number, row in enumerate(rows):
        point = _preimage(layer, row, onto=onto)
        if point is None:
            raise UserError(
                f"answer {number}",
                "lie in the range of the layer's MLP",
                got="one for which no pre-image was found",
                remedy="take answers MLP(z), or an MLP with ||W_1|| ||W_2|| < 1, which is onto",
            )
        found.append(point)
    points = np.stack(found)
    errors = np.linalg.norm(feed_forward(layer, points) - rows, axis=1)
    return Preimages(offsets=points - token, error=float(errors.max()), unique=onto)


def _preimage(layer: LayerWeights, wanted: Floats, *, onto: bool) -> Floats | None:
    plain = wanted - layer.b2
    size = 1 + float(np.linalg.norm(wanted))
    generator = np.random.default_rng(0)  # the same search for the same answer
    for start in range(_STARTS):
        away = size * generator.standard_normal(layer.dim) if start else 0.0
        point = _newton(layer, wanted, plain + away)
        if float(np.linalg.norm(feed_forward(layer, point) - wanted)) <= CLOSE * size:
            return point
        if onto:
            break
    if onto:
        point = plain
        for _ in range(_FIXED_POINT):
            point = point + wanted - feed_forward(layer, point)
        if float(np.linalg.norm(feed_forward(layer, point) - wanted)) <= CLOSE * size:
            return point
    return None


def _newton(layer: LayerWeights, wanted: Floats, point: Floats) -> Floats:
    for _ in range(_NEWTON):
        active = (layer.w1 @ point + layer.b1) > 0
        slope = np.eye(layer.dim) + (layer.w2 * active) @ layer.w1
        rest = wanted - feed_forward(layer, point)
        step = np.linalg.lstsq(slope, rest, rcond=None)[0]
        if not np.isfinite(step).all() or np.linalg.norm(step) <= 1e-15 * np.linalg.norm(point):
            break
        point = point + step
    return np.asarray(point)
