"""What a layer contributes to every bound: of the ReLU MLP, and of a whole layer.

The block is x + W_2 relu(W_1 x + b_1) + b_2. The difference of two values is (I + W_2 D W_1)(x -
x'), D diagonal with entries in [0, 1] (mean value theorem, entry by entry). For each anchor t in
{0, 1/2, 1} and any positive diagonal T,

    Lip <= ||I + t W_2 W_1|| + max(1 - t, t) min(||W_2|| ||W_1||, ||W_2 T^-1|| ||T W_1||).

T is made of powers of two that balance the columns of W_2 against the rows of W_1. With t = 0 it
is the familiar 1 + ||W_1|| ||W_2||. Without the residual, I and its 1 leave the formula.

*Radius:* |x| <= r gives |MLP(x)| <= |MLP(0)| + Lip r, and also
r + |b_2| + ||W_2|| ( sum_i max(0, |w_i| r + b_i)^2 )^(1/2), w_i the rows of W_1.

*Tightness.* One neuron attains the first form. *Cost:* five norms of (d, f) matrices.
Source: proved here; style of [@behrmann2019].

**A layer** has norms that are proved once and hold at each radius. Tokens that enter a layer in a
ball of radius r leave attention and residual within r + r M_0, M_0 = max_u sum_h |W_h^T u| (each
head averages tokens of the ball), and then the MLP's output is bounded as above. A bound that keeps
r at every layer, as [@meyer2025] uses Propositions 2.11 and 2.12, is no bound: tokens leave the
ball.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from flint import arb
from numpy.typing import NDArray

from promptlimits.base.bound import PRECISION_BITS, Exact
from promptlimits.base.exact import working_precision
from promptlimits.lipschitz.balls.matrix import MatrixBall
from promptlimits.lipschitz.balls.rounding import ball, least, total, upper
from promptlimits.lipschitz.balls.spectral import ScaledBall, row_norms, spectral_norm, vector_norm
from promptlimits.lipschitz.paper.attention import output_limit
from promptlimits.lipschitz.paper.head_norms import HeadNorms, head_norms
from promptlimits.nets.paper.weights import Array, LayerWeights, TransformerWeights


@dataclass(frozen=True, kw_only=True)
class FeedForwardNorms:
    """Proved norms of a block with residual; none depends on the radius."""

    lipschitz: Fraction  # upper limit on the Lipschitz constant, residual included
    branch: Fraction  # the same without the residual
    published: Fraction  # 1 + ||W_1|| ||W_2||, as papers have it
    offset: Fraction  # upper limit on |MLP(0)|
    output_norm: Fraction  # upper limit on ||W_2||
    output_bias: Fraction  # upper limit on |b_2|
    row_norms: tuple[Fraction, ...]  # upper limits on |w_i|, rows of W_1
    biases: tuple[Fraction, ...]  # b_1, exactly

    def output_limit(self, radius: arb) -> arb:
        """Limit on |MLP(x)| over |x| <= radius, at the current precision."""
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
    lipschitz, branch = _constants(layer.w1, layer.w2)
    return FeedForwardNorms(
        lipschitz=lipschitz,
        branch=branch,
        published=1 + spectral_norm(layer.w1) * outer,
        offset=offset.frobenius_norm(),
        output_norm=outer,
        output_bias=vector_norm(layer.b2),
        row_norms=row_norms(layer.w1),
        biases=tuple(Fraction(float(b)) for b in layer.b1),
    )


def branch_lipschitz(w1: Array, w2: Array) -> Fraction:
    """Upper limit on the Lipschitz constant of W_2 relu(W_1 x + b_1) + b_2, without residual."""
    if w1.shape[0] == 0:
        return Fraction(0)
    return _branch(ScaledBall.exact(w2) @ ScaledBall.exact(w1), _balanced_product(w1, w2))


def _branch(product: ScaledBall, around: Fraction) -> Fraction:
    return min(around, (product.spectral_norm() + around) / 2)


def _constants(w1: Array, w2: Array) -> tuple[Fraction, Fraction]:
    """Upper limits on the Lipschitz constant with the residual and without."""
    if w1.shape[0] == 0:
        return Fraction(1), Fraction(0)
    product = ScaledBall.exact(w2) @ ScaledBall.exact(w1)
    identity = ScaledBall(ball=MatrixBall.identity(w1.shape[1]), exponent=0)
    around = _balanced_product(w1, w2)
    anchored = (
        (identity + product.scaled(t)).spectral_norm() + t * around
        for t in (Fraction(1, 2), Fraction(1))
    )
    return min(1 + around, *anchored), _branch(product, around)


def _balanced_product(w1: Array, w2: Array) -> Fraction:
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


def _exactly_scaled(matrix: Array, exponents: NDArray[np.int_]) -> Array | None:
    """Columns times powers of two; None if that over- or underflows."""
    scaled = np.ldexp(matrix, exponents)
    exact = np.isfinite(scaled).all() and np.array_equal(np.ldexp(scaled, -exponents), matrix)
    return scaled if exact else None


@dataclass(frozen=True, kw_only=True)
class LayerNorms:
    """Proved norms of the heads and of the MLP of one layer."""

    heads: HeadNorms
    mlp: FeedForwardNorms

    @property
    def free_of_radius(self) -> bool:
        """Whether attention is linear in effect, so that its constant is the same at all radii."""
        pairs = zip(self.heads.value_norms, self.heads.score_norms, strict=True)
        return all(value * score == 0 for value, score in pairs)

    def leaving(self, radius: Exact) -> Fraction:
        """Radius of a ball that holds the tokens that leave the layer."""
        with working_precision(PRECISION_BITS):
            middle = upper(ball(radius) + output_limit(self.heads, radius))
            return upper(self.mlp.output_limit(ball(middle)))


def layer_norms(weights: TransformerWeights) -> tuple[LayerNorms, ...]:
    """Prove the norms of every layer: all that is expensive, and the same at every radius."""
    return tuple(
        LayerNorms(heads=head_norms(layer.heads), mlp=feed_forward_norms(layer))
        for layer in weights.layers
    )


def token_radii(norms: Sequence[LayerNorms], radius: Exact) -> tuple[Fraction, ...]:
    """Radii of the token balls that enter each layer, and of the one that leaves the last."""
    radii = [Fraction(radius)]
    for layer in norms:
        radii.append(layer.leaving(radii[-1]))
    return tuple(radii)
