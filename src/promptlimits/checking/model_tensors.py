"""The matrices of a checkpoint's blocks, read again from its files for the checker.

It shares no code with `promptlimits.models.weights`, which read them for the proof: other tables,
other arrangement of the arrays, another reader. Numbers widen to float64 exactly.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from promptlimits.errors import UserError

Array = NDArray[np.float64]
_TYPES: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_ACTS: Final = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
}


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
    """The tensors of a checkpoint's directory.

    Args:
        directory: Holds config.json and safetensors.

    Raises:
        UserError: They cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        try:
            self.config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
            self.files = _files(directory)
            self._places: dict[str, tuple[Path, str, tuple[int, ...], int]] = {}
            for file in self.files:
                self._open(file)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(
                "the weights",
                "be the directory of a checkpoint with config.json and safetensors",
                got=f"{directory} ({type(error).__name__}: {error})",
                remedy="give the model that the certificate is about",
            ) from error

    def sha256(self) -> str:
        """The hash of all files, one behind the other."""
        digest = hashlib.sha256()
        for file in self.files:
            with file.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
        return digest.hexdigest()

    def find(self, *names: str) -> Array | None:
        """The tensor of the first of these names that is there, exactly, or None."""
        for name in names:
            for key in (name, *(prefix + name for prefix in _PREFIXES)):
                if key in self._places:
                    return self._read(*self._places[key])
        return None

    def get(self, *names: str) -> Array:
        """The tensor of the first of these names that is there, exactly.

        Raises:
            UserError: There is none.
        """
        found = self.find(*names)
        if found is None:
            raise UserError(
                "the weights",
                f"hold {names[0]}",
                got="none of that name",
                remedy="give the model that the certificate is about",
            )
        return found

    def setting(self, key: str, default: Any) -> Any:
        """A setting of config.json, or the default."""
        value = self.config.get(key)
        return default if value is None else value

    def _open(self, file: Path) -> None:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size))
        for key, fields in header.items():
            if key != "__metadata__":
                start = 8 + size + int(fields["data_offsets"][0])
                self._places[key] = (file, fields["dtype"], tuple(fields["shape"]), start)

    def _read(self, file: Path, kind: str, shape: tuple[int, ...], start: int) -> Array:
        with file.open("rb") as stream:
            stream.seek(start)
            count = math.prod(shape)
            raw = np.frombuffer(
                stream.read(count * np.dtype(_TYPES[kind]).itemsize), dtype=_TYPES[kind]
            )
        wide = np.left_shift(raw.astype(np.uint32), 16).view(np.float32) if kind == "BF16" else raw
        return np.array(wide, dtype=np.float64).reshape(shape)


_PREFIXES: Final = ("model.", "transformer.", "gpt_neox.", "bert.")


def _files(directory: Path) -> list[Path]:
    single = directory / "model.safetensors"
    if single.is_file():
        return [single]
    index = json.loads((directory / "model.safetensors.index.json").read_text(encoding="utf-8"))
    return sorted({directory / Path(name).name for name in index["weight_map"].values()})


def outer_norms(files: TensorFiles) -> tuple[Gain | None, Gain | None]:
    """The norms in front of the first block and behind the last."""
    family = files.config.get("model_type")
    if family == "bert":
        return _layer_norm(files, "embeddings.LayerNorm", "layer_norm_eps", 1e-12), None
    if family == "gpt2":
        return None, _layer_norm(files, "ln_f", "layer_norm_epsilon", 1e-5)
    if family == "gpt_neox":
        return None, _layer_norm(files, "final_layer_norm", "layer_norm_eps", 1e-5)
    return None, _rms(files, "norm", plus=int(family == "gemma3_text"))


def block_tensors(files: TensorFiles, place: int) -> BlockTensors:
    """One block of the checkpoint.

    Args:
        files: Its tensors.
        place: Number of the block, from 0.

    Returns:
        The block.

    Raises:
        UserError: The family is not known, or a tensor is missing.
    """
    family = files.config.get("model_type")
    readers: dict[Any, Callable[[TensorFiles, int], BlockTensors]] = {
        "bert": _bert,
        "gemma3_text": _llama,
        "gpt2": _gpt2,
        "gpt_neox": _gpt_neox,
        "llama": _llama,
        "qwen2": _llama,
    }
    if family not in readers:
        raise UserError(
            "the weights",
            "be of a family whose blocks are known",
            got=f"model_type {family!r}",
            remedy="give the model that the certificate is about",
        )
    return readers[family](files, place)


def block_count(files: TensorFiles) -> int:
    """How many blocks config.json states."""
    return int(files.setting("num_hidden_layers", files.config.get("n_layer", 0)))


def _eps(files: TensorFiles, key: str, default: float) -> Fraction:
    return Fraction(float(files.setting(key, default)))


def _layer_norm(files: TensorFiles, name: str, key: str, default: float) -> Gain:
    return Gain(
        eps=_eps(files, key, default),
        stored=files.get(f"{name}.weight", f"{name}.gamma"),
        bias=files.get(f"{name}.bias", f"{name}.beta"),
    )


def _rms(files: TensorFiles, name: str, *, plus: int) -> Gain:
    eps = _eps(files, "rms_norm_eps", 1e-6)
    return Gain(eps=eps, stored=files.get(f"{name}.weight"), plus=plus)


