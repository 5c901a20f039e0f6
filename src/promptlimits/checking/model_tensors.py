"""The matrices of a checkpoint's blocks, read again from its files for the checker.

It shares no code with `lipschitz.checkpoint.weights`, which read them for the proof: other tables
(`model_names`), other refusals (`model_settings`), another arrangement of the arrays, another
reader (`model_files`). Numbers widen to float64 exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from promptlimits.checking.model_files import Array, WeightFiles, unusable
from promptlimits.checking.model_names import stored_names
from promptlimits.checking.model_settings import Settings


@dataclass(frozen=True, kw_only=True, eq=False)
class Gain:
    """A norm: its eps, its gain (stored + `plus`) and bias."""

    eps: Fraction
    stored: Array
    plus: int = 0
    bias: Array | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockTensors:
    """One block: rows of `query`, `key`, `value` are those of all heads, one below the other."""

    arrangement: str
    heads: int
    groups: int
    scale_squared: Fraction
    rotary: bool
    query: Array
    key: Array
    value: Array
    output: Array
    query_bias: Array | None
    key_bias: Array | None
    activation: str
    up: Array
    down: Array
    gate: Array | None
    up_bias: Array | None
    gate_bias: Array | None
    norms: Mapping[str, Gain | None]


class TensorFiles:
    """The tensors of a checkpoint's directory, by their names without prefix.

    Args:
        directory: Holds config.json and safetensors.

    Raises:
        UserError: They cannot be read, hold something that is no part of such a model, or
            describe one whose blocks are not known.
    """

    def __init__(self, directory: Path) -> None:
        self.settings = Settings(directory)
        self._weights = WeightFiles(directory)
        self._stored = stored_names(
            self._weights.names, family=self.family, layers=block_count(self)
        )
        self._weights.require_finite()

    @property
    def family(self) -> str:
        """Its model_type."""
        return self.settings.family

    def sha256(self) -> str:
        """The hash of all files, one behind the other."""
        return self._weights.sha256()

    def find(self, name: str, *shape: int) -> Array | None:
        """The tensor of this name, exactly, or None."""
        stored = self._stored.get(name)
        return None if stored is None else self._weights.read(stored, shape)

    def get(self, name: str, *shape: int) -> Array:
        """The tensor of this name, exactly."""
        found = self.find(name, *shape)
        if found is None:
            raise unusable(f"hold {name}", "none of that name")
        return found


def block_count(files: TensorFiles) -> int:
    """How many blocks config.json states."""
    return files.settings.whole("n_layer" if files.family == "gpt2" else "num_hidden_layers")


def model_width(files: TensorFiles) -> int:
    """The width that config.json states."""
    return files.settings.whole("n_embd" if files.family == "gpt2" else "hidden_size")


def outer_norms(files: TensorFiles) -> tuple[Gain | None, Gain | None]:
    """The norms in front of the first block and behind the last."""
    if files.family == "bert":
        return _layer_norm(files, "embeddings.LayerNorm", "layer_norm_eps", 1e-12), None
    if files.family == "gpt2":
        return None, _layer_norm(files, "ln_f", "layer_norm_epsilon", 1e-5)
    if files.family == "gpt_neox":
        return None, _layer_norm(files, "final_layer_norm", "layer_norm_eps", 1e-5)
    plus = int(files.family == "gemma3_text")
    return None, _rms(files, "norm", model_width(files), plus=plus)


def block_tensors(files: TensorFiles, place: int) -> BlockTensors:
    """One block of the checkpoint."""
    readers: dict[str, Callable[[TensorFiles, int], BlockTensors]] = {
        "bert": _bert,
        "gemma3_text": _llama,
        "gpt2": _gpt2,
        "gpt_neox": _gpt_neox,
        "llama": _llama,
        "qwen2": _llama,
    }
    return readers[files.family](files, place)


def _share(total: int, parts: int, what: str) -> int:
    """The size of one of `parts` equal parts."""
    if total % parts:
        raise unusable(f"have a config.json where {what} is divided evenly", f"{total} / {parts}")
    return total // parts


def _layer_norm(files: TensorFiles, name: str, key: str, default: float) -> Gain:
    width = model_width(files)
    return Gain(
        eps=files.settings.number(key, default),
        stored=files.get(f"{name}.weight", width),
        bias=files.get(f"{name}.bias", width),
    )


def _rms(files: TensorFiles, name: str, width: int, *, plus: int) -> Gain:
    eps = files.settings.number("rms_norm_eps", 1e-6)
    return Gain(eps=eps, stored=files.get(f"{name}.weight", width), plus=plus)


def _bert(files: TensorFiles, place: int) -> BlockTensors:
    base, width = f"encoder.layer.{place}", model_width(files)
    heads = files.settings.whole("num_attention_heads")
    hidden = files.settings.whole("intermediate_size")
    own = f"{base}.attention.self"
    names = {"attention_norm": "attention.output", "feed_forward_norm": "output"}
    return BlockTensors(
        arrangement="post",
        heads=heads,
        groups=heads,
        scale_squared=Fraction(1, _share(width, heads, "the width")),
        rotary=False,
        query=files.get(f"{own}.query.weight", width, width),
        key=files.get(f"{own}.key.weight", width, width),
        value=files.get(f"{own}.value.weight", width, width),
        output=files.get(f"{base}.attention.output.dense.weight", width, width),
        query_bias=files.get(f"{own}.query.bias", width),
        key_bias=files.get(f"{own}.key.bias", width),
        activation=files.settings.activation("hidden_act", "gelu"),
        up=files.get(f"{base}.intermediate.dense.weight", hidden, width),
        down=files.get(f"{base}.output.dense.weight", width, hidden),
        gate=None,
        up_bias=files.get(f"{base}.intermediate.dense.bias", hidden),
        gate_bias=None,
        norms={
            part: _layer_norm(files, f"{base}.{name}.LayerNorm", "layer_norm_eps", 1e-12)
            for part, name in names.items()
        },
    )


def _gpt2(files: TensorFiles, place: int) -> BlockTensors:
    base, width, settings = f"h.{place}", model_width(files), files.settings
    heads, hidden = settings.whole("n_head"), settings.whole("n_inner", 4 * width)
    joint = files.get(f"{base}.attn.c_attn.weight", width, 3 * width)
    bias = files.get(f"{base}.attn.c_attn.bias", 3 * width)
    size = _share(width, heads, "the width")
    scale = Fraction(1, size) if settings.flag("scale_attn_weights", default=True) else Fraction(1)
    if settings.flag("scale_attn_by_inverse_layer_idx", default=False):
        scale /= Fraction(place + 1) ** 2
    names = {"attention_norm": "ln_1", "feed_forward_norm": "ln_2"}
    return BlockTensors(
        arrangement="pre",
        heads=heads,
        groups=heads,
        scale_squared=scale,
        rotary=False,
        query=joint[:, :width].T,
        key=joint[:, width : 2 * width].T,
        value=joint[:, 2 * width :].T,
        output=files.get(f"{base}.attn.c_proj.weight", width, width).T,
        query_bias=bias[:width],
        key_bias=bias[width : 2 * width],
        activation=settings.activation("activation_function", "gelu_new"),
        up=files.get(f"{base}.mlp.c_fc.weight", width, hidden).T,
        down=files.get(f"{base}.mlp.c_proj.weight", hidden, width).T,
        gate=None,
        up_bias=files.get(f"{base}.mlp.c_fc.bias", hidden),
        gate_bias=None,
        norms={
            part: _layer_norm(files, f"{base}.{name}", "layer_norm_epsilon", 1e-5)
            for part, name in names.items()
        },
    )


def _gpt_neox(files: TensorFiles, place: int) -> BlockTensors:
    base, width, settings = f"layers.{place}", model_width(files), files.settings
    heads, hidden = settings.whole("num_attention_heads"), settings.whole("intermediate_size")
    joint = files.get(f"{base}.attention.query_key_value.weight", 3 * width, width)
    bias = files.find(f"{base}.attention.query_key_value.bias", 3 * width)
    if bias is not None and not settings.flag("attention_bias", default=True):
        raise unusable("hold biases that the model has", "some where attention_bias is false")
    size = _share(width, heads, "the width")
    # Rows: query, key and value of the first head, then of the second, ...
    rows = [
        np.concatenate([np.arange(size) + (3 * head + part) * size for head in range(heads)])
        for part in range(3)
    ]
    names = {"attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm"}
    parallel = settings.flag("use_parallel_residual", default=True)
    return BlockTensors(
        arrangement="parallel" if parallel else "pre",
        heads=heads,
        groups=heads,
        scale_squared=Fraction(1, size),
        rotary=True,
        query=joint[rows[0]],
        key=joint[rows[1]],
        value=joint[rows[2]],
        output=files.get(f"{base}.attention.dense.weight", width, width),
        query_bias=None if bias is None else bias[rows[0]],
        key_bias=None if bias is None else bias[rows[1]],
        activation=settings.activation("hidden_act", "gelu"),
        up=files.get(f"{base}.mlp.dense_h_to_4h.weight", hidden, width),
        down=files.get(f"{base}.mlp.dense_4h_to_h.weight", width, hidden),
        gate=None,
        up_bias=files.get(f"{base}.mlp.dense_h_to_4h.bias", hidden),
        gate_bias=None,
        norms={
            part: _layer_norm(files, f"{base}.{name}", "layer_norm_eps", 1e-5)
            for part, name in names.items()
        },
    )


_LLAMA_NORMS = {
    "attention_norm": "input_layernorm",
    "feed_forward_norm": "post_attention_layernorm",
}
_GEMMA_NORMS = {
    "attention_norm": "input_layernorm",
    "attention_post_norm": "post_attention_layernorm",
    "feed_forward_norm": "pre_feedforward_layernorm",
    "feed_forward_post_norm": "post_feedforward_layernorm",
    "query_norm": "self_attn.q_norm",
    "key_norm": "self_attn.k_norm",
}


def _llama(files: TensorFiles, place: int) -> BlockTensors:
    base, width, settings = f"layers.{place}", model_width(files), files.settings
    heads, hidden = settings.whole("num_attention_heads"), settings.whole("intermediate_size")
    gemma = files.family == "gemma3_text"
    # A Gemma without num_key_value_heads is one of 4: none is written so.
    groups = settings.whole("num_key_value_heads", None if gemma else heads)
    _share(heads, groups, "the number of heads")
    if settings.has("head_dim") or gemma:
        size = settings.whole("head_dim", 256)
    else:
        size = _share(width, heads, "the width")
    own, fed = f"{base}.self_attn", f"{base}.mlp"
    act = ("hidden_activation", "gelu_pytorch_tanh") if gemma else ("hidden_act", "silu")
    scalar = settings.number("query_pre_attn_scalar", 256) if gemma else Fraction(size)
    return BlockTensors(
        arrangement="pre",
        heads=heads,
        groups=groups,
        scale_squared=1 / scalar,
        rotary=True,
        query=files.get(f"{own}.q_proj.weight", heads * size, width),
        key=files.get(f"{own}.k_proj.weight", groups * size, width),
        value=files.get(f"{own}.v_proj.weight", groups * size, width),
        output=files.get(f"{own}.o_proj.weight", width, heads * size),
        query_bias=files.find(f"{own}.q_proj.bias", heads * size),
        key_bias=files.find(f"{own}.k_proj.bias", groups * size),
        activation=settings.activation(*act),
        up=files.get(f"{fed}.up_proj.weight", hidden, width),
        down=files.get(f"{fed}.down_proj.weight", width, hidden),
        gate=files.get(f"{fed}.gate_proj.weight", hidden, width),
        up_bias=files.find(f"{fed}.up_proj.bias", hidden),
        gate_bias=files.find(f"{fed}.gate_proj.bias", hidden),
        norms={
            part: _rms(
                files,
                f"{base}.{name}",
                size if part in ("query_norm", "key_norm") else width,
                plus=int(gemma),
            )
            for part, name in (_GEMMA_NORMS if gemma else _LLAMA_NORMS).items()
        },
    )
