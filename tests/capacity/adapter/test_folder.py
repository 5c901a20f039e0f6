"""Of a folder from elsewhere only the adapter's own numbers get through; each refusal is plain."""

import dataclasses
import json
import os
import pickle
import struct

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from promptlimits.base.errors import UserError
from promptlimits.capacity.adapter.folder import read_foreign_adapter
from promptlimits.capacity.adapter.settings import (
    KEPT,
    REFUSED,
    WITHOUT_EFFECT,
    AdapterKind,
    kept_settings,
)

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
LAYER = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def lora(tmp_path):
    """A LoRA of one layer, as PEFT's save_pretrained lays it out."""
    return written(
        tmp_path / "lora",
        {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"},
        {f"{LAYER}.lora_A.weight": torch.ones(2, 8), f"{LAYER}.lora_B.weight": torch.ones(8, 2)},
    )


@pytest.fixture
def prefix(tmp_path):
    """A prefix of 3 tokens for 2 layers of 2 heads of width 4."""
    config = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3, "num_layers": 2}
    config |= {"token_dim": 8, "num_attention_heads": 2}
    return written(tmp_path / "prefix", config, {"prompt_embeddings": torch.ones(3, 32)})


def written(directory, config, tensors):
    directory.mkdir()
    (directory / CONFIG).write_text(json.dumps(config))
    save_file(tensors, directory / WEIGHTS)
    return directory


def change(directory, **settings):
    config = json.loads((directory / CONFIG).read_text()) | settings
    (directory / CONFIG).write_text(json.dumps(config))


def refused(directory, *words):
    with pytest.raises(UserError) as told:
        read_foreign_adapter(directory)
    for word in words:
        assert word in str(told.value), told.value
    assert told.value.remedy


def test_what_peft_is_given_is_written_anew(lora, tmp_path):
    change(
        lora,
        base_model_name_or_path="/etc",
        auto_mapping={"base_model_class": "Popen", "parent_library": "subprocess"},
        megatron_core="os",
        runtime_config={"ephemeral_gpu_offload": True},
        target_modules="(q|(q+)+)_proj",
        layers_pattern="((a+)+)+",
        loftq_config={"loftq_bits": 4},
        init_lora_weights="gaussian",
        something_newer={"a": 1},
    )
    adapter = read_foreign_adapter(lora)
    (out := tmp_path / "out").mkdir()
    adapter.write(out)
    assert json.loads((out / CONFIG).read_text()) == {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "r": 2,
        "target_modules": ["model.layers.0.self_attn.q_proj"],
    }
    assert load_file(out / WEIGHTS).keys() == load_file(lora / WEIGHTS).keys()
    assert adapter.trained_for == "/etc", "shown, never followed"
    assert adapter.notes == ("settings that are not known were left out: something_newer",)


def test_a_prefix_is_the_one_matrix_and_its_layout(prefix):
    change(prefix, prefix_projection=True, encoder_hidden_size=10**9)
    adapter = read_foreign_adapter(prefix)
    assert (adapter.virtual_tokens, tuple(adapter.prompt.shape)) == (3, (3, 32))
    assert (adapter.prefix_shape.layers, adapter.prefix_shape.head_dim) == (2, 4)
    assert "encoder_hidden_size" not in adapter.settings


def test_an_ia3_scales_what_goes_in_where_its_numbers_lie(tmp_path):
    inward, outward = (f"base_model.model.model.layers.0.mlp.{n}" for n in ("down_proj", "up_proj"))
    tensors = {f"{inward}.ia3_l": torch.ones(1, 8), f"{outward}.ia3_l": torch.ones(8, 1)}
    config = {"peft_type": "IA3", "feedforward_modules": "((a+)+)+$"}
    adapter = read_foreign_adapter(written(tmp_path / "ia3", config, tensors))
    assert adapter.settings["feedforward_modules"] == ["model.layers.0.mlp.down_proj"]


