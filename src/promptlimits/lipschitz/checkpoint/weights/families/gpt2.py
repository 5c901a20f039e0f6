"""GPT-2: LayerNorm in front, learned positions, matrices stored as (inputs, outputs)."""

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

TABLE: Final = KeyTable(
    prefixes=("transformer.", ""),
    parts={
        "wte.weight": None,
        "wpe.weight": "positions",
        "lm_head.weight": None,
        "ln_f.weight": "final_norm_weight",
        "ln_f.bias": "final_norm_bias",
        "h.{}.attn.bias": None,
        "h.{}.attn.masked_bias": None,
        **{
            f"h.{{}}.{name}.{kind}": f"{part}_{kind}"
            for name, part in {
                "ln_1": "attention_norm",
                "ln_2": "feed_forward_norm",
                "attn.c_attn": "query_key_value",
                "attn.c_proj": "output",
                "mlp.c_fc": "up",
                "mlp.c_proj": "down",
            }.items()
            for kind in ("weight", "bias")
        },
    },
)
# transformers takes either name, and one of them wins.
_OTHER_NAMES: Final = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
}


def describe(config: Config, weights: NamedWeights) -> Checkpoint:
    """The checkpoint as blocks."""
    config.require("add_cross_attention", (False, None))
    dim, layers, heads = config.whole("n_embd"), config.whole("n_layer"), config.whole("n_head")
    hidden = config.whole("n_inner", 4 * dim)
    size = config.divides("n_embd", heads, dim)
    eps = config.eps("layer_norm_epsilon", 1e-5)
    scaled = config.flag("scale_attn_weights", default=True)
    by_layer = config.flag("scale_attn_by_inverse_layer_idx", default=False)
    for key, other in _OTHER_NAMES.items():
        config.require_same(key, other)

    def norm(part: str, layer: int | None = None) -> NormWeights:
        return NormWeights(
            kind="layer",
            gain=weights.read(f"{part}_weight", dim, layer=layer),
            bias=weights.read(f"{part}_bias", dim, layer=layer),
            eps=eps,
        )

    def attention(layer: int) -> AttentionWeights:
        joint = weights.read("query_key_value_weight", dim, 3 * dim, layer=layer)
        bias = weights.read("query_key_value_bias", 3 * dim, layer=layer).reshape(3, heads, size)
        query, key, value = _heads(joint, heads)
        output = weights.read("output_weight", dim, dim, layer=layer)
        scale = Fraction(1, size) if scaled else Fraction(1)
        if by_layer:
            scale /= (layer + 1) ** 2
        return AttentionWeights(
            query=query,
            key=key,
            value=value,
            output=output.reshape(heads, size, dim).transpose(0, 2, 1),
            query_bias=bias[0],
            key_bias=bias[1],
            value_bias=bias[2],
            output_bias=weights.read("output_bias", dim, layer=layer),
            scale_squared=scale,
            causal=True,
        )

    def blocks() -> Iterator[Block]:
        for layer in range(layers):
            yield Block(
                arrangement="pre",
                attention=attention(layer),
                feed_forward=FeedForwardWeights(
                    activation=config.activation("activation_function", "gelu_new"),
                    up=weights.read("up_weight", dim, hidden, layer=layer).T,
                    up_bias=weights.read("up_bias", hidden, layer=layer),
                    down=weights.read("down_weight", hidden, dim, layer=layer).T,
                    down_bias=weights.read("down_bias", dim, layer=layer),
                ),
                attention_norm=norm("attention_norm", layer),
                feed_forward_norm=norm("feed_forward_norm", layer),
            )

    return Checkpoint(
        family=config.family,
        dim=dim,
        layers=layers,
        entry_norm=None,
        final_norm=norm("final_norm"),
        added=weights.longest_row("positions", dim),
        blocks=blocks(),
    )


def _heads(joint: NDArray[np.float64], heads: int) -> NDArray[np.float64]:
    """Queries, keys and values of each head, (3, H, s, D), from (D, 3 H s)."""
    dim = joint.shape[0]
    return joint.T.reshape(3, heads, -1, dim)
