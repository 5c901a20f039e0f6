"""Blocks read from a checkpoint compute what the stock model computes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.reference.block_forward import hidden_states
from transformers import AutoConfig, AutoModel

from promptlimits.base.errors import UserError
from promptlimits.lipschitz.checkpoint.weights.checkpoint import FAMILIES, open_checkpoint
from promptlimits.testing.tiny_models import tiny_causal_lm, tiny_encoder

CASES = {
    "bert": {},
    "gemma3": {},
    "gpt2": {},
    "gpt_neox": {},
    "llama": {},
    "qwen2": {},
    "gpt_neox one after the other": {"use_parallel_residual": False},
    "gpt2 scaled by block": {"scale_attn_by_inverse_layer_idx": True},
    "gpt2 relu": {"activation_function": "relu"},
}


def make(case, directory, **settings):
    family = case.split()[0]
    if family == "bert":
        tiny_encoder(directory)
    else:
        tiny_causal_lm(directory, family)
    path = directory / "config.json"
    changed = json.loads(path.read_text()) | CASES.get(case, {}) | settings
    path.write_text(json.dumps(changed))
    return directory


def stock(directory, dtype=torch.float64):
    config = AutoConfig.from_pretrained(directory)
    model = AutoModel.from_pretrained(directory, config=config, dtype=dtype)
    return model.eval()


def inputs_of(model, tokens, seed=0):
    """Random inputs in the place of embeddings, and the same with positions added."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, tokens, model.config.hidden_size, generator=generator, dtype=torch.float64)
    state = model.state_dict()
    added = x[0].numpy().copy()
    if "wpe.weight" in state:
        added += state["wpe.weight"][:tokens].numpy()
    if "embeddings.position_embeddings.weight" in state:
        added += state["embeddings.position_embeddings.weight"][:tokens].numpy()
        added += state["embeddings.token_type_embeddings.weight"][0].numpy()
    return x, added


@pytest.mark.parametrize("case", CASES)
def test_the_blocks_compute_what_the_stock_model_computes(case, tmp_path):
    directory = make(case, tmp_path)
    model = stock(directory)
    x, added = inputs_of(model, 12)
    with torch.no_grad():
        expected = model(inputs_embeds=x).last_hidden_state[0].numpy()
    got = hidden_states(added, open_checkpoint(directory, name="tiny"))
    # Rotary angles, and the norms of Llama and Gemma, are float32 in the stock model.
    exact = case.split()[0] in ("bert", "gpt2")
    tolerance = 1e-11 if exact else 1e-5
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


def test_every_family_is_compared():
    assert {case.split()[0].replace("gemma3", "gemma3_text") for case in CASES} == set(FAMILIES)


def test_settings_that_files_leave_out_are_those_of_the_stock_model(tmp_path):
    for case, left_out in {
        "gpt2": ("layer_norm_epsilon", "activation_function", "n_inner", "scale_attn_weights"),
        "bert": ("layer_norm_eps", "hidden_act", "position_embedding_type"),
        "llama": ("rms_norm_eps", "hidden_act", "rope_parameters", "head_dim"),
        "gpt_neox": ("layer_norm_eps", "hidden_act", "use_parallel_residual", "rope_parameters"),
    }.items():
        directory = make(case, tmp_path / case)
        path = directory / "config.json"
        settings = json.loads(path.read_text())
        path.write_text(json.dumps({k: v for k, v in settings.items() if k not in left_out}))
        model = stock(directory)
        x, added = inputs_of(model, 8)
        with torch.no_grad():
            expected = model(inputs_embeds=x).last_hidden_state[0].numpy()
        got = hidden_states(added, open_checkpoint(directory, name="tiny"))
        assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max(), case


# Each would make the model that transformers builds another one than the blocks describe.
OTHER_SETTINGS = {
    "biases that are not used": ("gpt_neox", {"attention_bias": False}, "makes use of"),
    "a bias that is not there": ("llama", {"attention_bias": True}, "q_proj.bias"),
    "an mlp bias that is not there": ("llama", {"mlp_bias": True}, "_proj.bias"),
    "another name for a width": ("gpt2", {"hidden_size": 8}, "that of n_embd"),
    "another name for the heads": ("gpt2", {"num_attention_heads": 1}, "that of n_head"),
    "another name for the blocks": ("gpt2", {"num_hidden_layers": 1}, "that of n_layer"),
    "a flag that is null": ("gpt2", {"scale_attn_weights": None}, "be true or false"),
    "a flag in words": ("gpt_neox", {"use_parallel_residual": "false"}, "be true or false"),
    "a number for a flag": ("gpt2", {"scale_attn_by_inverse_layer_idx": 0}, "be true or false"),
}


@pytest.mark.parametrize("case", OTHER_SETTINGS)
def test_settings_that_make_another_model_are_refused(case, tmp_path):
    family, settings, words = OTHER_SETTINGS[case]
    directory = make(family, tmp_path / "model", **settings)
    with pytest.raises(UserError, match=words):
        list(open_checkpoint(directory, name="it").blocks)


@pytest.mark.parametrize("number", ["00", "+0", "\u0660", "0_0"])
def test_a_block_number_in_another_form_is_no_block(number, tmp_path):
    directory = make("gpt2", tmp_path / "model")
    tensors = load_file(directory / "model.safetensors")
    name = next(key for key in tensors if key.endswith("h.0.ln_1.weight"))
    tensors[name.replace("h.0.", f"h.{number}.")] = tensors.pop(name)
    save_file(tensors, directory / "model.safetensors")
    with pytest.raises(UserError, match="unknown tensor"):
        open_checkpoint(directory, name="it")


def test_an_adapter_beside_the_weights_is_refused(tmp_path):
    directory = make("gpt2", tmp_path / "model")
    (directory / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="plain checkpoint"):
        open_checkpoint(directory, name="it")


def test_two_names_that_agree_are_one(tmp_path):
    directory = make("gpt2", tmp_path / "model")
    settings = json.loads((directory / "config.json").read_text())
    make_same = {"hidden_size": settings["n_embd"], "num_attention_heads": settings["n_head"]}
    (directory / "config.json").write_text(json.dumps(settings | make_same))
    assert list(open_checkpoint(directory, name="it").blocks)
