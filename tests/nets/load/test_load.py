"""A whole model loads as stock tools load it; anything else is one line and exit code 2."""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    OPTConfig,
    OPTForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.utils import logging as transformers_logging

from promptlimits.base.errors import UserError
from promptlimits.nets.files.folder import model_hash, weight_files
from promptlimits.nets.load.checkpoint import read_config
from promptlimits.nets.load.load import load_codec, load_parts
from promptlimits.nets.load.stock import load_stock
from promptlimits.testing.tiny_models import FAMILIES, tiny_causal_lm, tiny_tokenizer


def edit(path, **changes):
    """Change keys of a JSON file; None takes a key out."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def edit_weights(directory, change):
    path = directory / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def refusal_of_stock(reference):
    with pytest.raises(UserError) as caught:
        load_stock(str(reference))
    return str(caught.value)


def refusal(reference, **options):
    """What the user reads."""
    with pytest.raises(UserError) as caught:
        load_parts(str(reference), **options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_frozen_with_the_stock_logits(family, tmp_path):
    directory = tiny_causal_lm(tmp_path / "it", family, dim=24, layers=3)
    parts = load_parts(str(directory))
    stock = AutoModelForCausalLM.from_pretrained(directory)
    ids = torch.arange(12).unsqueeze(0)
    torch.testing.assert_close(parts.model(ids).logits, stock(ids).logits)
    assert not parts.model.training
    assert not any(weight.requires_grad for weight in parts.model.parameters())
    card = parts.card
    assert (card.name, card.path, card.reference) == ("it", str(directory), str(directory))
    assert (card.dim, card.layers, card.vocabulary) == (24, 3, len(parts.tokenizer))
    assert (card.context_length, card.compute_dtype, card.notes) == (128, "float32", ())
    assert parts.codec.end_id == 0


def test_a_context_ends_where_the_turn_of_its_positions_would_change(checkpoint):
    turn = {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "original_max_position_embeddings": 32,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
    }
    edit(checkpoint / "config.json", rope_parameters=turn)
    assert load_parts(str(checkpoint)).card.context_length == 32


def test_tied_weights_are_counted_once(checkpoint):
    stored = load_file(checkpoint / "model.safetensors")
    assert "lm_head.weight" not in stored
    expected = sum(weight.numel() for weight in stored.values())
    assert load_parts(str(checkpoint)).card.parameters == expected


def test_the_hash_is_that_of_the_files_and_follows_the_weights(checkpoint):
    before = load_parts(str(checkpoint)).card.model_hash
    assert before == model_hash(weight_files(checkpoint))
    edit_weights(checkpoint, lambda weights: weights["model.norm.weight"].add_(1))
    assert load_parts(str(checkpoint)).card.model_hash != before


def test_the_dtype_is_the_one_asked_for(checkpoint):
    parts = load_parts(str(checkpoint), dtype=torch.float64)
    assert parts.model.dtype == torch.float64
    assert parts.card.compute_dtype == "float64"


def test_nothing_is_printed_and_logging_is_as_before(checkpoint, capfd):
    # An unused weight makes transformers print a table.
    edit_weights(checkpoint, lambda weights: weights.update(unused=torch.ones(2)))
    level = transformers_logging.get_verbosity()
    hub = logging.getLogger("huggingface_hub").level
    load_parts(str(checkpoint))
    assert capfd.readouterr() == ("", "")
    assert transformers_logging.get_verbosity() == level
    assert transformers_logging.is_progress_bar_enabled()
    assert logging.getLogger("huggingface_hub").level == hub


@pytest.mark.parametrize(
    ("named", "end"), [([7, 9], 7), (50256, 0), ([50256, 9], 9), (None, 0), (-1, 0)]
)
def test_the_end_marker_is_where_generate_stops(checkpoint, named, end):
    edit(checkpoint / "generation_config.json", eos_token_id=named)
    edit(checkpoint / "config.json", eos_token_id=named)
    codec = load_parts(str(checkpoint)).codec
    assert codec.end_id == end
    assert codec.end_ids == (tuple(named) if named == [7, 9] else (end,))
    assert load_codec(str(checkpoint)).end_ids == codec.end_ids


def without_an_end_marker(checkpoint):
    for name in ("generation_config.json", "config.json"):
        edit(checkpoint / name, eos_token_id=50256)
    edit(checkpoint / "tokenizer_config.json", eos_token=None)


def test_a_separator_is_the_last_resort_as_end_marker(checkpoint):
    without_an_end_marker(checkpoint)
    edit(checkpoint / "tokenizer_config.json", sep_token="!")
    parts = load_parts(str(checkpoint))
    assert parts.codec.end_id == parts.tokenizer.convert_tokens_to_ids("!") > 0


def test_a_tokenizer_that_spaces_by_itself_gets_no_second_space(checkpoint):
    prepend = {"type": "Prepend", "prepend": " "}
    edit(checkpoint / "tokenizer.json", normalizer=prepend)
    parts = load_parts(str(checkpoint))
    for text in (" Paris", "Paris", "  Paris"):
        assert parts.codec.decode_value(parts.codec.encode_value(text)) == text
    assert parts.codec.encode_value(" Paris") == tuple(parts.tokenizer("Paris").input_ids)


# --- what is damaged -----------------------------------------------------------------------

WEIGHTS = "model.safetensors"
UP = "model.layers.1.mlp.up_proj.weight"
CUT = "truncated or corrupted"
READS = "have a tokenizer that transformers reads, got"


def weights(change):
    return lambda checkpoint: edit_weights(checkpoint, change)


def setting(**changes):
    return lambda checkpoint: edit(checkpoint / "config.json", **changes)


def content(name, text):
    made = text if isinstance(text, bytes) else text.encode("latin-1")
    return lambda checkpoint: (checkpoint / name).write_bytes(made)


def without(name):
    return lambda checkpoint: (checkpoint / name).unlink()


def called(name):
    return lambda checkpoint: (checkpoint / WEIGHTS).rename(checkpoint / name)


def cut(kept):
    def change(checkpoint):
        path = checkpoint / WEIGHTS
        path.write_bytes(path.read_bytes()[:kept])

    return change


def overwritten(checkpoint):
    path = checkpoint / WEIGHTS
    path.write_bytes(bytes(64) + path.read_bytes()[64:])


def many_tokens(checkpoint):
    words = ["several", "words", "more", *(f"w{i}" for i in range(200))]
    tiny_tokenizer(words).save_pretrained(checkpoint)


DAMAGES = [
    (weights(lambda w: w["model.norm.weight"][3].fill_(torch.nan)), "infinity in model.norm.w"),
    (weights(lambda w: w[UP][0, 0].fill_(torch.inf)), f"NaN or infinity in {UP}"),
    (weights(lambda w: w.pop(UP)), f"got 1 missing ({UP})"),
    (setting(intermediate_size=48), "model tiny must be readable by transformers"),
    *((cut(kept), f"got model.safetensors, {CUT}") for kept in (0, 4, 100, -1)),
    (overwritten, CUT),
    (called("pytorch_model.bin"), "pickle files only, which run code when they are opened"),
    (called("training_args.bin"), "a directory without weights; download the weights too"),
    (
        called("consolidated.safetensors"),
        "consolidated.safetensors and no model.safetensors.index",
    ),
    (without("config.json"), "hold config.json"),
    *((content("config.json", text), "a readable config.json") for text in ("", "{", "[]", "\xff")),
    *((setting(model_type=kind), f"got model_type {kind!r}") for kind in ("llama9", None, 3)),
    (setting(model_type="vit"), "got vit, which has no head that predicts"),
    (without("tokenizer.json"), "hold its tokenizer"),
    (many_tokens, "at most 404 tokens, as its embedding has rows, got token id"),
    *((content("tokenizer.json", text), READS) for text in ("", "{", "[]", "{}", "\0")),
    *((content("tokenizer_config.json", text), READS) for text in ("{", "[]")),
    (content("tokenizer_config.json", '{"tokenizer_class": 5}'), READS),
    (content("tokenizer_config.json", '{"tokenizer_class": "T5Tokenizer"}'), READS),
    (content("tokenizer_config.json", '{"model_max_length": "x"}'), READS),
    (content("tokenizer_config.json", '{"eos_token": ["a"]}'), READS),
    (content("special_tokens_map.json", "["), READS),
    # The tokenizers library raises a bare Exception.
    (lambda it: edit(it / "tokenizer.json", model=None), f"{READS} Exception: Model"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES)
def test_what_is_damaged_is_named_in_one_line(damage, said, checkpoint):
    damage(checkpoint)
    found = refusal(checkpoint)
    assert said in found
    assert refusal_of_stock(checkpoint) == found


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("hidden_size", value) for value in ("64", None, -1, [32], 1.5, True)),
        *(("num_attention_heads", value) for value in (0, "4", {})),
        *(("vocab_size", value) for value in ("x", None)),
        ("max_position_embeddings", "64"),
        ("eos_token_id", "two"),
        ("rope_parameters", "x"),
        ("quantization_config", "x"),
        ("model_type", ["llama"]),
    ],
)
def test_a_setting_of_another_type_is_one_line(checkpoint, key, value):
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    said = refusal(checkpoint)
    assert said.startswith("model tiny must have a config.json") or key == "model_type"
    assert refusal_of_stock(checkpoint) == said


@pytest.mark.parametrize("named", ["two", ["two"], 1.5, {}, True])
def test_an_end_marker_that_is_no_number_is_one_line(checkpoint, named):
    edit(checkpoint / "generation_config.json", eos_token_id=named)
    said = refusal(checkpoint)
    assert "eos_token_id in generation_config.json or config.json of model tiny must be" in said
    assert refusal_of_stock(checkpoint) == said


def test_a_model_without_an_end_marker_is_refused(checkpoint):
    without_an_end_marker(checkpoint)
    assert "have an end marker in its vocabulary, got eos_token_id 50256" in refusal(checkpoint)


def test_large_finite_weights_are_not_taken_for_infinite(checkpoint):
    edit_weights(checkpoint, lambda weights: weights["model.norm.weight"].fill_(3e38))
    load_parts(str(checkpoint))


# --- what is no model for this ------------------------------------------------------------


def test_code_of_a_model_is_never_run(checkpoint, tmp_path):
    mark = tmp_path / "ran"
    (checkpoint / "custom.py").write_text(f"open({str(mark)!r}, 'w')\n")
    code = {"AutoConfig": "custom.C", "AutoModelForCausalLM": "custom.M"}
    edit(checkpoint / "config.json", auto_map=code)
    load_parts(str(checkpoint))  # a known family is read with transformers' own code
    edit(checkpoint / "config.json", model_type="mine")
    assert "'mine', which needs code of its own to be run" in refusal(checkpoint)
    assert not mark.exists()


def test_an_encoder_is_refused(tmp_path):
    config = BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    BertForMaskedLM(config).save_pretrained(tmp_path)
    assert "be a causal language model, got bert, an encoder that" in refusal(tmp_path)


def test_an_encoder_trained_as_a_decoder_is_a_causal_model(tmp_path):
    BertConfig(is_decoder=True).save_pretrained(tmp_path)
    assert read_config(tmp_path, name="model bert").model_type == "bert"


def test_an_encoder_decoder_is_refused(tmp_path):
    config = T5Config(vocab_size=50, d_model=8, d_ff=8, num_layers=1, num_heads=2, d_kv=4)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    assert "be a causal language model, got t5, an encoder-decoder" in refusal(tmp_path)


def test_an_added_token_may_lie_beyond_the_embedding(checkpoint):
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<image>"])
    tokenizer.save_pretrained(checkpoint)
    codec = load_parts(str(checkpoint)).codec
    with pytest.raises(UserError, match="token 404 of 404"):
        codec.encode_key("<image>")


def test_embeddings_of_another_width_than_the_blocks_are_refused(tmp_path):
    tokenizer = tiny_tokenizer()
    config = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        word_embed_proj_dim=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=16,
    )
    OPTForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert "as wide as its hidden states, got 8 and 16" in refusal(tmp_path)


def test_a_device_that_is_not_here_is_refused(checkpoint):
    assert "device must be usable here" in refusal(checkpoint, device="nonsense")


def test_what_does_not_exist_is_refused_with_help(tmp_path):
    assert "did you mean smollm2-135m?" in refusal("smollm2")
    assert "check the path" in refusal(tmp_path / "absent")
    assert "check the path" in refusal("absent.gguf")


def test_the_hub_is_out_of_reach_offline():
    for allow_hub in (True, False):  # the tests run with HF_HUB_OFFLINE=1
        said = refusal("nobody/nothing", allow_hub=allow_hub)
        assert "got no copy here, and offline mode; give a local directory" in said


def test_a_directory_wins_over_the_hub(checkpoint, monkeypatch):
    monkeypatch.chdir(checkpoint.parent.parent)
    reference = f"{checkpoint.parent.name}/{checkpoint.name}"
    assert load_parts(reference).card.path == str(checkpoint.resolve())