def _bert(files: TensorFiles, place: int) -> BlockTensors:
    base, heads = f"encoder.layer.{place}", int(files.config["num_attention_heads"])
    own = f"{base}.attention.self"
    query = files.get(f"{own}.query.weight")
    names = {"attention_norm": "attention.output", "feed_forward_norm": "output"}
    return BlockTensors(
        arrangement="post",
        heads=heads,
        groups=heads,
        scale_squared=Fraction(heads, len(query)),
        rotary=False,
        query=query,
        key=files.get(f"{own}.key.weight"),
        value=files.get(f"{own}.value.weight"),
        output=files.get(f"{base}.attention.output.dense.weight"),
        query_bias=files.get(f"{own}.query.bias"),
        key_bias=files.get(f"{own}.key.bias"),
        activation=_ACTS[files.setting("hidden_act", "gelu")],
        up=files.get(f"{base}.intermediate.dense.weight"),
        down=files.get(f"{base}.output.dense.weight"),
        gate=None,
        up_bias=files.get(f"{base}.intermediate.dense.bias"),
        gate_bias=None,
        norms={
            part: _layer_norm(files, f"{base}.{name}.LayerNorm", "layer_norm_eps", 1e-12)
            for part, name in names.items()
        },
    )


def _gpt2(files: TensorFiles, place: int) -> BlockTensors:
    base, heads = f"h.{place}", int(files.config["n_head"])
    width = int(files.config["n_embd"])
    joint, bias = files.get(f"{base}.attn.c_attn.weight"), files.get(f"{base}.attn.c_attn.bias")
    scale = Fraction(heads, width) if files.setting("scale_attn_weights", True) else Fraction(1)
    if files.setting("scale_attn_by_inverse_layer_idx", False):
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
        output=files.get(f"{base}.attn.c_proj.weight").T,
        query_bias=bias[:width],
        key_bias=bias[width : 2 * width],
        activation=_ACTS[files.setting("activation_function", "gelu_new")],
        up=files.get(f"{base}.mlp.c_fc.weight").T,
        down=files.get(f"{base}.mlp.c_proj.weight").T,
        gate=None,
        up_bias=files.get(f"{base}.mlp.c_fc.bias"),
        gate_bias=None,
        norms={
            part: _layer_norm(files, f"{base}.{name}", "layer_norm_epsilon", 1e-5)
            for part, name in names.items()
        },
    )


def _gpt_neox(files: TensorFiles, place: int) -> BlockTensors:
    base, heads = f"layers.{place}", int(files.config["num_attention_heads"])
    joint = files.get(f"{base}.attention.query_key_value.weight")
    bias = files.find(f"{base}.attention.query_key_value.bias")
    size = len(joint) // (3 * heads)
    # Rows: query, key and value of the first head, then of the second, ...
    rows = [
        np.concatenate([np.arange(size) + (3 * head + part) * size for head in range(heads)])
        for part in range(3)
    ]
    names = {"attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm"}
    return BlockTensors(
        arrangement="parallel" if files.setting("use_parallel_residual", True) else "pre",
        heads=heads,
        groups=heads,
        scale_squared=Fraction(1, size),
        rotary=True,
        query=joint[rows[0]],
        key=joint[rows[1]],
        value=joint[rows[2]],
        output=files.get(f"{base}.attention.dense.weight"),
        query_bias=None if bias is None else bias[rows[0]],
        key_bias=None if bias is None else bias[rows[1]],
        activation=_ACTS[files.setting("hidden_act", "gelu")],
        up=files.get(f"{base}.mlp.dense_h_to_4h.weight"),
        down=files.get(f"{base}.mlp.dense_4h_to_h.weight"),
        gate=None,
        up_bias=files.get(f"{base}.mlp.dense_h_to_4h.bias"),
        gate_bias=None,
        norms={
            part: _layer_norm(files, f"{base}.{name}", "layer_norm_eps", 1e-5)
            for part, name in names.items()
        },
    )


def _llama(files: TensorFiles, place: int) -> BlockTensors:
    base, heads = f"layers.{place}", int(files.config["num_attention_heads"])
    gemma = files.config["model_type"] == "gemma3_text"
    query = files.get(f"{base}.self_attn.q_proj.weight")
    size = len(query) // heads
    names = {"attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm"}
    if gemma:
        names = {
            "attention_norm": "input_layernorm",
            "attention_post_norm": "post_attention_layernorm",
            "feed_forward_norm": "pre_feedforward_layernorm",
            "feed_forward_post_norm": "post_feedforward_layernorm",
            "query_norm": "self_attn.q_norm",
            "key_norm": "self_attn.k_norm",
        }
    act = ("hidden_activation", "gelu_pytorch_tanh") if gemma else ("hidden_act", "silu")
    scalar = files.setting("query_pre_attn_scalar", 256) if gemma else size
    return BlockTensors(
        arrangement="pre",
        heads=heads,
        groups=int(files.setting("num_key_value_heads", heads)),
        scale_squared=1 / Fraction(scalar),
        rotary=True,
        query=query,
        key=files.get(f"{base}.self_attn.k_proj.weight"),
        value=files.get(f"{base}.self_attn.v_proj.weight"),
        output=files.get(f"{base}.self_attn.o_proj.weight"),
        query_bias=files.find(f"{base}.self_attn.q_proj.bias"),
        key_bias=files.find(f"{base}.self_attn.k_proj.bias"),
        activation=_ACTS[files.setting(*act)],
        up=files.get(f"{base}.mlp.up_proj.weight"),
        down=files.get(f"{base}.mlp.down_proj.weight"),
        gate=files.get(f"{base}.mlp.gate_proj.weight"),
        up_bias=files.find(f"{base}.mlp.up_proj.bias"),
        gate_bias=files.find(f"{base}.mlp.gate_proj.bias"),
        norms={
            part: _rms(files, f"{base}.{name}", plus=int(gemma)) for part, name in names.items()
        },
    )
