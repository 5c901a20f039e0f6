"""The norms of one block's matrices, proved: all that its Lipschitz constant is made of.

A sublayer sees z = N(x), a vector of norm at most sqrt(D); the norm's gain and bias are folded
into its matrices: W (gain * z + bias) + b = W' z + b', W' = W diag(gain), b' = W bias + b. Where
a product rounds, a matrix ball holds it. What comes out are floats, each an upper limit.

Norms of products of a wide with a tall matrix (D x s times s x D, of rank s) are proved on s x s
matrices: with G = L^T L and any S, ||L R||^2 = ||R^T G R|| <= ||S^T R||^2 + ||G - S S^T|| ||R||^2.

The gated feed-forward layer h = act(g) * u, g = W_g z + b_g, u = W_u z + b_u, has the derivative
W_d (diag(u act'(g)) W_g + diag(act(g)) W_u). On |z| <= sqrt(D), |u_i| <= U_i and |act(g_i)| <=
|g_i| <= V_i, with U_i = sqrt(D) |row i of W_u| + |b_u,i| and V alike (|act(t)| <= |t| holds for
GELU, its tanh form, SiLU and ReLU), so its norm is at most

    ||W_d diag(U)|| sup|act'| ||W_g|| + ||W_d diag(V)|| ||W_u||.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from promptlimits.lipschitz.balls.matrix import (
    MatrixBall,
    add_up,
    float_up,
    frobenius_up,
    gamma,
    multiply_up,
    sqrt_up,
)
from promptlimits.lipschitz.balls.spectral import spectral_norm
from promptlimits.lipschitz.checkpoint.block import (
    Activation,
    Arrangement,
    Array,
    AttentionWeights,
    Block,
    FeedForwardWeights,
    NormWeights,
)

_ROUNDING: Final = 2.0**-51
"""Four unit roundoffs u: a product, with a gain 1 + w that rounded, is off by 2 u + u^2."""


@dataclass(frozen=True, kw_only=True)
class NormFacts:
    """What a normalisation contributes.

    Attributes:
        eps: Its eps.
        gain: Upper limit on its largest |gain|; None where the gain is folded into matrices.
    """

    eps: Fraction
    gain: float | None = None


@dataclass(frozen=True, kw_only=True)
class HeadFacts:
    """Upper limits for one query head; matrices and biases with the norm's gain folded in.

    Without rotary positions, the logits' matrix stands for queries and keys. Biases do not
    matter where queries and keys are normalised.

    Attributes:
        value: ||W_v||.
        query: ||W_q||, or None.
        key: ||W_k||, or None.
        query_bias: |b_q|, or None.
        key_bias: |b_k|, or None.
        logit: ||W_k^T W_q||, or None.
        logit_bias: |W_k^T b_q|, or None.
    """

    value: float
    query: float | None = None
    key: float | None = None
    query_bias: float | None = None
    key_bias: float | None = None
    logit: float | None = None
    logit_bias: float | None = None


@dataclass(frozen=True, kw_only=True)
class AttentionFacts:
    """Upper limits for an attention sublayer.

    Attributes:
        heads: One for each query head.
        output: ||W_o|| of all heads side by side.
        head_dim: s where queries and keys are normalised, else None.
        scale_squared: Square of the factor on the logits.
        rotary: Whether positions turn keys and queries.
        query_norm: Norm over queries, or None.
        key_norm: Norm over keys, or None.
    """

    heads: tuple[HeadFacts, ...]
    output: float
    head_dim: int | None
    scale_squared: Fraction
    rotary: bool
    query_norm: NormFacts | None
    key_norm: NormFacts | None


@dataclass(frozen=True, kw_only=True)
class FeedForwardFacts:
    """Upper limits for a feed-forward sublayer.

    Attributes:
        activation: Which function.
        up: ||W_u||.
        down: ||W_d||, or None if gated.
        gate: ||W_g||, or None if not gated.
        down_up: ||W_d diag(U)|| if gated.
        down_gate: ||W_d diag(V)|| if gated.
    """

    activation: Activation
    up: float
    down: float | None = None
    gate: float | None = None
    down_up: float | None = None
    down_gate: float | None = None


@dataclass(frozen=True, kw_only=True)
class BlockFacts:
    """Upper limits for one block; the norms as in `Block`."""

    arrangement: Arrangement
    attention: AttentionFacts
    feed_forward: FeedForwardFacts
    attention_norm: NormFacts
    feed_forward_norm: NormFacts
    attention_post_norm: NormFacts | None
    feed_forward_post_norm: NormFacts | None


def norm_facts(norm: NormWeights) -> NormFacts:
    """The eps and the largest |gain| of a norm; a step up covers the rounding of 1 + w."""
    largest = float(np.abs(_gain(norm)).max())
    return NormFacts(
        gain=math.nextafter(largest, math.inf) if norm.offset else largest, eps=norm.eps
    )


def _maybe_facts(norm: NormWeights | None) -> NormFacts | None:
    return None if norm is None else norm_facts(norm)


def _gain(norm: NormWeights) -> Array:
    return norm.offset + norm.gain


def _folded(matrix: Array, norm: NormWeights) -> MatrixBall:
    """W diag(gain): each entry of the product is off by at most 2^-51 of itself."""
    center = matrix * _gain(norm)
    tiny = multiply_up(float(center.size), 2.0**-1073)
    return MatrixBall(
        center=center, radius=add_up(multiply_up(_ROUNDING, frobenius_up(center)), tiny)
    )


def _folded_bias(matrix: Array, bias: Array | None, norm: NormWeights) -> MatrixBall:
    """W bias + b as one column."""
    column = MatrixBall.exact(np.zeros((matrix.shape[0], 1)))
    if norm.bias is not None:
        column = MatrixBall.exact(matrix) @ MatrixBall.exact(norm.bias)
    return column if bias is None else column + MatrixBall.exact(bias)


def _limit(matrix: MatrixBall) -> float:
    return float_up(spectral_norm(matrix))


def product_norm(left: MatrixBall, right: MatrixBall) -> float:
    """Upper limit on ||L R||, L tall (D, s) and R wide (s, D), proved on s x s matrices."""
    gram = (left.T @ left).symmetrised()
    values, vectors = np.linalg.eigh(gram.center)
    root = MatrixBall.exact(vectors * np.sqrt(np.maximum(values, 0.0)))
    rest = gram - root @ root.T
    error = add_up(frobenius_up(rest.center), rest.radius)
    whole = _limit(right)
    main = _limit(root.T @ right)
    return sqrt_up(add_up(multiply_up(main, main), multiply_up(error, whole, whole)))


def _attention_facts(weights: AttentionWeights, norm: NormWeights) -> AttentionFacts:
    head = _plain_head if weights.rotary is None else _rotary_head
    # Heads of a group share key and value, whose norms are proved once.
    values = [_limit(_folded(matrix, norm)) for matrix in weights.value]
    side_by_side = np.concatenate(list(weights.output), axis=1)
    return AttentionFacts(
        heads=head(weights, norm, values),
        output=_limit(MatrixBall.exact(side_by_side)),
        head_dim=None if weights.query_norm is None else weights.query.shape[1],
        scale_squared=weights.scale_squared,
        rotary=weights.rotary is not None,
        query_norm=_maybe_facts(weights.query_norm),
        key_norm=_maybe_facts(weights.key_norm),
    )


def _plain_head(
    weights: AttentionWeights, norm: NormWeights, values: list[float]
) -> tuple[HeadFacts, ...]:
    """Heads without rotary positions."""
    shared = len(weights.query) // len(weights.key)
    heads = []
    for index, matrix in enumerate(weights.query):
        key = _folded(weights.key[index // shared], norm)
        bias = _folded_bias(matrix, _part(weights.query_bias, index), norm)
        heads.append(
            HeadFacts(
                value=values[index // shared],
                logit=product_norm(key.T, _folded(matrix, norm)),
                logit_bias=_limit(key.T @ bias),
            )
        )
    return tuple(heads)


def _rotary_head(
    weights: AttentionWeights, norm: NormWeights, values: list[float]
) -> tuple[HeadFacts, ...]:
    """Heads with rotary positions, whose queries and keys may be normalised."""
    shared = len(weights.query) // len(weights.key)
    keys = [_limit(_folded(matrix, norm)) for matrix in weights.key]
    key_biases = _bias_limits(weights.key, weights.key_bias, norm, weights.key_norm)
    query_biases = _bias_limits(weights.query, weights.query_bias, norm, weights.query_norm)
    return tuple(
        HeadFacts(
            value=values[index // shared],
            query=_limit(_folded(matrix, norm)),
            key=keys[index // shared],
            query_bias=query_biases[index],
            key_bias=key_biases[index // shared],
        )
        for index, matrix in enumerate(weights.query)
    )


def _bias_limits(
    matrices: Array, biases: Array | None, norm: NormWeights, behind: NormWeights | None
) -> list[float | None]:
    if behind is not None:
        return [None] * len(matrices)
    return [
        _limit(_folded_bias(matrix, _part(biases, index), norm))
        for index, matrix in enumerate(matrices)
    ]


def _part(array: Array | None, index: int) -> Array | None:
    return None if array is None else array[index]


def largest_entries(matrix: Array, bias: Array | None, norm: NormWeights) -> Array:
    """Upper limits on |(W (gain * z + bias) + b)_i| over |z| <= sqrt(D), for each row i.

    Args:
        matrix: W, (F, D).
        bias: b, (F,), or None.
        norm: Gain and bias.

    Returns:
        (F,) floats: sqrt(D) |row i of W diag(gain)| + |(W bias + b)_i|, rounded up.
    """
    width = matrix.shape[1]
    folded = matrix * _gain(norm)
    # A computed sum of n squares is off by less than gamma(n + 1) of itself; products, the
    # root, the factor sqrt(D) and the last sum round a few times more.
    slack = 1 + 2 * gamma(2 * width + 16)
    rows = np.sqrt(np.einsum("fd,fd->f", folded, folded)) * math.sqrt(width)
    offset = np.zeros(len(matrix)) if bias is None else np.abs(bias)
    if norm.bias is not None:
        signed = matrix @ norm.bias + (0.0 if bias is None else bias)
        error = gamma(width + 2) * (np.abs(matrix) @ np.abs(norm.bias) + offset)
        offset = np.abs(signed) + 2 * error
    # The last term is above every loss to underflow.
    limits: Array = (rows + offset) * slack + 2.0**-500
    return limits


def _feed_forward_facts(weights: FeedForwardWeights, norm: NormWeights) -> FeedForwardFacts:
    up = _limit(_folded(weights.up, norm))
    if weights.gate is None:
        down = _limit(MatrixBall.exact(weights.down))
        return FeedForwardFacts(activation=weights.activation, up=up, down=down)
    ups = largest_entries(weights.up, weights.up_bias, norm)
    gates = largest_entries(weights.gate, weights.gate_bias, norm)
    return FeedForwardFacts(
        activation=weights.activation,
        up=up,
        gate=_limit(_folded(weights.gate, norm)),
        down_up=_limit(_scaled(weights.down, ups)),
        down_gate=_limit(_scaled(weights.down, gates)),
    )


def _scaled(matrix: Array, columns: Array) -> MatrixBall:
    return _folded(matrix, NormWeights(kind="rms", gain=columns, eps=Fraction(0)))


def _block_norm(norm: NormWeights, post: bool) -> NormFacts:
    """Where norms follow, the residual is multiplied by their gains; else these are folded."""
    return norm_facts(norm) if post else NormFacts(eps=norm.eps)


def block_facts(block: Block, entry: NormWeights | None) -> BlockFacts:
    """Prove the norms of one block."""
    if block.arrangement == "post" and entry is None:
        raise ValueError("a block that normalises its outputs needs the norm before it")
    post = block.arrangement == "post"
    before_attention = entry if post and entry is not None else block.attention_norm
    before_feed_forward = block.attention_norm if post else block.feed_forward_norm
    return BlockFacts(
        arrangement=block.arrangement,
        attention=_attention_facts(block.attention, before_attention),
        feed_forward=_feed_forward_facts(block.feed_forward, before_feed_forward),
        attention_norm=_block_norm(block.attention_norm, post),
        feed_forward_norm=_block_norm(block.feed_forward_norm, post),
        attention_post_norm=_maybe_facts(block.attention_post_norm),
        feed_forward_post_norm=_maybe_facts(block.feed_forward_post_norm),
    )
