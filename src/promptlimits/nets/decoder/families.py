"""The causal families that have their own forward pass, each as a table from stock modules.

A family is known by the model type of its configuration. A setting that its table does not know is
refused: another activation, a rotary embedding that depends on the length, attention dropped in or
capped. The model then runs through transformers' own code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from promptlimits.nets.decoder.block import AttentionLayer, Block
from promptlimits.nets.decoder.linear import (
    Activation,
    ActivationName,
    FeedForward,
    Linear,
    LinearHead,
    Norm,
)
from promptlimits.nets.decoder.network import Angles, Decoder
from promptlimits.nets.decoder.rotary import interleaving

_ACTIVATIONS: Final[dict[str, ActivationName]] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
_STATIC_ROTARY: Final = ("default", "linear", "llama3", "yarn")
_COPIED_BYTES: Final = 2**28
"""Most memory of copied feed-forward weights."""


class _Unknown(Exception):
    """A setting that no table knows."""


def decoder_of(model: Any) -> Decoder | None:
    """The decoder of a stock causal model."""
    build = _FAMILIES.get(model.config.model_type)
    try:
        return None if build is None else build(model)
    except _Unknown:
        return None


def _llama(model: Any) -> Decoder:
    """Llama and Qwen2: RMSNorm in front, rotary embedding, gated feed-forward."""
    config, body = model.config, model.model
    # Two copied matrices to each layer: only where they are few bytes.
    copied = 2 * config.num_hidden_layers * config.hidden_size * config.intermediate_size
    moves = copied * model.dtype.itemsize <= _COPIED_BYTES
    blocks = tuple(_llama_block(layer, config, moves=moves) for layer in body.layers)
    angles = {"rotary": _angles(body.rotary_emb, config.rope_parameters)}
    return _decoder(model, blocks, _rms(body.norm), angles)


def _llama_block(layer: Any, config: Any, *, moves: bool) -> Block:
    attention_norm, gain = _parted(_rms(layer.input_layernorm), moves=True)
    feed_norm, feed_gain = _parted(_rms(layer.post_attention_layernorm), moves=moves)
    return Block(
        attention_norm=attention_norm,
        attention=_attention(layer.self_attn, config, rotary="rotary", gain=gain),
        feed_norm=feed_norm,
        feed=_gated(layer.mlp, config.hidden_act, feed_gain),
    )


def _gemma3(model: Any) -> Decoder:
    """Gemma 3 (text): norms around both layers, normed heads, windows, gains of 1 + weight."""
    config, body = model.config, model.model
    if (
        config.final_logit_softcapping
        or config.attn_logit_softcapping
        or getattr(config, "use_bidirectional_attention", False)
    ):
        raise _Unknown
    angles = {
        kind: _angles(body.rotary_emb, config.rope_parameters[kind], kind)
        for kind in sorted(set(config.layer_types))
    }
    blocks = tuple(
        Block(
            attention_norm=_shifted(layer.input_layernorm),
            attention=_attention(
                layer.self_attn, config, rotary=config.layer_types[index], norm=_shifted
            ),
            attention_post=_shifted(layer.post_attention_layernorm),
            feed_norm=_shifted(layer.pre_feedforward_layernorm),
            feed=_gated(layer.mlp, config.hidden_activation),
            feed_post=_shifted(layer.post_feedforward_layernorm),
        )
        for index, layer in enumerate(body.layers)
    )
    return _decoder(model, blocks, _shifted(body.norm), angles)


def _gpt2(model: Any) -> Decoder:
    """GPT-2: LayerNorm in front, learned positions, one product for queries, keys, values."""
    config, body = model.config, model.transformer
    if config.add_cross_attention or config.reorder_and_upcast_attn:
        raise _Unknown
    blocks = tuple(
        Block(
            attention_norm=_layer(block.ln_1),
            attention=_gpt2_attention(block.attn),
            feed_norm=_layer(block.ln_2),
            feed=FeedForward(
                up=_transposed(block.mlp.c_fc),
                down=_transposed(block.mlp.c_proj),
                activation=_activation(config.activation_function),
            ),
        )
        for block in body.h
    )
    return _decoder(model, blocks, _layer(body.ln_f), {}, places=body.wpe.weight)


def _gpt_neox(model: Any) -> Decoder:
    """GPT-NeoX: LayerNorm, partial rotary embedding, attention and feed-forward side by side."""
    config, body = model.config, model.gpt_neox
    # Rotated numbers stand in pairs here (`rotary`), so an odd number of them has no table.
    if any(one.attention.head_size % 2 or one.attention.rotary_ndims % 2 for one in body.layers):
        raise _Unknown
    blocks = tuple(
        Block(
            attention_norm=_layer(layer.input_layernorm),
            attention=_neox_attention(layer.attention, config),
            feed_norm=_layer(layer.post_attention_layernorm),
            feed=FeedForward(
                up=_linear(layer.mlp.dense_h_to_4h),
                down=_linear(layer.mlp.dense_4h_to_h),
                activation=_activation(config.hidden_act),
            ),
            parallel=bool(config.use_parallel_residual),
        )
        for layer in body.layers
    )
    angles = {"rotary": _angles(body.rotary_emb, config.rope_parameters)}
    return _decoder(model, blocks, _layer(body.final_layer_norm), angles)


_FAMILIES: Final[Mapping[str, Callable[[Any], Decoder]]] = {
    "llama": _llama,
    "qwen2": _llama,
    "gemma3_text": _gemma3,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
}


def _decoder(
    model: Any,
    blocks: tuple[Block, ...],
    final_norm: Norm,
    angles: Mapping[str, Angles],
    *,
    places: Tensor | None = None,
) -> Decoder:
    return Decoder(
        # Called, not indexed: Gemma scales inside the module.
        embed=model.get_input_embeddings(),
        places=places,
        angles=angles,
        blocks=blocks,
        final_norm=final_norm,
        head=LinearHead(linear=_linear(model.get_output_embeddings())),
        dim=int(model.get_input_embeddings().weight.shape[1]),
        dtype=model.dtype,
    )


def _attention(
    layer: Any,
    config: Any,
    *,
    rotary: str,
    norm: Callable[[Any], Norm] | None = None,
    gain: Tensor | None = None,
) -> AttentionLayer:
    products = (_times(_linear(one), gain) for one in (layer.q_proj, layer.k_proj, layer.v_proj))
    return _joined(
        *products,
        output=_linear(layer.o_proj),
        query_norm=None if norm is None else norm(layer.q_norm),
        key_norm=None if norm is None else norm(layer.k_norm),
        kv_heads=int(config.num_key_value_heads),
        width=int(layer.head_dim),
        scaling=float(layer.scaling),
        window=getattr(layer, "sliding_window", None),
        rotary=rotary,
        rotated=int(layer.head_dim),
    )


def _gpt2_attention(layer: Any) -> AttentionLayer:
    fused = _transposed(layer.c_attn)
    return _joined(
        *_split(fused, lambda rows: rows.split(layer.split_size)),
        output=_transposed(layer.c_proj),
        kv_heads=int(layer.num_heads),
        width=int(layer.head_dim),
        scaling=float(layer.scaling),
    )


def _neox_attention(layer: Any, config: Any) -> AttentionLayer:
    heads, width = int(config.num_attention_heads), int(layer.head_size)
    fused = _linear(layer.query_key_value)

    def split(rows: Tensor) -> list[Tensor]:
        """Each head's query, key and value rows stand together."""
        return [part.flatten(0, 1) for part in rows.unflatten(0, (heads, 3, width)).unbind(1)]

    return _joined(
        *_split(fused, split),
        output=_linear(layer.dense),
        kv_heads=heads,
        width=width,
        scaling=float(layer.scaling),
        rotary="rotary",
        rotated=int(layer.rotary_ndims),
    )


