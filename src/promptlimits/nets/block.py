"""One transformer block of a real checkpoint, whatever its family, as float64 arrays.

Letters: D width, H query heads, G key and value heads (H a multiple of G), s width of a head,
F width of the feed-forward layer. Query head h reads the key and value head h // (H / G).

A norm is N(x) = centred(x) / sqrt(mean square of centred(x) + eps), where LayerNorm subtracts
the mean and RMSNorm does not; what follows it is gain * N(x) + bias. Arrangements, with `Att`
and `Mlp` the sublayers, N1 and N2 the norms with their gains and P1, P2 those of Gemma that
follow a sublayer:

    pre       y = x + P1(Att(N1(x)));   x' = y + P2(Mlp(N2(y)))
    parallel  x' = x + Att(N1(x)) + Mlp(N2(x))
    post      y = N1(x + Att(x));       x' = N2(y + Mlp(y))

The arrays are the checkpoint's numbers exactly: every format of at most 64 bits widens to
float64 without rounding. A gain that the family stores as 1 + w is kept as w (`offset`), because
1 + w may round.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Arrangement: TypeAlias = Literal["pre", "parallel", "post"]
Activation: TypeAlias = Literal["gelu", "gelu_tanh", "silu", "relu"]


@dataclass(frozen=True, kw_only=True, eq=False)
class NormWeights:
    """A normalisation and what it is multiplied with.

    Attributes:
        kind: "layer" subtracts the mean, "rms" does not.
        gain: (D,) as stored.
        offset: 0, or 1 where the family multiplies by 1 + gain.
        bias: (D,), or None.
        eps: Added to the mean square.
    """

    kind: Literal["layer", "rms"]
    gain: Array
    offset: int = 0
    bias: Array | None = None
    eps: Fraction


@dataclass(frozen=True, kw_only=True)
class Rotary:
    """Rotary positions: the first `width` numbers of a head turn with the position."""

    width: int
    theta: float


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionWeights:
    """An attention sublayer.

    Attributes:
        query: (H, s, D).
        key: (G, s, D).
        value: (G, s, D).
        output: (H, D, s).
        query_bias: (H, s), or None; so for the others.
        key_bias: (G, s).
        value_bias: (G, s).
        output_bias: (D,).
        query_norm: Norm over each head's query (gain of width s), or None.
        key_norm: Likewise for keys.
        scale_squared: Square of the factor on the logits, such as 1 / s.
        rotary: Rotary positions, or None.
        causal: Whether a token sees only itself and those before it.
        window: Most tokens seen, itself included, or None. No bound depends on the mask.
    """

    query: Array
    key: Array
    value: Array
    output: Array
    query_bias: Array | None = None
    key_bias: Array | None = None
    value_bias: Array | None = None
    output_bias: Array | None = None
    query_norm: NormWeights | None = None
    key_norm: NormWeights | None = None
    scale_squared: Fraction
    rotary: Rotary | None = None
    causal: bool
    window: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class FeedForwardWeights:
    """A feed-forward sublayer: down(act(up x)), or down(act(gate x) * (up x)).

    Attributes:
        activation: Which function.
        up: (F, D).
        down: (D, F).
        gate: (F, D), or None.
        up_bias: (F,), or None.
        down_bias: (D,), or None.
        gate_bias: (F,), or None.
    """

    activation: Activation
    up: Array
    down: Array
    gate: Array | None = None
    up_bias: Array | None = None
    down_bias: Array | None = None
    gate_bias: Array | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """One block.

    Attributes:
        arrangement: See the module.
        attention: The attention sublayer.
        feed_forward: The feed-forward sublayer.
        attention_norm: N1.
        feed_forward_norm: N2.
        attention_post_norm: P1, or None.
        feed_forward_post_norm: P2, or None.
    """

    arrangement: Arrangement
    attention: AttentionWeights
    feed_forward: FeedForwardWeights
    attention_norm: NormWeights
    feed_forward_norm: NormWeights
    attention_post_norm: NormWeights | None = None
    feed_forward_post_norm: NormWeights | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A checkpoint whose blocks are read one at a time.

    Attributes:
        family: Such as "llama".
        dim: D.
        layers: Number of blocks.
        entry_norm: Norm between the embeddings and the first block (BERT), or None.
        final_norm: Norm behind the last block, or None.
        added: Tables of which one row each is added to a prompt token in front of the first norm,
            such as learned positions; None if they are not there.
        blocks: Yields the blocks in order; each is read when it is asked for.
    """

    family: str
    dim: int
    layers: int
    entry_norm: NormWeights | None
    final_norm: NormWeights | None
    added: tuple[Array, ...] | None = ()
    blocks: Iterator[Block]
