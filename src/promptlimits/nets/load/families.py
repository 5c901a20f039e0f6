"""How each family's stock module of a block is laid out as a `nets.block.Block`.

Every layout is a function of the module, its configuration and its place, and stands in
`FAMILIES` with what of the model is not in a block. transformers has built the modules: which
tensor plays which part, and what a setting that is left out means, is decided there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from torch import nn
from transformers.pytorch_utils import Conv1D

from promptlimits.nets.block import (
    Activation,
    Array,
    AttentionWeights,
    Block,
    FeedForwardWeights,
    NormWeights,
    Rotary,
)

_ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "GELUActivation": "gelu",
    "NewGELUActivation": "gelu_tanh",
    "GELUTanh": "gelu_tanh",
    "PytorchGELUTanh": "gelu_tanh",
    "SiLUActivation": "silu",
    "SiLU": "silu",
    "ReLU": "relu",
}
"""Classes of the stock modules."""


class Part:
    """A stock module, or some rows of one, whose parameters are read when they are asked for."""

    def __init__(self, module: nn.Module, path: str, read: Callable[..., Array]) -> None:
        self.module, self._path, self._read = module, path, read

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.module, name)
        path = f"{self._path}.{name}"
        if isinstance(found, nn.Parameter):
            array = self._read(path, shape=tuple(found.shape))
            # GPT-2 stores (inputs, outputs).
            return array.T if isinstance(self.module, Conv1D) and array.ndim == 2 else array
        return Part(found, path, self._read) if isinstance(found, nn.Module) else found


@dataclass(frozen=True, kw_only=True, eq=False)
class _Linear:
    """Some rows of a joint projection."""

    weight: Array
    bias: Array | None


def is_positive(value: Any) -> bool:
    """Whether a setting is a number above 0 that a double can hold."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value <= sys.float_info.max


def _positive(value: Any, what: str) -> Fraction:
    """A setting that is a number above 0, exactly."""
    if not is_positive(value):
        raise Unfit(f"{what} must be a finite number above 0, got {value!r}")
    return Fraction(value)


class Unfit(ValueError):
    """A setting of a module that no block has."""


def norm(part: Any, *, offset: int = 0) -> NormWeights:
    """A LayerNorm or RMSNorm; `offset` 1 where the gain is 1 + weight."""
    layer = isinstance(part.module, nn.LayerNorm)
    if part.weight is None:
        raise Unfit("every norm must have a gain, got one without")
    eps = getattr(part.module, "eps", None) or getattr(part.module, "variance_epsilon", None)
    return NormWeights(
        kind="layer" if layer else "rms",
        gain=part.weight,
        bias=part.bias if layer else None,
        offset=offset,
        eps=_positive(eps, "eps of a norm"),
    )


def attention(parts: Sequence[Any], output: Any, size: int, **more: Any) -> AttentionWeights:
    """From the projections to queries, keys and values of heads of one size, and the one behind."""

    def heads(linear: Any) -> tuple[Array, Array | None]:
        weight, bias = linear.weight, linear.bias
        return (
            weight.reshape(-1, size, weight.shape[1]),
            None if bias is None else bias.reshape(-1, size),
        )

    (q, q_bias), (k, k_bias), (v, v_bias) = map(heads, parts)
    joined = output.weight
    return AttentionWeights(
        query=q,
        key=k,
        value=v,
        output=joined.reshape(len(joined), -1, size).transpose(1, 0, 2),
        query_bias=q_bias,
        key_bias=k_bias,
        value_bias=v_bias,
        output_bias=output.bias,
        **{"scale_squared": Fraction(1, size), "causal": True} | more,
    )


def feed_forward(act: Any, up: Any, down: Any, gate: Any = None) -> FeedForwardWeights:
    """A feed-forward layer, gated or not."""
    kind = type(getattr(act, "module", act)).__name__
    if kind not in _ACTIVATIONS:
        known = ", ".join(dict.fromkeys(_ACTIVATIONS.values()))
        raise Unfit(f"the activation must be one of {known}, got {kind}")
    return FeedForwardWeights(
        activation=_ACTIVATIONS[kind],
        up=up.weight,
        up_bias=up.bias,
        down=down.weight,
        down_bias=down.bias,
        gate=None if gate is None else gate.weight,
        gate_bias=None if gate is None else gate.bias,
    )


