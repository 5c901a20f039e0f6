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
from fractions import Fraction
from typing import Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from promptlimits.bounds.core import NonNegative, Positive, Size
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
from promptlimits.nets.block import (
    Activation,
    Arrangement,
    Array,
    AttentionWeights,
    Block,
    FeedForwardWeights,
    NormWeights,
)

_MARGIN: Final = 1 + Fraction(1, 2**24)
"""Above what is proved here: a checker, whose rounding is another, can prove the limits too."""
_ROUNDING: Final = 2.0**-51
"""Four unit roundoffs u: a product, with a gain 1 + w that rounded, is off by 2 u + u^2."""


class Facts(BaseModel):
    """A part of a certificate, of exact numbers and no others."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class NormFacts(Facts):
    """What a normalisation contributes; `gain`, its largest, is None where matrices hold it."""

    eps: Positive
    gain: NonNegative | None = None


class HeadFacts(Facts):
    """Upper limits for one query head; matrices and biases with the norm's gain folded in.

    `value` is ||W_v||. Positions that are added: `logit` = ||W_k^T W_q||, `logit_bias` =
    |W_k^T b_q|. Rotary ones: `query` = ||W_q||, `query_bias` = |b_q| and so for keys; biases do
    not matter where queries and keys are normalised.
    """

    value: NonNegative
    query: NonNegative | None = None
    key: NonNegative | None = None
    query_bias: NonNegative | None = None
    key_bias: NonNegative | None = None
    logit: NonNegative | None = None
    logit_bias: NonNegative | None = None


class AttentionFacts(Facts):
    """Upper limits for an attention sublayer; `output` is ||W_o|| of all heads side by side.

    `positions` are "added" in front, "rotary", or "normalised": rotary, with `query_norm` and
    `key_norm` over the `head_dim` numbers of each query and key.
    """

    positions: Literal["added", "rotary", "normalised"]
    heads: tuple[HeadFacts, ...]
    output: NonNegative
    scale_squared: Positive
    head_dim: Size | None = None
    query_norm: NormFacts | None = None
    key_norm: NormFacts | None = None


class FeedForwardFacts(Facts):
    """Upper limits for a feed-forward sublayer.

    `up` is ||W_u||; `down` ||W_d||, or `gate` ||W_g||, `down_up` ||W_d diag(U)|| and `down_gate`
    ||W_d diag(V)||.
    """

    activation: Activation
    up: NonNegative
    down: NonNegative | None = None
    gate: NonNegative | None = None
    down_up: NonNegative | None = None
    down_gate: NonNegative | None = None


class BlockFacts(Facts):
    """Upper limits for one block; the norms as in `nets.block.Block`."""

    arrangement: Arrangement
    attention: AttentionFacts
    feed_forward: FeedForwardFacts
    attention_norm: NormFacts
    feed_forward_norm: NormFacts
    attention_post_norm: NormFacts | None = None
    feed_forward_post_norm: NormFacts | None = None


def norm_facts(norm: NormWeights) -> NormFacts:
    """The eps and the largest |gain| of a norm; a step up covers the rounding of 1 + w."""
    largest = float(np.abs(_gain(norm)).max())
    gain = math.nextafter(largest, math.inf) if norm.offset else largest
    return NormFacts(gain=Fraction(gain), eps=norm.eps)


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


def _limit(matrix: MatrixBall) -> Fraction:
    return Fraction(float_up(spectral_norm(matrix) * _MARGIN))


def product_norm(left: MatrixBall, right: MatrixBall) -> Fraction:
    """Upper limit on ||L R||, L tall (D, s) and R wide (s, D), proved on s x s matrices."""
    gram = (left.T @ left).symmetrised()
    values, vectors = np.linalg.eigh(gram.center)
    root = MatrixBall.exact(vectors * np.sqrt(np.maximum(values, 0.0)))
    rest = gram - root @ root.T
    error = add_up(frobenius_up(rest.center), rest.radius)
    whole = float(_limit(right))
    main = float(_limit(root.T @ right))
    return Fraction(sqrt_up(add_up(multiply_up(main, main), multiply_up(error, whole, whole))))


def _attention_facts(weights: AttentionWeights, norm: NormWeights) -> AttentionFacts:
    head = _plain_head if weights.rotary is None else _rotary_head
    # Heads of a group share key and value, whose norms are proved once.
    values = [_limit(_folded(matrix, norm)) for matrix in weights.value]
    side_by_side = np.concatenate(list(weights.output), axis=1)
    turned: Literal["rotary", "normalised"] = (
        "rotary" if weights.query_norm is None else "normalised"
    )
    return AttentionFacts(
        positions="added" if weights.rotary is None else turned,
        heads=head(weights, norm, values),
        output=_limit(MatrixBall.exact(side_by_side)),
        head_dim=None if weights.query_norm is None else weights.query.shape[1],
        scale_squared=weights.scale_squared,
        query_norm=_maybe_facts(weights.query_norm),
        key_norm=_maybe_facts(weights.key_norm),
    )


def _plain_head(
    weights: AttentionWeights, norm: NormWeights, values: list[Fraction]
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
    weights: AttentionWeights, norm: NormWeights, values: list[Fraction]
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
) -> list[Fraction | None]:
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
    limits: Array = (rows + offset) * slack + 2.0**-200
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