SETTINGS = [
    ({"peft_type": None}, "peft_type in ", "got none; give an adapter"),
    ({"peft_type": "ADALORA"}, "must be one of PROMPT_TUNING", "save it as LORA"),
    ({"peft_type": ["LORA"]}, "must be one of PROMPT_TUNING", "['LORA']"),
    ({"task_type": "SEQ_2_SEQ_LM"}, "must be CAUSAL_LM", "which is for encoder-decoders"),
    ({"task_type": "SEQ_CLS"}, "must be CAUSAL_LM", "got SEQ_CLS"),
    ({"megatron_config": {"a": 1}}, "megatron_config in", "import modules"),
    ({"init_lora_weights": "pissa"}, "changes the model's own weights"),
    ({"init_lora_weights": "pissa_niter_4"}, "path_initial_model_for_weight_conversion"),
    ({"init_lora_weights": "loftq"}, "init_lora_weights in", "got loftq"),
    ({"layer_replication": [[0, 9]]}, "layer_replication in", "must be unset"),
    ({"trainable_token_indices": [1]}, "changes embeddings of the model"),
    ({"target_parameters": ["x"]}, "does not decode such adapters"),
    ({"alpha_pattern": {"(a+)+": 1}}, "alpha_pattern in", "plain names"),
    ({"rank_pattern": {"q_proj": 10**9}}, "rank 1000000000 for model.layers.0", "2 rows"),
    ({"r": 10**9}, "rank 1000000000"),
    ({"r": True}, "r in ", "a whole number above 0, got True"),
    ({"lora_alpha": "8"}, "lora_alpha in", "be a number"),
    ({"modules_to_save": "lm_head"}, "a list of names"),
    ({"target_modules": ["v_proj"]}, "name model.layers.0.self_attn.q_proj", "got v_proj"),
]


@pytest.mark.parametrize(("settings", "words"), [(one, words) for one, *words in SETTINGS])
def test_settings_of_a_lora_that_are_refused(lora, settings, words):
    change(lora, **settings)
    refused(lora, *words)


PREFIX_SETTINGS = [
    ({"num_transformer_submodules": 2}, "must be 1, got 2", "not of an encoder-decoder"),
    ({"num_layers": 3}, "must fit its tensor (3, 32)", "got 3 layers of 8"),
    ({"num_attention_heads": 3}, "must fit its tensor"),
    ({"num_virtual_tokens": 4}, "got num_virtual_tokens 4"),
    ({"num_layers": None}, "must say num_layers", "got no num_layers"),
    ({"token_dim": -8}, "token_dim in", "a whole number above 0"),
    ({"modules_to_save": ["wte"]}, "must be unset"),
]


@pytest.mark.parametrize(("settings", "words"), [(one, words) for one, *words in PREFIX_SETTINGS])
def test_settings_of_a_prefix_that_are_refused(prefix, settings, words):
    change(prefix, **settings)
    refused(prefix, *words)


SMUGGLED = [
    "base_model.model.model.embed_tokens.weight",
    "base_model.model.lm_head.weight",
    "base_model.model.model.layers.0.mlp.up_proj.lora_A.default.weight",
    "model.embed_tokens.weight",
]


@pytest.mark.parametrize("name", SMUGGLED)
def test_weights_of_the_model_in_the_file_are_refused(lora, prefix, name):
    for directory, words in ((lora, "over a weight of the model"), (prefix, "nothing else")):
        tensors = load_file(directory / WEIGHTS)
        save_file(tensors | {name: torch.zeros(4, 4)}, directory / WEIGHTS)
        refused(directory, name, words)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (torch.full((3, 32), torch.nan), "finite numbers"),
        (torch.ones(3, 32, dtype=torch.int64), "torch.int64 in prompt_embeddings"),
        (torch.ones(32), "one matrix prompt_embeddings"),
        (torch.ones(0, 32), "one matrix prompt_embeddings"),
    ],
)
def test_numbers_that_are_none_are_refused(prefix, number, words):
    save_file({"prompt_embeddings": number}, prefix / WEIGHTS)
    refused(prefix, words)