def _joined(
    query: Linear,
    key: Linear,
    value: Linear,
    *,
    width: int,
    query_norm: Norm | None = None,
    key_norm: Norm | None = None,
    window: int | None = None,
    rotary: str | None = None,
    rotated: int = 0,
    **settings: Any,
) -> AttentionLayer:
    """An attention layer from stock products: rotated numbers interleaved, keys with values."""
    order = torch.tensor(interleaving(width, rotated), device=query.weight.device)

    def interleaved(rows: Tensor) -> list[Tensor]:
        return [rows.view(-1, width, *rows.shape[1:])[:, order].flatten(0, 1)]

    def beside(keys: Tensor, values: Tensor) -> Tensor:
        each = [rows.view(-1, width, *rows.shape[1:]) for rows in (keys, values)]
        return torch.stack(each, dim=1).flatten(0, 2)

    (query,), (key,) = _split(query, interleaved), _split(key, interleaved)
    bias = None if key.bias is None or value.bias is None else beside(key.bias, value.bias)
    return AttentionLayer(
        query=query,
        key_value=Linear(weight=beside(key.weight, value.weight), bias=bias),
        query_norm=_reordered(query_norm, order),
        key_norm=_reordered(key_norm, order),
        width=width,
        window=window,
        rotary=rotary,
        order=order,
        **settings,
    )


