"""BERT and MiniLM encoders: LayerNorm behind each sublayer and behind the embeddings, no mask.

Word, position and type embeddings are added and normalised before the first block. A prompt
takes the place of word embeddings. The hidden state is that of the last block; poolers and heads
are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from promptlimits.lipschitz.checkpoint.block import (
    AttentionWeights,
    Block,
    Checkpoint,
    FeedForwardWeights,
    NormWeights,
)
from promptlimits.lipschitz.checkpoint.weights.config import Config
from promptlimits.lipschitz.checkpoint.weights.key_table import KeyTable, NamedWeights

_HEADS: Final = (
    *("predictions.bias", "predictions.decoder.weight", "predictions.decoder.bias"),
    *("predictions.transform.dense.weight", "predictions.transform.dense.bias"),
    *(f"predictions.transform.LayerNorm.{kind}" for kind in ("weight", "bias", "gamma", "beta")),
    *("seq_relationship.weight", "seq_relationship.bias"),
)
_NORM_KINDS: Final = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
TABLE: Final = KeyTable(
    prefixes=("bert.", ""),
    parts={
        "embeddings.word_embeddings.weight": None,
        "embeddings.position_embeddings.weight": "positions",
        "embeddings.token_type_embeddings.weight": "token_types",
        "embeddings.position_ids": None,
        "embeddings.token_type_ids": None,
        "pooler.dense.weight": None,
        "pooler.dense.bias": None,
        **{f"cls.{name}": None for name in _HEADS},
        **{
            f"embeddings.LayerNorm.{stored}": f"entry_norm_{kind}"
            for stored, kind in _NORM_KINDS.items()
        },
        **{
            f"encoder.layer.{{}}.{name}.LayerNorm.{stored}": f"{part}_{kind}"
            for name, part in {
                "attention.output": "attention_norm",
                "output": "feed_forward_norm",
            }.items()
            for stored, kind in _NORM_KINDS.items()
        },
        **{
            f"encoder.layer.{{}}.{name}.{kind}": f"{part}_{kind}"
            for name, part in {
                "attention.self.query": "query",
                "attention.self.key": "key",
                "attention.self.value": "value",
                "attention.output.dense": "output",
                "intermediate.dense": "up",
                "output.dense": "down",
            }.items()
            for kind in ("weight", "bias")
        },
    },
)


def describe(config: Config, weights: NamedWeights) -> Checkpoint:
    """The checkpoint as blocks."""
    config.require("position_embedding_type", ("absolute", None))
    config.require("add_cross_attention", (False, None))
    dim, layers = config.whole("hidden_size"), config.whole("num_hidden_layers")
    heads, hidden = config.whole("num_attention_heads"), config.whole("intermediate_size")
    size = config.divides("hidden_size", heads, dim)
    eps = config.eps("layer_norm_eps", 1e-12)

    def norm(part: str, layer: int | None = None) -> NormWeights:
        return NormWeights(
            kind="layer",
            gain=weights.read(f"{part}_weight", dim, layer=layer),
            bias=weights.read(f"{part}_bias", dim, layer=layer),
            eps=eps,
        )

    def attention(layer: int) -> AttentionWeights:
        def matrix(part: str) -> NDArray[np.float64]:
            stored = weights.read(f"{part}_weight", dim, dim, layer=layer)
            return stored.reshape(heads, size, dim)

        def bias(part: str) -> NDArray[np.float64]:
            return weights.read(f"{part}_bias", dim, layer=layer).reshape(heads, size)

        output = weights.read("output_weight", dim, dim, layer=layer)
        return AttentionWeights(
            query=matrix("query"),
            key=matrix("key"),
            value=matrix("value"),
            query_bias=bias("query"),
            key_bias=bias("key"),
            value_bias=bias("value"),
            output=output.reshape(dim, heads, size).transpose(1, 0, 2),
            output_bias=weights.read("output_bias", dim, layer=layer),
            scale_squared=Fraction(1, size),
            causal=config.flag("is_decoder", default=False),
        )

    def blocks() -> Iterator[Block]:
        for layer in range(layers):
            yield Block(
                arrangement="post",
                attention=attention(layer),
                feed_forward=FeedForwardWeights(
                    activation=config.activation("hidden_act", "gelu"),
                    up=weights.read("up_weight", hidden, dim, layer=layer),
                    up_bias=weights.read("up_bias", hidden, layer=layer),
                    down=weights.read("down_weight", dim, hidden, layer=layer),
                    down_bias=weights.read("down_bias", dim, layer=layer),
                ),
                attention_norm=norm("attention_norm", layer),
                feed_forward_norm=norm("feed_forward_norm", layer),
            )

    places, types = (weights.longest_row(part, dim) for part in ("positions", "token_types"))
    return Checkpoint(
        family=config.family,
        dim=dim,
        layers=layers,
        entry_norm=norm("entry_norm"),
        final_norm=None,
        added=None if places is None or types is None else places + types,
        blocks=blocks(),
    )
