"""The numbers about the heads of a layer that every Lipschitz theorem for attention is made of.

Of head h: W_h = W_o W_v (d, d) and A_h = W_k^T W_q (d, d), each a product known up to rounding
(`MatrixBall`). None of these numbers depends on the radius.

**Spread** (covariance term). For |x_j| <= r let C_h be the covariances of the tokens under the
heads' weights. Then || sum_h W_h C_h A_h || <= r^2 * spread, for both of

    spread = sum_h max_{|v| = 1} |W_h v| |A_h^T v|                                       (P1)
    spread = || [s_1 W_1 .. s_H W_H] ||  || [A_1/s_1; ..; A_H/s_H] ||,  any s_h > 0.      (P1')

*Proof.* C_h >= 0 has trace E|x|^2 - |Ex|^2 <= r^2. With its eigenpairs (l_k, v_k),
||W C A|| <= sum_k l_k |W v_k||A^T v_k| <= r^2 max_v |Wv||A^T v|: (P1). For units u, e:
|u^T W C A e| <= |C^(1/2) W^T u| |C^(1/2) A e| <= r^2 |W^T u||A e|; sum over h and
Cauchy-Schwarz: (P1'). []  For positive p, q: |Wv||A^T v| <= |[pW; qA^T] v|^2 / (2pq), so
max_v |Wv||A^T v| <= || [pW; qA^T] ||^2 / (2pq). At p^2/q^2 = t this is
lambda_max(t W^T W + A A^T / t)/2; the least over t is exact for d >= 3 (the joint numerical
range of two quadratic forms is then convex), and never above ||W|| ||A||.

**Mixing** (Theorem C of the docs). For numbers c_h >= 0,

    max_{|u| = 1} sum_h c_h |W_h^T u|  <=  ( sum_h c_h^2/w_h^2 )^(1/2) || [w_1 W_1 .. w_H W_H] ||

for any w_h > 0, by Cauchy-Schwarz; w_h^2 = c_h^2/lambda_h gives
lambda_max( sum_h c_h^2 W_h W_h^T/lambda_h )^(1/2) of the theorem. Never above sum_h c_h ||W_h||.

p, q, s, w are chosen in floats: every choice is sound, and the value at the choice is proved.

Weights may be of any size: matrices are kept as powers of two times matrices with entries of at
most 1 (`ScaledBall`), and norms are exact numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from flint import arb
from numpy.typing import NDArray

from promptlimits.lipschitz.balls.matrix import MatrixBall
from promptlimits.lipschitz.balls.rounding import ball, float_near, least, total
from promptlimits.lipschitz.balls.spectral import ScaledBall, spectral_norm
from promptlimits.nets.paper.weights import Array, HeadWeights

_LEAST_NORM: Final = Fraction(1, 2**300)
"""Products of matrices with entries near 1 whose norms are below it are not balanced."""

_MOST_SHIFT: Final = 300
_NEGLIGIBLE: Final = 1e-12
_ROUNDS: Final = 40
_POWER_STEPS: Final = 6
_SEARCH_STEPS: Final = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadNorms:
    """Proved norms of all heads of one layer."""

    values: tuple[ScaledBall, ...]  # W_h of each head, with its power of two
    value_norms: tuple[Fraction, ...]  # upper limits on ||W_h||
    score_norms: tuple[Fraction, ...]  # upper limits on ||A_h||
    spread: Fraction  # upper limit on the lesser of (P1) and (P1')

    def mixing(self, costs: Sequence[arb]) -> arb:
        """Upper limit on max over unit u of sum_h c_h |W_h^T u|, at the current precision."""
        apart = [c * ball(n) for c, n in zip(costs, self.value_norms, strict=True)]
        plain = total(apart)
        if not plain.is_finite():
            return plain
        level = plain.upper() * arb(_NEGLIGIBLE)
        together = [h for h, cost in enumerate(apart) if cost.upper() > level]
        if len(together) < 2:
            return plain
        rest = total(cost for h, cost in enumerate(apart) if h not in together)
        # The powers of two of the W_h go to the c_h, which may be of any size.
        chosen = [costs[h] * arb((1, self.values[h].exponent)) for h in together]
        norms = [
            float_near(self.value_norms[h] / Fraction(2) ** self.values[h].exponent)
            for h in together
        ]
        choices = _mixing_factors([self.values[h].ball.center for h in together], norms, chosen)
        joint = [self._together(together, chosen, factors) + rest for factors in choices]
        return least(plain, *joint)

    def _together(
        self, heads: Sequence[int], costs: Sequence[arb], factors: Sequence[Fraction]
    ) -> arb:
        """Theorem C's limit at chosen w_h, from W_h without their powers of two."""
        parts = [self.values[h].ball.scaled(w) for h, w in zip(heads, factors, strict=True)]
        squares = total((c / ball(w)) ** 2 for c, w in zip(costs, factors, strict=True))
        return squares.sqrt() * ball(spectral_norm(MatrixBall.concatenate(parts, axis=1)))


