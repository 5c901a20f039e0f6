"""Gemma 3 (text): RMSNorm times 1 + w, before and behind each sublayer and over queries and keys.

Its embeddings are scaled by sqrt(D) where they are looked up; a prompt is given behind that.
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

TABLE: Final = KeyTable(
    prefixes=("model.", ""),
    parts={
        "embed_tokens.weight": None,
        "lm_head.weight": None,
        "norm.weight": "final_norm",
        "layers.{}.input_layernorm.weight": "attention_norm",
        "layers.{}.post_attention_layernorm.weight": "attention_post_norm",
        "layers.{}.pre_feedforward_layernorm.weight": "feed_forward_norm",
        "layers.{}.post_feedforward_layernorm.weight": "feed_forward_post_norm",
        "layers.{}.self_attn.q_norm.weight": "query_norm",
        "layers.{}.self_attn.k_norm.weight": "key_norm",
        **{f"layers.{{}}.self_attn.{name}_proj.weight": f"{name}_weight" for name in "qkvo"},
        **{
            f"layers.{{}}.mlp.{name}_proj.weight": f"{name}_weight"
            for name in ("gate", "up", "down")
        },
    },
)
_PATTERN: Final = 6
"""Every sixth block sees everything, unless the settings say which."""


def describe(config: Config, weights: NamedWeights) -> Checkpoint:
    """The checkpoint as blocks."""
    config.require("attn_logit_softcapping", (None,))
    config.require("attention_bias", (False, None))
    config.require("use_bidirectional_attention", (False, None))
    dim, layers = config.whole("hidden_size"), config.whole("num_hidden_layers")
    hidden = config.whole("intermediate_size")
    eps = config.eps("rms_norm_eps", 1e-6)

    def norm(part: str, layer: int | None = None, width: int = dim) -> NormWeights:
        gain = weights.read(part, width, layer=layer)
        return NormWeights(kind="rms", gain=gain, offset=1, eps=eps)

    def attention(layer: int) -> AttentionWeights:
        heads, groups = config.whole("num_attention_heads"), config.whole("num_key_value_heads")
        config.divides("num_attention_heads", groups, heads)
        size = config.whole("head_dim", 256)
        kind = _layer_type(config, layer)
        output = weights.read("o_weight", dim, heads * size, layer=layer)
        query = weights.read("q_weight", heads * size, dim, layer=layer)
        key = weights.read("k_weight", groups * size, dim, layer=layer)
        value = weights.read("v_weight", groups * size, dim, layer=layer)
        return AttentionWeights(
            query=query.reshape(heads, size, dim),
            key=key.reshape(groups, size, dim),
            value=value.reshape(groups, size, dim),
            output=output.reshape(dim, heads, size).transpose(1, 0, 2),
            query_norm=norm("query_norm", layer, size),
            key_norm=norm("key_norm", layer, size),
            scale_squared=1 / Fraction(config.number("query_pre_attn_scalar", 256)),
            rotary=config.rotary(size, layer_type=kind),
            causal=True,
            window=config.whole("sliding_window", 4096) if kind == "sliding_attention" else None,
        )

    def blocks() -> Iterator[Block]:
        for layer in range(layers):
            yield Block(
                arrangement="pre",
                attention=attention(layer),
                feed_forward=FeedForwardWeights(
                    activation=config.activation("hidden_activation", "gelu_pytorch_tanh"),
                    up=weights.read("up_weight", hidden, dim, layer=layer),
                    down=weights.read("down_weight", dim, hidden, layer=layer),
                    gate=weights.read("gate_weight", hidden, dim, layer=layer),
                ),
                attention_norm=norm("attention_norm", layer),
                feed_forward_norm=norm("feed_forward_norm", layer),
                attention_post_norm=norm("attention_post_norm", layer),
                feed_forward_post_norm=norm("feed_forward_post_norm", layer),
            )

    return Checkpoint(
        family=config.family,
        dim=dim,
        layers=layers,
        entry_norm=None,
        final_norm=norm("final_norm"),
        blocks=blocks(),
    )


def _layer_type(config: Config, layer: int) -> str:
    types = config.get("layer_types")
    if isinstance(types, list) and layer < len(types):
        return str(types[layer])
    pattern = config.whole("sliding_window_pattern", _PATTERN)
    return "sliding_attention" if (layer + 1) % pattern else "full_attention"
