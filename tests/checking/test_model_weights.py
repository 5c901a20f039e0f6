"""Weights against which a ceiling is checked: only a plain checkpoint of a known family passes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.checking.altered import sealed_again
from tests.checking.test_model_ceiling import certificate

from promptlimits.base.errors import UserError
from promptlimits.checking.model_ceiling import check
from promptlimits.checking.model_files import WeightFiles
from promptlimits.checking.model_tensors import TensorFiles, block_tensors, outer_norms
from promptlimits.nets.files.folder import weight_files
from promptlimits.nets.files.hashing import weights_hash
from promptlimits.testing.tiny_models import tiny_causal_lm, tiny_encoder

Tensors = dict[str, Any]
FAMILIES = ("bert", "gemma3", "gpt2", "gpt_neox", "llama", "qwen2")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One tiny model of each family."""
    made = {}
    for family in FAMILIES:
        made[family] = folder = tmp_path_factory.mktemp(family)
        if family == "bert":
            tiny_encoder(folder, dim=8, layers=1, heads=2)
        else:
            tiny_causal_lm(folder, family, dim=8, layers=1, heads=2, kv_heads=1)
    return made


@pytest.fixture
def altered(models: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of a family's model with other settings or tensors."""

    def alter(
        family: str,
        settings: dict[str, Any] | None = None,
        tensors: Callable[[Tensors], Tensors] | None = None,
    ) -> Path:
        copy: Path = shutil.copytree(models[family], tmp_path / "altered")
        if settings is not None:
            path = copy / "config.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | settings))
        if tensors is not None:
            path = copy / "model.safetensors"
            save_file(tensors(load_file(path)), path, metadata={"format": "pt"})
        return copy

    return alter


def everything(directory: Path) -> None:
    """Read all that the checker reads."""
    files = TensorFiles(directory)
    outer_norms(files)
    block_tensors(files, 0)


PREFIXES = {
    "bert": "bert.",
    "gemma3": "model.",
    "gpt2": "transformer.",
    "gpt_neox": "gpt_neox.",
    "llama": "model.",
    "qwen2": "model.",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_names_with_and_without_the_familys_prefix(
    family: str, altered: Callable[..., Path]
) -> None:
    prefix, heads = PREFIXES[family], ("lm_head", "embed_out", "cls")

    def bare(tensors: Tensors) -> Tensors:
        return {name.removeprefix(prefix): value for name, value in tensors.items()}

    def full(tensors: Tensors) -> Tensors:
        return {
            name if name.startswith(heads) else prefix + name.removeprefix(prefix): value
            for name, value in tensors.items()
        }

    for form in (bare, full):
        folder = altered(family, tensors=form)
        everything(folder)
        shutil.rmtree(folder)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("decoy", ["model.", "transformer.", "bert.", ""])
def test_decoys_under_another_prefix_are_refused(
    family: str, decoy: str, altered: Callable[..., Path]
) -> None:
    if decoy == PREFIXES[family]:
        return

    def shadowed(tensors: Tensors) -> Tensors:
        real = {PREFIXES[family] + n.removeprefix(PREFIXES[family]): v for n, v in tensors.items()}
        small = {decoy + n.removeprefix(PREFIXES[family]): v / 1000 for n, v in tensors.items()}
        return real | small

    with pytest.raises(UserError, match=r"unknown tensor|hold each tensor once"):
        everything(altered(family, tensors=shadowed))


def test_a_ceiling_of_decoys_is_no_ceiling_of_the_model(
    models: dict[str, Path], altered: Callable[..., Path]
) -> None:
    """The forgery that passed: the small model's norms, the large model's hash."""

    def shadowed(tensors: Tensors) -> Tensors:
        large = {name: 1000 * value for name, value in tensors.items()}
        return large | {f"model.{n.removeprefix('transformer.')}": v for n, v in tensors.items()}

    folder = altered("gpt2", tensors=shadowed)
    record = certificate(models["gpt2"])
    assert check(record, weights=models["gpt2"])
    record["inputs"]["weights_sha256"] = weights_hash(weight_files(folder))
    with pytest.raises(UserError, match="unknown tensor"):
        check(sealed_again(record), weights=folder)


def renamed(old: str, new: str, *, keep: bool = False) -> Callable[[Tensors], Tensors]:
    """A change of names, the old ones kept or not."""

    def change(tensors: Tensors) -> Tensors:
        other = {name.replace(old, new): value.copy() for name, value in tensors.items()}
        return tensors | other if keep else other

    return change


def test_older_names_of_a_norm_stand_for_todays_but_not_beside_them(
    altered: Callable[..., Path],
) -> None:
    older = altered("bert", tensors=renamed("LayerNorm.weight", "LayerNorm.gamma"))
    everything(older)
    shutil.rmtree(older)
    both = altered("bert", tensors=renamed("LayerNorm.bias", "LayerNorm.beta", keep=True))
    with pytest.raises(UserError, match="hold each tensor once"):
        everything(both)


@pytest.mark.parametrize(
    ("family", "change", "match"),
    [
        ("llama", renamed("layers.0", "layers.1"), "of 1 blocks, got an unknown tensor"),
        ("llama", renamed("layers.0", "layers.00", keep=True), "unknown tensor"),
        ("llama", renamed("layers.0", "layers.\u0660", keep=True), "unknown tensor"),
        ("llama", renamed("up_proj", "up_proj.lora_A", keep=True), "unknown tensor"),
        ("gpt2", renamed("ln_1", "ln_3"), "unknown tensor"),
        ("llama", renamed("model.norm", "norm"), "in front, or none"),
        ("llama", lambda t: {n: v for n, v in t.items() if "up_proj" not in n}, "none of that"),
        ("gpt2", lambda t: {n: v[:4] for n, v in t.items()}, "in the shape"),
        ("llama", lambda t: {n: v.astype(np.int32) for n, v in t.items()}, "hold .* as F64"),
        ("llama", lambda t: {n: v * np.float32(np.nan) for n, v in t.items()}, "finite"),
        ("llama", lambda t: t | {"lm_head.weight": np.full(3, np.inf, np.float16)}, "finite"),
    ],
)
def test_other_tensors_are_refused(
    family: str, change: Callable[[Tensors], Tensors], match: str, altered: Callable[..., Path]
) -> None:
    with pytest.raises(UserError, match=match):
        everything(altered(family, tensors=change))


SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("bert", {"position_embedding_type": "relative_key"}),
    ("bert", {"add_cross_attention": True}),
    ("bert", {"hidden_act": "quick_gelu"}),
    ("bert", {"hidden_act": ["gelu"]}),
    ("bert", {"num_attention_heads": 3}),
    ("gemma3", {"attn_logit_softcapping": 50.0}),
    ("gemma3", {"use_bidirectional_attention": True}),
    ("gemma3", {"attention_bias": True}),
    ("gemma3", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}),
    ("gemma3", {"query_pre_attn_scalar": 0}),
    ("gpt2", {"add_cross_attention": True}),
    ("gpt2", {"num_attention_heads": 4}),
    ("gpt2", {"num_hidden_layers": 2}),
    ("gpt2", {"scale_attn_weights": None}),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": "false"}),
    ("gpt2", {"layer_norm_epsilon": 10**400}),
    ("gpt_neox", {"use_parallel_residual": 1}),
    ("gpt_neox", {"attention_bias": False}),
    ("gpt_neox", {"rotary_pct": "all"}),
    ("llama", {"rms_norm_eps": "1e-5"}),
    ("llama", {"rms_norm_eps": float("nan")}),
    ("llama", {"rms_norm_eps": 0}),
    ("llama", {"num_attention_heads": "2"}),
    ("llama", {"num_attention_heads": 0}),
    ("llama", {"num_attention_heads": None}),
    ("llama", {"num_key_value_heads": 0}),
    ("llama", {"num_key_value_heads": 3}),
    ("llama", {"num_hidden_layers": True}),
    ("llama", {"rope_parameters": "linear"}),
    ("llama", {"rope_parameters": {"rope_type": "yarn", "attention_factor": 1e6}}),
    ("llama", {"rope_parameters": {"rope_type": ["default"]}}),
    ("llama", {"rope_parameters": {"type": "longrope"}}),
    ("llama", {"rope_parameters": {"rope_theta": "abc"}}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 0}}),
    ("llama", {"rope_parameters": None, "rope_scaling": {"rope_type": "yarn"}}),
    ("llama", {"rope_parameters": {"rope_theta": 1e4}, "rope_scaling": {"type": "linear"}}),
    ("llama", {"rope_parameters": None, "rope_scaling": "linear"}),
    ("llama", {"rope_theta": "abc"}),
    ("llama", {"quantization_config": {"quant_method": "torchao"}}),
    ("llama", {"auto_map": {"AutoModel": "other.Model"}}),
    ("llama", {"model_type": ["llama"]}),
    ("llama", {"model_type": "mixtral"}),
]


