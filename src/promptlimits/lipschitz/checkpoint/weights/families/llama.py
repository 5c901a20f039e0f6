"""Llama, SmolLM2 and Qwen2: RMSNorm in front, RoPE, grouped heads, gated feed-forward.

Qwen2 has biases on queries, keys and values; they are read wherever they are found.
"""

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

_BLOCK: Final = {
    "layers.{}.input_layernorm.weight": "attention_norm",
    "layers.{}.post_attention_layernorm.weight": "feed_forward_norm",
    "layers.{}.self_attn.rotary_emb.inv_freq": None,
    **{
        f"layers.{{}}.self_attn.{name}_proj.{kind}": f"{name}_{kind}"
        for name in "qkvo"
        for kind in ("weight", "bias")
    },
    **{
        f"layers.{{}}.mlp.{name}_proj.{kind}": f"{name}_{kind}"
        for name in ("gate", "up", "down")
        for kind in ("weight", "bias")
    },
}
TABLE: Final = KeyTable(
    prefixes=("model.", ""),
    parts={"embed_tokens.weight": None, "lm_head.weight": None, "norm.weight": "final_norm"}
    | _BLOCK,
)


def describe(config: Config, weights: NamedWeights) -> Checkpoint:
    """The checkpoint as blocks."""
    dim = config.whole("hidden_size")
    layers = config.whole("num_hidden_layers")
    eps = config.eps("rms_norm_eps", 1e-6)

    def norm(part: str, layer: int | None = None) -> NormWeights:
        return NormWeights(kind="rms", gain=weights.read(part, dim, layer=layer), eps=eps)

    def blocks() -> Iterator[Block]:
        for layer in range(layers):
            yield Block(
                arrangement="pre",
                attention=_attention(config, weights, layer, dim),
                feed_forward=_feed_forward(config, weights, layer, dim),
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


def _attention(config: Config, weights: NamedWeights, layer: int, dim: int) -> AttentionWeights:
    heads = config.whole("num_attention_heads")
    groups = config.whole("num_key_value_heads", heads)
    config.divides("num_attention_heads", groups, heads)
    fallback = dim if config.get("head_dim") else config.divides("hidden_size", heads, dim)
    size = config.whole("head_dim", fallback)
    # Qwen2 has these three whatever its config.json says, and none behind the heads.
    qwen = config.family == "qwen2"
    biased = qwen or config.flag("attention_bias", default=False)
    query_bias = weights.optional("q_bias", heads * size, layer=layer, stated=biased)
    key_bias = weights.optional("k_bias", groups * size, layer=layer, stated=biased)
    value_bias = weights.optional("v_bias", groups * size, layer=layer, stated=biased)
    output = weights.read("o_weight", dim, heads * size, layer=layer)
    return AttentionWeights(
        query=weights.read("q_weight", heads * size, dim, layer=layer).reshape(heads, size, dim),
        key=weights.read("k_weight", groups * size, dim, layer=layer).reshape(groups, size, dim),
        value=weights.read("v_weight", groups * size, dim, layer=layer).reshape(groups, size, dim),
        output=output.reshape(dim, heads, size).transpose(1, 0, 2),
        query_bias=None if query_bias is None else query_bias.reshape(heads, size),
        key_bias=None if key_bias is None else key_bias.reshape(groups, size),
        value_bias=None if value_bias is None else value_bias.reshape(groups, size),
        output_bias=weights.optional("o_bias", dim, layer=layer, stated=biased and not qwen),
        scale_squared=Fraction(1, size),
        rotary=config.rotary(size),
        causal=True,
    )


def _feed_forward(
    config: Config, weights: NamedWeights, layer: int, dim: int
) -> FeedForwardWeights:
    hidden = config.whole("intermediate_size")
    biased = config.family == "llama" and config.flag("mlp_bias", default=False)
    return FeedForwardWeights(
        activation=config.activation("hidden_act", "silu"),
        up=weights.read("up_weight", hidden, dim, layer=layer),
        down=weights.read("down_weight", dim, hidden, layer=layer),
        gate=weights.read("gate_weight", hidden, dim, layer=layer),
        up_bias=weights.optional("up_bias", hidden, layer=layer, stated=biased),
        down_bias=weights.optional("down_bias", dim, layer=layer, stated=biased),
        gate_bias=weights.optional("gate_bias", hidden, layer=layer, stated=biased),
    )