def _split(linear: Linear, split: Callable[[Tensor], Sequence[Tensor]]) -> list[Linear]:
    """The products whose rows, and their shifts, a function takes from those of another."""
    weights = split(linear.weight)
    biases = [None] * len(weights) if linear.bias is None else split(linear.bias)
    return [Linear(weight=w, bias=b) for w, b in zip(weights, biases, strict=True)]


def _reordered(norm: Norm | None, order: Tensor) -> Norm | None:
    if norm is None or norm.weight is None:
        return norm
    return replace(norm, weight=norm.weight[order])


def _activation(name: str) -> Activation:
    if name not in _ACTIVATIONS:
        raise _Unknown
    return Activation(_ACTIVATIONS[name])


def _gated(layer: Any, activation: str, gain: Tensor | None = None) -> FeedForward:
    return FeedForward(
        up=_times(_linear(layer.up_proj), gain),
        down=_linear(layer.down_proj),
        gate=_times(_linear(layer.gate_proj), gain),
        activation=_activation(activation),
    )


def _linear(layer: nn.Linear) -> Linear:
    return Linear(weight=layer.weight.detach(), bias=_bias(layer))


def _transposed(layer: Any) -> Linear:
    return Linear(weight=layer.weight.detach().t(), bias=_bias(layer))


def _bias(layer: Any) -> Tensor | None:
    return None if layer.bias is None else layer.bias.detach()


def _rms(layer: Any) -> Norm:
    return Norm(weight=layer.weight.detach(), bias=None, epsilon=float(layer.variance_epsilon))


def _parted(norm: Norm, *, moves: bool) -> tuple[Norm, Tensor | None]:
    """A norm and the gain that the products behind it carry, None where it stays in the norm."""
    # In 16 bits the product of a gain and a weight would be rounded.
    if not moves or norm.weight is None or norm.weight.dtype.itemsize < torch.float32.itemsize:
        return norm, None
    return replace(norm, weight=None), norm.weight


def _times(linear: Linear, gain: Tensor | None) -> Linear:
    """The product of gain x, from that of x."""
    return linear if gain is None else replace(linear, weight=linear.weight * gain)


def _shifted(layer: Any) -> Norm:
    """Gemma's RMSNorm: its gain is 1 + weight, formed in float32 at least."""
    weight = layer.weight.detach()
    wide = weight if weight.dtype.itemsize >= 4 else weight.float()
    return Norm(weight=1 + wide, bias=None, epsilon=float(layer.eps))


def _layer(layer: nn.LayerNorm) -> Norm:
    return Norm(weight=layer.weight.detach(), bias=layer.bias.detach(), epsilon=layer.eps)


def _angles(rotary: Any, parameters: Mapping[str, Any], kind: str | None = None) -> Angles:
    """Cosines and sines as the stock module computes them, unless they depend on the length."""
    if parameters.get("rope_type", "default") not in _STATIC_ROTARY:
        raise _Unknown
    named = {} if kind is None else {"layer_type": kind}

    def angles(positions: int) -> tuple[Tensor, Tensor]:
        frequencies = rotary.inv_freq if kind is None else getattr(rotary, f"{kind}_inv_freq")
        places = torch.arange(positions, device=frequencies.device)[None]
        like = torch.zeros((), dtype=torch.float32, device=frequencies.device)
        cosine, sine = rotary(like, places, **named)
        # The stock tables repeat themselves for the second half of the width.
        half = cosine.shape[-1] // 2
        return cosine[0, :, :half], sine[0, :, :half]

    return angles