def split(linear: Any, *, heads: int = 1) -> list[_Linear]:
    """Queries, keys and values of a joint projection, side by side in each of `heads` parts."""

    def parts(array: Array) -> list[Array]:
        grouped = array.reshape(heads, 3, -1, *array.shape[1:])
        return [grouped[:, place].reshape(-1, *array.shape[1:]) for place in range(3)]

    biases = [None] * 3 if linear.bias is None else parts(linear.bias)
    return [_Linear(weight=w, bias=b) for w, b in zip(parts(linear.weight), biases, strict=True)]


def rotary(config: Any, size: int, kind: str | None = None) -> Rotary:
    """Rotary positions of a layer."""
    table = config.rope_parameters[kind] if kind else config.rope_parameters
    share = table.get("partial_rotary_factor")
    part = 1.0 if share is None else share
    if part > 1:
        raise Unfit(f"partial_rotary_factor must be at most 1, got {part:g}")
    return Rotary(width=int(size * part), theta=float(table["rope_theta"]))


def _llama(layer: Any, config: Any, _: int) -> Block:
    """Llama, SmolLM2 and Qwen2: RMSNorm in front, RoPE, grouped heads, gated feed-forward."""
    own, mlp = layer.self_attn, layer.mlp
    size = own.head_dim
    return Block(
        arrangement="pre",
        attention=attention(
            (own.q_proj, own.k_proj, own.v_proj), own.o_proj, size, rotary=rotary(config, size)
        ),
        feed_forward=feed_forward(mlp.act_fn, mlp.up_proj, mlp.down_proj, mlp.gate_proj),
        attention_norm=norm(layer.input_layernorm),
        feed_forward_norm=norm(layer.post_attention_layernorm),
    )


def _gemma3(layer: Any, config: Any, place: int) -> Block:
    """Gemma 3: norms of gain 1 + w, before and behind sublayers and over queries and keys."""
    own, mlp, kind = layer.self_attn, layer.mlp, config.layer_types[place]
    size = own.head_dim
    return Block(
        arrangement="pre",
        attention=attention(
            (own.q_proj, own.k_proj, own.v_proj),
            own.o_proj,
            size,
            scale_squared=1 / _positive(config.query_pre_attn_scalar, "query_pre_attn_scalar"),
            rotary=rotary(config, size, kind),
            query_norm=norm(own.q_norm, offset=1),
            key_norm=norm(own.k_norm, offset=1),
            window=config.sliding_window if kind == "sliding_attention" else None,
        ),
        feed_forward=feed_forward(mlp.act_fn, mlp.up_proj, mlp.down_proj, mlp.gate_proj),
        attention_norm=norm(layer.input_layernorm, offset=1),
        feed_forward_norm=norm(layer.pre_feedforward_layernorm, offset=1),
        attention_post_norm=norm(layer.post_attention_layernorm, offset=1),
        feed_forward_post_norm=norm(layer.post_feedforward_layernorm, offset=1),
    )


def _gpt2(layer: Any, config: Any, place: int) -> Block:
    """GPT-2: LayerNorm in front, learned positions, one joint projection."""
    own, mlp = layer.attn, layer.mlp
    size = own.head_dim
    scale = Fraction(1, size if config.scale_attn_weights else 1)
    scale /= (place + 1) ** 2 if config.scale_attn_by_inverse_layer_idx else 1
    return Block(
        arrangement="pre",
        attention=attention(split(own.c_attn), own.c_proj, size, scale_squared=scale),
        feed_forward=feed_forward(mlp.act, mlp.c_fc, mlp.c_proj),
        attention_norm=norm(layer.ln_1),
        feed_forward_norm=norm(layer.ln_2),
    )