def head_norms(heads: Sequence[HeadWeights]) -> HeadNorms:
    """Prove the norms of the heads of one layer."""
    values = tuple(ScaledBall.exact(h.output) @ ScaledBall.exact(h.value) for h in heads)
    scores = tuple(ScaledBall.exact(h.key).T @ ScaledBall.exact(h.query) for h in heads)
    value_norms = tuple(
        min(w.spectral_norm(), spectral_norm(h.output) * spectral_norm(h.value))
        for w, h in zip(values, heads, strict=True)
    )
    score_norms = tuple(
        min(a.spectral_norm(), spectral_norm(h.key) * spectral_norm(h.query))
        for a, h in zip(scores, heads, strict=True)
    )
    spread = sum(map(_crossed, heads, values, scores, value_norms, score_norms), Fraction(0))
    if len(heads) > 1:
        spread = min(spread, _joint_spread(values, scores, value_norms, score_norms))
    return HeadNorms(values=values, value_norms=value_norms, score_norms=score_norms, spread=spread)


def _crossed(
    head: HeadWeights,
    value: ScaledBall,
    score: ScaledBall,
    value_norm: Fraction,
    score_norm: Fraction,
) -> Fraction:
    """Upper limit on max_v |W v| |A^T v|, by (P1), both without their powers of two at first."""
    power = Fraction(2) ** (value.exponent + score.exponent)
    plain = value_norm * score_norm
    norms = [n / Fraction(2) ** b.exponent for n, b in ((value_norm, value), (score_norm, score))]
    if min(norms) < _LEAST_NORM:
        return plain
    p = _balancing_factor(head, value, score, float(norms[1] / norms[0]))
    stacked = MatrixBall.concatenate([value.ball.scaled(p), score.ball.T], axis=0)
    return min(plain, spectral_norm(stacked) ** 2 / (2 * Fraction(p)) * power)


