"""GPT-NeoX and Pythia: LayerNorm in front, both sublayers side by side, RoPE on part of a head."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Final

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
    prefixes=("gpt_neox.", ""),
    parts={
        "embed_in.weight": None,
        "embed_out.weight": None,
        "lm_head.weight": None,
        "final_layer_norm.weight": "final_norm_weight",
        "final_layer_norm.bias": "final_norm_bias",
        "layers.{}.attention.bias": None,
        "layers.{}.attention.masked_bias": None,
        "layers.{}.attention.rotary_emb.inv_freq": None,
        **{
            f"layers.{{}}.{name}.{kind}": f"{part}_{kind}"
            for name, part in {
                "input_layernorm": "attention_norm",
                "post_attention_layernorm": "feed_forward_norm",
                "attention.query_key_value": "query_key_value",
                "attention.dense": "output",
                "mlp.dense_h_to_4h": "up",
                "mlp.dense_4h_to_h": "down",
            }.items()
            for kind in ("weight", "bias")
        },
    },
)
_ROTARY_SHARE: Final = 0.25


def describe(config: Config, weights: NamedWeights) -> Checkpoint:
    """The checkpoint as blocks."""
    dim, layers = config.whole("hidden_size"), config.whole("num_hidden_layers")
    heads, hidden = config.whole("num_attention_heads"), config.whole("intermediate_size")
    size = config.divides("hidden_size", heads, dim)
    eps = config.eps("layer_norm_eps", 1e-5)
    biased = config.flag("attention_bias", default=True)
    parallel = config.flag("use_parallel_residual", default=True)

    def norm(part: str, layer: int | None = None) -> NormWeights:
        return NormWeights(
            kind="layer",
            gain=weights.read(f"{part}_weight", dim, layer=layer),
            bias=weights.read(f"{part}_bias", dim, layer=layer),
            eps=eps,
        )

    def attention(layer: int) -> AttentionWeights:
        # Query, key and value of one head lie side by side.
        joint = weights.read("query_key_value_weight", 3 * dim, dim, layer=layer)
        query, key, value = joint.reshape(heads, 3, size, dim).transpose(1, 0, 2, 3)
        bias = weights.optional("query_key_value_bias", 3 * dim, layer=layer, stated=biased)
        biases = (
            (None, None, None) if bias is None else bias.reshape(heads, 3, size).transpose(1, 0, 2)
        )
        output = weights.read("output_weight", dim, dim, layer=layer)
        return AttentionWeights(
            query=query,
            key=key,
            value=value,
            output=output.reshape(dim, heads, size).transpose(1, 0, 2),
            query_bias=biases[0],
            key_bias=biases[1],
            value_bias=biases[2],
            output_bias=weights.optional("output_bias", dim, layer=layer, stated=biased),
            scale_squared=Fraction(1, size),
            rotary=config.rotary(size, share=_ROTARY_SHARE),
            causal=True,
        )

    def blocks() -> Iterator[Block]:
        for layer in range(layers):
            yield Block(
                arrangement="parallel" if parallel else "pre",
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

    return Checkpoint(
        family=config.family,
        dim=dim,
        layers=layers,
        entry_norm=None,
        final_norm=norm("final_norm"),
        blocks=blocks(),
    )