def test_a_pickle_is_never_opened_and_its_remedy_works(prefix, tmp_path, monkeypatch):
    tensors = load_file(prefix / WEIGHTS)
    (prefix / WEIGHTS).unlink()
    torch.save(tensors, prefix / "adapter_model.bin")
    with pytest.raises(UserError, match="a pickle, which can run any code") as told:
        read_foreign_adapter(prefix)
    code = told.value.remedy.split('python -c "')[1].rstrip('"')
    monkeypatch.chdir(prefix)
    exec(compile(code, "remedy", "exec"), {})
    assert torch.equal(read_foreign_adapter(prefix).prompt, tensors["prompt_embeddings"])


def test_a_pickle_under_the_name_of_a_safetensors_file_is_refused(prefix):
    (prefix / WEIGHTS).write_bytes(pickle.dumps({"prompt_embeddings": 1}))
    refused(prefix, "must be a safetensors file", "download it again")


def test_files_that_hang_or_never_end_are_not_opened(prefix):
    for name in (CONFIG, WEIGHTS):
        kept = (prefix / name).read_bytes()
        (prefix / name).unlink()
        os.mkfifo(prefix / name)
        refused(prefix, "must be a file that can be read", "a pipe")
        (prefix / name).unlink()
        (prefix / name).symlink_to("/dev/zero")
        refused(prefix, "must be a file that can be read", "a device")
        (prefix / name).unlink()
        with (prefix / name).open("wb") as sparse:
            sparse.truncate(2**42)
        refused(prefix, "must be a file that can be read", "at most")
        (prefix / name).unlink()
        (prefix / name).write_bytes(kept)
    with (prefix / WEIGHTS).open("wb") as sparse:
        sparse.truncate(3_000_000_000)
    refused(prefix, "must be a safetensors file", "another beginning")
    header = b'{"prompt_embeddings":{"dtype":"F32","shape":[9,9],"data_offsets":[0,324]}}'
    (prefix / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header)
    refused(prefix, "must be a safetensors file")


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b"[" * 10**6])
def test_settings_that_are_no_object_are_refused(prefix, content):
    (prefix / CONFIG).write_bytes(content)
    refused(prefix, CONFIG, "give the folder that PEFT's save_pretrained wrote")


def test_folders_that_hold_no_adapter_are_told_apart(tmp_path, prefix):
    refused(tmp_path / "org" / "name", "nothing there", "hf download NAME --local-dir DIR")
    refused(prefix / CONFIG, "got a file")
    (empty := tmp_path / "empty").mkdir()
    refused(empty, "hold adapter_config.json, got a folder without it")
    (empty / "config.json").write_text("{}")
    refused(empty, "a model (it has config.json)", "--model")
    prefix.rename(empty / "checkpoint-500")
    refused(empty, "name a folder in it: checkpoint-500")
    (empty / "checkpoint-500" / WEIGHTS).unlink()
    refused(empty / "checkpoint-500", f"hold {WEIGHTS}, got a folder without it")


CONFIGS = {
    AdapterKind.PROMPT_TUNING: peft.PromptTuningConfig,
    AdapterKind.P_TUNING: peft.PromptEncoderConfig,
    AdapterKind.PREFIX_TUNING: peft.PrefixTuningConfig,
    AdapterKind.CARTRIDGE: peft.CartridgeConfig,
    AdapterKind.LORA: peft.LoraConfig,
    AdapterKind.IA3: peft.IA3Config,
}
COMMON = {field.name for field in dataclasses.fields(peft.PeftConfig)}


@pytest.mark.parametrize("kind", AdapterKind)
def test_every_setting_of_peft_is_kept_refused_or_known_to_have_no_effect(kind):
    known = {field.name for field in dataclasses.fields(CONFIGS[kind])} - COMMON
    groups = [set(KEPT[kind]), set(REFUSED[kind]), set(WITHOUT_EFFECT[kind])]
    assert known <= set().union(*groups)
    assert sum(map(len, groups)) == len(set().union(*groups)), "one is in two groups"


@pytest.mark.parametrize("kind", AdapterKind)
def test_what_peft_sets_by_default_is_taken(kind):
    config = CONFIGS[kind](task_type="CAUSAL_LM")
    settings = config.to_dict()
    settings.pop("runtime_config", None)
    _, notes = kept_settings("adapter_config.json", kind, settings)
    assert notes == ()
