"""Lipschitz constants and output radii of feed-forward blocks: ReLU, GELU, SiLU, gated ones.

**Slopes.** g(x) = x c(x) with c(-x) = 1 - c(x), c increasing (GELU: the normal distribution or
its tanh form; SiLU: the logistic function) has g'(x) + g'(-x) = 1 and g' >= 1/2 on x >= 0, so
its slopes fill [1 - s, s], s = max g'. GELU: g'' vanishes at 2^(1/2), s = 1.128904..; SiLU:
where x tanh(x/2) = 2, s = 1.099839..; GELU by tanh: s < 1.1291. The rounded constants below are
proved in the tests by ball arithmetic. ReLU: [0, 1].

**Block with residual**, x + W_2 act(W_1 x + b_1) + b_2, slopes in [a, b]. The difference of two
values is (I + W_2 D W_1)(x - x'), D diagonal with entries in [a, b] (mean value theorem, entry
by entry). For each anchor t in {a, (a+b)/2, b} and any positive diagonal T,

    Lip <= ||I + t W_2 W_1|| + max(b - t, t - a) min(||W_2|| ||W_1||, ||W_2 T^-1|| ||T W_1||).

T is made of powers of two that balance the columns of W_2 against the rows of W_1. With
a = t = 0, b = 1 it is the familiar 1 + ||W_1|| ||W_2||. *Radius:* |x| <= r gives
|MLP(x)| <= |MLP(0)| + Lip r, and for ReLU also
r + |b_2| + ||W_2|| ( sum_i max(0, |w_i| r + b_i)^2 )^(1/2), w_i the rows of W_1.

**Gated block** (SwiGLU, GeGLU; no biases), x + W_2 ( g(W_g x) * W_u x ) on |x| <= r. Its
derivative is I + W_2 [ diag(u) D_g W_g + diag(g) W_u ], |u_i| <= |w_u,i| r =: u_i*,
|g_i| <= |w_g,i| r =: g_i* (|g(x)| <= |x|), |D_g| <= s:

    Lip <= 1 + min( s ||W_2 diag u*|| ||W_g|| + ||W_2 diag g*|| ||W_u||,
                    ||W_2 [diag u*, diag g*]|| ||[s W_g; W_u]|| ),

the second with one diagonal contraction between the two stacked matrices. *Radius:*
r + ||W_2|| min( ||W_g|| r max_i u_i*, (sum_i (g_i* u_i*)^2)^(1/2) ).

*Tightness.* One neuron attains the first form. *Cost:* five norms of (d, f) matrices.
Source: proved here; style of [@behrmann2019].
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from flint import arb
from numpy.typing import NDArray

from promptlimits.lipschitz.balls.matrix import (
    MatrixBall,
    add_up,
    frobenius_up,
    multiply_up,
)
from promptlimits.lipschitz.balls.rounding import ball, least, total, upper
from promptlimits.lipschitz.balls.scaled import ScaledBall
from promptlimits.lipschitz.balls.spectral import row_norms, spectral_norm, vector_norm
from promptlimits.nets.paper.weights import LayerWeights


@dataclass(frozen=True, kw_only=True)
class Slopes:
    """Every difference quotient of an activation lies in [least, greatest]."""

    least: Fraction
    greatest: Fraction


RELU: Final = Slopes(least=Fraction(0), greatest=Fraction(1))
GELU: Final = Slopes(least=Fraction(-12891, 100000), greatest=Fraction(112891, 100000))
GELU_TANH: Final = Slopes(least=Fraction(-1291, 10000), greatest=Fraction(11291, 10000))
SILU: Final = Slopes(least=Fraction(-9984, 100000), greatest=Fraction(109984, 100000))
SLOPES: Final = {"relu": RELU, "gelu": GELU, "gelu_tanh": GELU_TANH, "silu": SILU}


@dataclass(frozen=True, kw_only=True)
class FeedForwardNorms:
    """Proved norms of a block with residual; none depends on the radius.

    Attributes:
        lipschitz: Upper limit on the Lipschitz constant, residual included.
        published: 1 + ||W_1|| ||W_2|| max slope, as papers have it.
        offset: Upper limit on |MLP(0)|.
        output_norm: Upper limit on ||W_2||.
        output_bias: Upper limit on |b_2|.
        row_norms: Upper limits on |w_i|, rows of W_1.
        biases: b_1, exactly.
    """

    lipschitz: Fraction
    published: Fraction
    offset: Fraction
    output_norm: Fraction
    output_bias: Fraction
    row_norms: tuple[Fraction, ...]
    biases: tuple[Fraction, ...]

    def output_limit(self, radius: arb) -> arb:
        """Limit on |MLP(x)| over |x| <= radius for ReLU, at the current precision."""
        reach = total(
            ball(max(upper(ball(norm) * radius + ball(bias)), Fraction(0))) ** 2
            for norm, bias in zip(self.row_norms, self.biases, strict=True)
        )
        by_rows = radius + ball(self.output_bias) + ball(self.output_norm) * reach.sqrt()
        return least(ball(self.offset) + ball(self.lipschitz) * radius, by_rows)


def feed_forward_norms(layer: LayerWeights) -> FeedForwardNorms:
    """Prove the norms of the ReLU block of a layer."""
    bias = ScaledBall.exact(layer.b2)
    hidden = ScaledBall.exact(np.maximum(layer.b1, 0.0))
    offset = ScaledBall.exact(layer.w2) @ hidden + bias if layer.hidden else bias
    outer = spectral_norm(layer.w2)
    return FeedForwardNorms(
        lipschitz=residual_lipschitz(layer.w1, layer.w2, RELU),
        published=1 + spectral_norm(layer.w1) * outer,
        offset=offset.frobenius_norm(),
        output_norm=outer,
        output_bias=vector_norm(layer.b2),
        row_norms=row_norms(layer.w1),
        biases=tuple(Fraction(float(b)) for b in layer.b1),
    )


def residual_lipschitz(
    w1: NDArray[np.float64], w2: NDArray[np.float64], slopes: Slopes
) -> Fraction:
    """Upper limit on the Lipschitz constant of x + W_2 act(W_1 x + b_1) + b_2."""
    if w1.shape[0] == 0:
        return Fraction(1)
    product = ScaledBall.exact(w2) @ ScaledBall.exact(w1)
    identity = ScaledBall(ball=MatrixBall.identity(w1.shape[1]), exponent=0)
    around = _balanced_product(w1, w2)
    low, high = slopes.least, slopes.greatest
    return min(
        (Fraction(1) if t == 0 else (identity + product.scaled(t)).spectral_norm())
        + max(high - t, t - low) * around
        for t in (low, (low + high) / 2, high)
    )


def branch_lipschitz(w1: NDArray[np.float64], w2: NDArray[np.float64], slopes: Slopes) -> Fraction:
    """Upper limit on the Lipschitz constant of W_2 act(W_1 x + b_1) + b_2, without residual."""
    if w1.shape[0] == 0:
        return Fraction(0)
    product = (ScaledBall.exact(w2) @ ScaledBall.exact(w1)).spectral_norm()
    around = _balanced_product(w1, w2)
    low, high = slopes.least, slopes.greatest
    return min(
        abs(t) * product + max(high - t, t - low) * around
        for t in (Fraction(0), (low + high) / 2, high)
    )


def _balanced_product(w1: NDArray[np.float64], w2: NDArray[np.float64]) -> Fraction:
    """min(||W_2|| ||W_1||, ||W_2 T^-1|| ||T W_1||), T of powers of two: the scaling is exact."""
    plain = spectral_norm(w1) * spectral_norm(w2)
    one, two = ScaledBall.exact(w1), ScaledBall.exact(w2)
    first, second = one.ball, two.ball
    rows, columns = np.linalg.norm(first.center, axis=1), np.linalg.norm(second.center, axis=0)
    if first.radius or second.radius or not (rows.all() and columns.all()):
        return plain
    exponents = np.clip(np.rint(np.log2(columns / rows) / 2), -64, 64).astype(int)
    if not exponents.any():
        return plain
    left = _exactly_scaled(second.center, -exponents)
    right = _exactly_scaled(first.center.T, exponents)
    if left is None or right is None:
        return plain
    power = Fraction(2) ** (one.exponent + two.exponent)
    return min(plain, spectral_norm(left) * spectral_norm(right) * power)


def _exactly_scaled(
    matrix: NDArray[np.float64], exponents: NDArray[np.int_]
) -> NDArray[np.float64] | None:
    """Columns times powers of two; None if that over- or underflows."""
    scaled = np.ldexp(matrix, exponents)
    exact = np.isfinite(scaled).all() and np.array_equal(np.ldexp(scaled, -exponents), matrix)
    return scaled if exact else None


@dataclass(frozen=True, kw_only=True)
class GatedNorms:
    """A gated block on a ball.

    Attributes:
        lipschitz: Upper limit on the Lipschitz constant of the branch; add 1 for a residual.
        output: Upper limit on the branch's length on the ball; add the radius for a residual.
    """

    lipschitz: Fraction
    output: Fraction


def gated_norms(
    gate: NDArray[np.float64],
    up: NDArray[np.float64],
    down: NDArray[np.float64],
    *,
    radius: Fraction,
    slopes: Slopes,
) -> GatedNorms:
    """Prove the norms of W_2 ( g(W_g x) * W_u x ) on |x| <= r, without residual."""
    gates, ups = row_norms(gate), row_norms(up)
    by_up, by_gate = _columns_scaled(down, ups), _columns_scaled(down, gates)
    steepest = max(abs(slopes.least), abs(slopes.greatest))
    norm_gate, norm_up = spectral_norm(gate), spectral_norm(up)
    apart = steepest * spectral_norm(by_up) * norm_gate + spectral_norm(by_gate) * norm_up
    stacked = MatrixBall.concatenate(
        [MatrixBall.exact(gate).scaled(steepest), MatrixBall.exact(up)], axis=0
    )
    wide = MatrixBall.concatenate([by_up, by_gate], axis=1)
    joint = spectral_norm(wide) * spectral_norm(stacked)
    products = np.array([[float(g * u)] for g, u in zip(gates, ups, strict=True)])
    by_rows = vector_norm(np.nextafter(products, np.inf))
    by_largest = norm_gate * max(ups, default=Fraction(0))
    return GatedNorms(
        lipschitz=radius * min(apart, joint),
        output=radius**2 * spectral_norm(down) * min(by_rows, by_largest),
    )


def _columns_scaled(matrix: NDArray[np.float64], factors: tuple[Fraction, ...]) -> MatrixBall:
    """M diag(factors); the factors are floats, and each entry is rounded once."""
    center = matrix * np.array([float(f) for f in factors])
    rounding = multiply_up(2.0**-53, frobenius_up(center))
    tiny = multiply_up(float(max(center.size, 1)), 2.0**-1074)
    return MatrixBall(center=center, radius=add_up(rounding, tiny))