@pytest.mark.parametrize(("family", "settings"), SETTINGS, ids=str)
def test_settings_that_change_the_blocks_are_refused(
    family: str, settings: dict[str, Any], altered: Callable[..., Path]
) -> None:
    (key,) = list(settings)[-1:]
    with pytest.raises(UserError, match=r"divided evenly|attention_bias|" + key):
        everything(altered(family, settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "rope_theta": 1e4}},
        {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2}},
        {"rope_parameters": None, "rope_theta": 5e5},
        {"head_dim": None, "num_hidden_layers": 1},
    ],
    ids=str,
)
def test_settings_that_only_turn_pass(
    settings: dict[str, Any], altered: Callable[..., Path]
) -> None:
    everything(altered("llama", settings))


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000, '{"model_type": ' + "1" * 5000 + "}"])
def test_unreadable_settings(text: str, altered: Callable[..., Path]) -> None:
    folder = altered("llama")
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError, match="the weights"):
        everything(folder)


def test_a_checkpoint_with_an_adapter_is_refused(altered: Callable[..., Path]) -> None:
    folder = altered("llama")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="adapter"):
        everything(folder)


def entry(low: int, high: int, shape: list[Any], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [low, high]}


@pytest.mark.parametrize(
    "header",
    [
        json.dumps({"a": entry(0, 8, [3])}),
        json.dumps({"a": entry(0, 4, [1]), "b": entry(0, 8, [2])}),
        json.dumps({"a": entry(4, 8, [1])}),
        json.dumps({"a": entry(0, 4, [1])}),
        json.dumps({"a": entry(0, 8, [-2])}),
        json.dumps({"a": entry(0, 8, [2.0])}),
        json.dumps({"a": entry(0, 8, ["2"])}),
        json.dumps({"a": entry(0, 8, [2], "F99")}),
        '{"a": {"dtype": "F32", "shape": [1e400], "data_offsets": [0, 8]}}',
        f'{{"a": {json.dumps(entry(0, 4, [1]))}, "a": {json.dumps(entry(0, 8, [2]))}}}',
        '{"a": 1}',
        "[]",
        "[" * 200_000,
        "{",
    ],
    ids=range(14),
)
def test_headers_that_do_not_describe_their_file(header: str, tmp_path: Path) -> None:
    raw = header.encode()
    (tmp_path / "model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(8))
    with pytest.raises(UserError, match="whole safetensors"):
        WeightFiles(tmp_path)


def test_files_that_are_cut_off(altered: Callable[..., Path]) -> None:
    folder = altered("llama")
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for part in (whole[:-1], whole + b"\0", whole[:100], whole[:7], b""):
        path.write_bytes(part)
        with pytest.raises(UserError, match="whole safetensors"):
            WeightFiles(folder)
    path.write_bytes(whole)
    assert WeightFiles(folder).names
