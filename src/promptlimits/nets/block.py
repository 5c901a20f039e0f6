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
    """A normalisation and what it is multiplied with."""

    kind: Literal["layer", "rms"]  # "layer" subtracts the mean, "rms" does not
    gain: Array  # (D,) as stored
    offset: int = 0  # 0, or 1 where the family multiplies by 1 + gain
    bias: Array | None = None  # (D,), or None
    eps: Fraction  # added to the mean square


@dataclass(frozen=True, kw_only=True)
class Rotary:
    """Rotary positions: the first `width` numbers of a head turn with the position."""

    width: int
    theta: float


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionWeights:
    """An attention sublayer."""

    query: Array  # (H, s, D)
    key: Array  # (G, s, D)
    value: Array  # (G, s, D)
    output: Array  # (H, D, s)
    query_bias: Array | None = None  # (H, s), or None; so for the others
    key_bias: Array | None = None  # (G, s)
    value_bias: Array | None = None  # (G, s)
    output_bias: Array | None = None  # (D,)
    query_norm: NormWeights | None = None  # norm over each head's query (gain of width s), or None
    key_norm: NormWeights | None = None  # likewise for keys
    scale_squared: Fraction  # square of the factor on the logits, such as 1 / s
    rotary: Rotary | None = None  # rotary positions, or None
    causal: bool  # whether a token sees only itself and those before it
    # Most tokens seen, itself included, or None. No bound depends on the mask.
    window: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class FeedForwardWeights:
    """A feed-forward sublayer: down(act(up x)), or down(act(gate x) * (up x))."""

    activation: Activation  # which function
    up: Array  # (F, D)
    down: Array  # (D, F)
    gate: Array | None = None  # (F, D), or None
    up_bias: Array | None = None  # (F,), or None
    down_bias: Array | None = None  # (D,), or None
    gate_bias: Array | None = None  # (F,), or None


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """One block."""

    arrangement: Arrangement  # see the module
    attention: AttentionWeights  # the attention sublayer
    feed_forward: FeedForwardWeights  # the feed-forward sublayer
    attention_norm: NormWeights  # N1
    feed_forward_norm: NormWeights  # N2
    attention_post_norm: NormWeights | None = None  # P1, or None
    feed_forward_post_norm: NormWeights | None = None  # P2, or None


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A checkpoint whose blocks are read one at a time."""

    family: str  # such as "llama"
    dim: int  # D
    layers: int  # number of blocks
    # Norm between the embeddings and the first block (BERT), or None.
    entry_norm: NormWeights | None
    final_norm: NormWeights | None  # norm behind the last block, or None
    # Tables of which one row each is added to a prompt token in front of the first norm, such as
    # learned positions; None if they are not there.
    added: tuple[Array, ...] | None = ()
    blocks: Iterator[Block]  # yields the blocks in order; each is read when it is asked for