def _gpt_neox(layer: Any, config: Any, _: int) -> Block:
    """GPT-NeoX and Pythia: both sublayers side by side, RoPE on part of a head."""
    own, mlp = layer.attention, layer.mlp
    size, heads = own.head_size, config.num_attention_heads
    return Block(
        arrangement="parallel" if config.use_parallel_residual else "pre",
        attention=attention(
            split(own.query_key_value, heads=heads), own.dense, size, rotary=rotary(config, size)
        ),
        feed_forward=feed_forward(mlp.act, mlp.dense_h_to_4h, mlp.dense_4h_to_h),
        attention_norm=norm(layer.input_layernorm),
        feed_forward_norm=norm(layer.post_attention_layernorm),
    )


def _bert(layer: Any, config: Any, _: int) -> Block:
    """BERT and MiniLM encoders: LayerNorm behind each sublayer and behind the embeddings."""
    own, inner = layer.attention, layer.attention.self
    return Block(
        arrangement="post",
        attention=attention(
            (inner.query, inner.key, inner.value),
            own.output.dense,
            inner.attention_head_size,
            causal=config.is_decoder,
        ),
        feed_forward=feed_forward(
            layer.intermediate.intermediate_act_fn, layer.intermediate.dense, layer.output.dense
        ),
        attention_norm=norm(own.output.LayerNorm),
        feed_forward_norm=norm(layer.output.LayerNorm),
    )


def _phi(layer: Any, config: Any, _: int) -> Block:
    """Phi: one LayerNorm in front of both sublayers, side by side, RoPE on part of a head."""
    own, mlp = layer.self_attn, layer.mlp
    size = own.head_dim
    return Block(
        arrangement="parallel",
        attention=attention(
            (own.q_proj, own.k_proj, own.v_proj), own.dense, size, rotary=rotary(config, size)
        ),
        feed_forward=feed_forward(mlp.activation_fn, mlp.fc1, mlp.fc2),
        attention_norm=norm(layer.input_layernorm),
        feed_forward_norm=norm(layer.input_layernorm),
    )


def _opt(layer: Any, config: Any, _: int) -> Block:
    """OPT: LayerNorm in front, learned positions."""
    own = layer.self_attn
    if not config.do_layer_norm_before:
        raise Unfit("do_layer_norm_before must be true: no norm stands before the first block")
    return Block(
        arrangement="pre",
        attention=attention((own.q_proj, own.k_proj, own.v_proj), own.out_proj, own.head_dim),
        feed_forward=feed_forward(layer.activation_fn, layer.fc1, layer.fc2),
        attention_norm=norm(layer.self_attn_layer_norm),
        feed_forward_norm=norm(layer.final_layer_norm),
    )


@dataclass(frozen=True, kw_only=True)
class Family:
    """What of a family is not in its block; paths inside its base model.

    Attributes:
        block: Lays out one block.
        layers: The list of blocks.
        norm: The norm behind the last block, or before the first.
        post: Whether it is before the first.
        added: Embeddings that are added to what a prompt gives.
        unused: What the hidden state behind the last block does not depend on.
        offset: 1 where that norm's gain is 1 + weight.
    """

    block: Callable[[Any, Any, int], Block]
    layers: str = "layers"
    norm: str = "norm"
    post: bool = False
    added: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    offset: int = 0


FAMILIES: Final[Mapping[str, Family]] = {
    "bert": Family(
        block=_bert,
        layers="encoder.layer",
        norm="embeddings.LayerNorm",
        post=True,
        added=("embeddings.position_embeddings", "embeddings.token_type_embeddings"),
        unused=("pooler",),
    ),
    "gemma3_text": Family(block=_gemma3, offset=1),
    "gpt2": Family(block=_gpt2, layers="h", norm="ln_f", added=("wpe",)),
    "gpt_neox": Family(block=_gpt_neox, norm="final_layer_norm"),
    "llama": Family(block=_llama),
    "opt": Family(
        block=_opt,
        layers="decoder.layers",
        norm="decoder.final_layer_norm",
        added=("decoder.embed_positions",),
    ),
    "phi": Family(block=_phi, norm="final_layernorm"),
    "qwen2": Family(block=_llama),
}
"""By model_type."""