def _balancing_factor(
    head: HeadWeights, value: ScaledBall, score: ScaledBall, start: float
) -> float:
    """Near-best p for || [pW; A^T] ||^2/(2p), by golden section on log p.

    |W v| = |R W_v v| with W_o = QR, and |A^T v| = |S W_k v| with W_q^T = QS: the norm is that
    of a matrix of s' + s rows, whose Gram matrix is formed once.
    """
    short = _short(head.output, head.value, value.exponent)
    tall = np.concatenate([short, _short(head.query.T, head.key, score.exponent)])
    gram = tall @ tall.T
    upper_rows = np.arange(len(tall)) < len(short)

    def height(log_p: float) -> float:
        p = math.exp(log_p)
        scale = np.where(upper_rows, p, 1.0)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = scale[:, None] * gram * scale
        if not np.isfinite(scaled).all():
            return math.inf
        return float(np.linalg.eigvalsh(scaled)[-1]) / (2 * p)

    ratio = (math.sqrt(5) - 1) / 2
    low, high = math.log(start) - 3, math.log(start) + 3
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = height(left), height(right)
    for _ in range(_SEARCH_STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = height(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = height(right)
    return math.exp((low + high) / 2)


def _short(outer: Array, inner: Array, exponent: int) -> Array:
    """About R inner / 2^exponent, with outer = QR."""
    left, right = ScaledBall.exact(outer), ScaledBall.exact(inner)
    rest = left.exponent + right.exponent - exponent
    product = np.linalg.qr(left.ball.center, mode="r") @ right.ball.center
    return np.asarray(np.ldexp(product, min(max(rest, -_MOST_SHIFT), _MOST_SHIFT)))


def _joint_spread(
    values: Sequence[ScaledBall],
    scores: Sequence[ScaledBall],
    value_norms: Sequence[Fraction],
    score_norms: Sequence[Fraction],
) -> Fraction:
    """Upper limit by (P1'), the heads balanced by their norms.

    With W_h = 2^e W'_h, A_h = 2^f A'_h and E the greatest e + f, s_h W_h = t_h W'_h and
    A_h/s_h = 2^E (2^(e + f - E) / t_h) A'_h for t_h = 2^e s_h: any t_h > 0 will do.
    """
    powers = [w.exponent + a.exponent for w, a in zip(values, scores, strict=True)]
    most = max(powers)
    # What is far below the greatest may be counted as more than it is.
    shares = [math.ldexp(1.0, max(power - most, -_MOST_SHIFT)) for power in powers]
    factors = []
    for w, a, value, score, share in zip(
        values, scores, value_norms, score_norms, shares, strict=True
    ):
        norms = value / Fraction(2) ** w.exponent, score / Fraction(2) ** a.exponent
        ratio = float(norms[1] / norms[0]) if min(norms) > _LEAST_NORM else 1.0
        factors.append(math.sqrt(share * ratio))
    # Rounded up, so that the product of a factor and its partner is at least the share.
    partners = [math.nextafter(p / s, math.inf) for p, s in zip(shares, factors, strict=True)]
    wide = [w.ball.scaled(s) for w, s in zip(values, factors, strict=True)]
    tall = [a.ball.scaled(s) for a, s in zip(scores, partners, strict=True)]
    left = spectral_norm(MatrixBall.concatenate(wide, axis=1))
    right = spectral_norm(MatrixBall.concatenate(tall, axis=0))
    return left * right * Fraction(2) ** most


def _mixing_factors(
    values: Sequence[NDArray[np.float64]], norms: Sequence[float], costs: Sequence[arb]
) -> tuple[list[Fraction], list[Fraction]]:
    """Two choices of w_h: lambda_h in proportion to c_h ||W_h||, and near-best by a game.

    In fictitious play eigenvectors answer lambda, and lambda answers their mean.

    The game "lambda against a density matrix R" has the pay-off
    sum_h c_h^2 tr(W_h^T R W_h)/lambda_h, convex in lambda and linear in R; against R the best
    lambda_h is proportional to c_h tr(W_h^T R W_h)^(1/2).
    """
    stack = np.stack(values) / max(norms)
    largest = max(costs, key=lambda c: c.upper())
    cost = np.maximum([float(c / largest) for c in costs], _NEGLIGIBLE)
    energy = np.array([(n / max(norms)) ** 2 for n in norms])
    start = energy.copy()
    vector = np.ones(stack.shape[1]) + np.arange(stack.shape[1]) / stack.shape[1]
    for play in range(1, _ROUNDS + 1):
        weights = cost / np.maximum(np.sqrt(energy), _NEGLIGIBLE)
        for _ in range(_POWER_STEPS):
            pulled = weights[:, None] * (vector @ stack)
            vector = (stack @ pulled[:, :, None]).sum(axis=0)[:, 0]
            vector /= np.linalg.norm(vector) or 1.0
        answer = vector @ stack
        energy += (np.einsum("hj,hj->h", answer, answer) - energy) / (play + 1)
    # w^2 = c^2/lambda with lambda proportional to c energy^(1/2).
    choices = [
        [Fraction(float(w)) for w in np.sqrt(cost / np.maximum(np.sqrt(seen), _NEGLIGIBLE))]
        for seen in (start, energy)
    ]
    return choices[0], choices[1]
