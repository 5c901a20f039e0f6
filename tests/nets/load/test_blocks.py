"""Blocks read from a checkpoint compute what the stock model computes; others are refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.reference.block_forward import hidden_states
from transformers import AutoConfig, AutoModel

from promptlimits.base.errors import UserError
from promptlimits.nets.load.blocks import open_checkpoint
from promptlimits.nets.load.families import FAMILIES
from promptlimits.testing.tiny_models import tiny_causal_lm, tiny_encoder, tiny_of_family

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
OTHERS = {
    "opt": {"ffn_dim": 32, "word_embed_proj_dim": 16, "max_position_embeddings": 64},
    "phi": {"intermediate_size": 32, "partial_rotary_factor": 0.5},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A tiny model of each family."""
    made = {}

    def model(family):
        if family not in made:
            made[family] = folder = tmp_path_factory.mktemp(family)
            if family == "bert":
                tiny_encoder(folder, dim=16, heads=2)
            elif family in OTHERS:
                tiny_of_family(folder, family, SIZES | OTHERS[family])
            else:
                tiny_causal_lm(folder, family, dim=16, heads=2, kv_heads=1)
        return made[family]

    return model


@pytest.fixture
def altered(models, tmp_path):
    """A copy of a family's model with other settings, without some, or with other tensors."""

    def alter(family, settings=None, tensors=None, without=()):
        shutil.rmtree(tmp_path / "altered", ignore_errors=True)
        copy = Path(shutil.copytree(models(family), tmp_path / "altered"))
        path = copy / "config.json"
        changed = json.loads(path.read_text()) | (settings or {})
        path.write_text(json.dumps({k: v for k, v in changed.items() if k not in without}))
        if tensors is not None:
            path = copy / "model.safetensors"
            save_file(tensors(load_file(path)), path, metadata={"format": "pt"})
        return copy

    return alter


def blocks(directory):
    """All that is read of a checkpoint."""
    return list(open_checkpoint(directory, name="model tiny").blocks)


def compared(directory, tokens, tolerance):
    """The stock model's hidden states are those of the blocks."""
    config = AutoConfig.from_pretrained(directory)
    model = AutoModel.from_pretrained(directory, config=config, dtype=torch.float64).eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, tokens, model.config.hidden_size, generator=generator, dtype=torch.float64)
    checkpoint = open_checkpoint(directory, name="tiny")
    assert checkpoint.added is not None
    first = 2 if config.model_type == "opt" else 0  # its positions are counted from 2
    tables = checkpoint.added or (np.zeros((first + tokens, 1)),)
    positions, *types = (table[first : first + tokens] for table in tables)
    added = x[0].numpy() + positions + (types[0][0] if types else 0)
    with torch.no_grad():
        expected = model(inputs_embeds=x).last_hidden_state[0].numpy()
    got = hidden_states(added, checkpoint)
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


CASES = {
    **{family: (family, {}) for family in ("bert", "gemma3", "gpt2", "gpt_neox", "llama", "opt")},
    **{family: (family, {}) for family in ("phi", "qwen2")},
    "gpt_neox one after the other": ("gpt_neox", {"use_parallel_residual": False}),
    "gpt2 scaled by block": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    "gpt2 not scaled": ("gpt2", {"scale_attn_weights": False}),
    "gpt2 relu": ("gpt2", {"activation_function": "relu"}),
    "bert as a decoder": ("bert", {"is_decoder": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_blocks_compute_what_the_stock_model_computes(case, altered):
    family, settings = CASES[case]
    # Rotary angles, and the norms of Llama and Gemma, are float32 in the stock model.
    compared(altered(family, settings), 12, 1e-11 if family in ("bert", "gpt2", "opt") else 1e-5)


def test_every_family_is_compared():
    compared = {family.replace("gemma3", "gemma3_text") for family, _ in CASES.values()}
    assert compared == set(FAMILIES)


LEFT_OUT = {
    "gpt2": ("layer_norm_epsilon", "activation_function", "n_inner", "scale_attn_weights"),
    "bert": ("layer_norm_eps", "hidden_act", "position_embedding_type"),
    "llama": ("rms_norm_eps", "hidden_act", "rope_parameters", "head_dim"),
    "gpt_neox": ("layer_norm_eps", "hidden_act", "use_parallel_residual", "rope_parameters"),
}


@pytest.mark.parametrize("family", LEFT_OUT)
def test_settings_that_files_leave_out_are_those_of_the_stock_model(family, altered):
    compared(altered(family, without=LEFT_OUT[family]), 8, 1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 1e4,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
        {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_parameters": None, "rope_theta": 5e5},
        {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": None}},
    ],
    ids=str,
)
def test_positions_that_only_turn_pass(settings, altered):
    assert {block.attention.rotary.width for block in blocks(altered("llama", settings))} == {8}


def test_two_names_that_agree_are_one(altered):
    assert blocks(altered("gpt2", {"hidden_size": 16, "num_attention_heads": 2}))


# ------------------------------------------------------------------------------- names of tensors

PREFIXES = {"bert": "bert.", "gpt2": "transformer.", "gpt_neox": "gpt_neox."}


def prefix(family):
    return PREFIXES.get(family, "model.")


def named(family, front, *, factor=1.0):
    """Every tensor of the base model with `front` in front of its bare name."""

    def rename(tensors):
        return {
            name if name.startswith(("lm_head", "embed_out", "cls")) else front + bare: value
            for name, value, bare in (
                (name, factor * value, name.removeprefix(prefix(family)))
                for name, value in tensors.items()
            )
        }

    return rename


@pytest.mark.parametrize("family", list(dict.fromkeys(family for family, _ in CASES.values())))
def test_names_with_and_without_the_familys_prefix(family, altered):
    bare, full = (
        blocks(altered(family, tensors=named(family, front))) for front in ("", prefix(family))
    )
    for one, other in zip(bare, full, strict=True):
        assert (one.attention.query == other.attention.query).all()
        assert (one.feed_forward.down == other.feed_forward.down).all()


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("decoy", ["model.", "transformer.", "bert.", ""])
def test_decoys_under_another_prefix_are_refused(family, decoy, altered):
    if decoy == prefix(family):
        return

    def shadowed(tensors):
        small = named(family, decoy, factor=1e-3)(tensors)
        return small | named(family, prefix(family))(tensors)

    with pytest.raises(UserError, match=r"unknown tensor|hold each tensor once"):
        blocks(altered(family, tensors=shadowed))


def renamed(old, new, *, keep=False):
    """A change of names, the old ones kept or not."""

    def change(tensors):
        other = {name.replace(old, new): value.clone() for name, value in tensors.items()}
        return tensors | other if keep else other

    return change


def test_older_names_of_a_norm_stand_for_todays_but_not_beside_them(altered):
    (today, *_), (older, *_) = (
        blocks(altered("bert", tensors=renamed("LayerNorm.weight", f"LayerNorm.{name}")))
        for name in ("weight", "gamma")
    )
    assert (today.attention_norm.gain == older.attention_norm.gain).all()
    both = altered("bert", tensors=renamed("LayerNorm.bias", "LayerNorm.beta", keep=True))
    with pytest.raises(UserError, match="hold each tensor once"):
        blocks(both)


def test_what_older_versions_wrote_and_no_model_reads_is_passed_over(altered):
    def buffers(tensors):
        base = "gpt_neox.layers.1.attention"
        return tensors | {
            f"{base}.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8),
            f"{base}.masked_bias": torch.tensor(-1e9),
            f"{base}.rotary_emb.inv_freq": torch.ones(2),
        }

    assert blocks(altered("gpt_neox", tensors=buffers))
    moved = renamed("layers.1.attention.masked", "layers.2.attention.masked")
    of_no_block = altered("gpt_neox", tensors=lambda tensors: moved(buffers(tensors)))
    with pytest.raises(UserError, match="unknown tensor"):
        blocks(of_no_block)


TENSORS = {
    "a block too many": ("gpt2", renamed("h.1.", "h.2."), "unknown tensor transformer.h.2."),
    "00": ("llama", renamed("layers.0", "layers.00"), "unknown tensor"),
    "+0": ("gpt2", renamed("h.0.", "h.+0."), "unknown tensor"),
    "other digits": ("llama", renamed("layers.0", "layers.\u0660"), "unknown tensor"),
    "an adapter's": ("llama", renamed("up_proj", "up_proj.lora_A", keep=True), "unknown tensor"),
    "another norm": ("gpt2", renamed("ln_1", "ln_3"), "unknown tensor"),
    "some with a prefix": ("llama", renamed("model.norm", "norm"), "in front, or none"),
    "missing": (
        "gpt2",
        lambda t: {n: v for n, v in t.items() if n != "transformer.h.1.ln_2.bias"},
        "hold the tensor transformer.h.1.ln_2.bias",
    ),
    "shape": (
        "gpt2",
        lambda t: t | {"transformer.h.0.ln_1.weight": torch.zeros(17)},
        r"transformer.h.0.ln_1.weight.*\(17,\)",
    ),
    "unknown": ("gpt2", lambda t: t | {"frob": torch.zeros(2)}, "unknown tensor frob"),
    "integers": ("llama", lambda t: {n: v.int() for n, v in t.items()}, "be stored as F64"),
    "NaN in a block": (
        "gpt2",
        lambda t: t | {"transformer.h.1.mlp.c_fc.weight": torch.full((16, 64), torch.nan)},
        "transformer.h.1.mlp.c_fc.weight.*NaN",
    ),
    "infinite embedding": (
        "gpt2",
        lambda t: t | {"transformer.wte.weight": -torch.inf * t["transformer.wte.weight"]},
        "transformer.wte.weight.*infinite",
    ),
    "infinite head": (
        "llama",
        lambda t: t | {"lm_head.weight": torch.full((3,), torch.inf).half()},
        "lm_head.weight.*infinite",
    ),
}


@pytest.mark.parametrize("case", TENSORS)
def test_other_tensors_are_refused_in_one_line(case, altered):
    family, change, match = TENSORS[case]
    with pytest.raises(UserError, match=match) as caught:
        blocks(altered(family, tensors=change))
    assert "\n" not in str(caught.value)


# --------------------------------------------------------------------------------------- settings

YARN = {"rope_type": "yarn", "factor": 4.0, "attention_factor": 200.0}
TURNING = {"rope_type": "default", "rope_theta": 1e4}
SETTINGS = [
    ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
    ("bert", {"add_cross_attention": True}, "add_cross_attention"),
    ("bert", {"hidden_act": "quick_gelu"}, "the activation must be one of gelu"),
    ("bert", {"hidden_act": ["gelu"]}, "hidden_act"),
    ("bert", {"num_attention_heads": 3}, "multiple of the number of attention heads"),
    ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("gemma3", {"attention_bias": True}, "q_proj.bias"),
    ("gemma3", {"query_pre_attn_scalar": 0}, "negative power"),
    ("gemma3", {"query_pre_attn_scalar": float("inf")}, "query_pre_attn_scalar"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
    ("gpt2", {"num_attention_heads": 1}, "num_attention_heads"),
    ("gpt2", {"hidden_size": 8}, "hidden_size"),
    ("gpt2", {"num_hidden_layers": 1}, "num_hidden_layers"),
    ("gpt2", {"n_layer": 1}, "unknown tensor transformer.h.1."),
    ("gpt2", {"n_layer": 3}, "h.2."),
    ("gpt2", {"n_layer": 10**9}, "hold the 1000000000 blocks"),
    ("gpt2", {"n_head": 3}, "divisible|multiple"),
    ("gpt2", {"activation_function": "mish"}, "the activation must be one of gelu"),
    ("gpt2", {"activation_function": "frob"}, "frob"),
    ("gpt2", {"scale_attn_weights": None}, "scale_attn_weights"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": "false"}, "scale_attn_by_inverse_layer_idx"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": 0}, "scale_attn_by_inverse_layer_idx"),
    ("gpt2", {"layer_norm_epsilon": 10**400}, "layer_norm_epsilon"),
    ("gpt2", {"layer_norm_epsilon": 0.0}, "eps of a norm must be a finite number above 0"),
    ("gpt2", {"layer_norm_epsilon": "1e-5"}, "layer_norm_epsilon"),
    ("opt", {"do_layer_norm_before": False}, "unknown tensor model.decoder.final_layer_norm"),
    ("opt", {"word_embed_proj_dim": 8}, "parts that blocks describe, got model.decoder.project_"),
    ("phi", {"qk_layernorm": True}, "no block has a model.layers.0.self_attn.k_layernorm"),
    ("gpt_neox", {"use_parallel_residual": "false"}, "use_parallel_residual"),
    ("gpt_neox", {"attention_bias": False}, "unknown tensor gpt_neox.*bias"),
    ("gpt_neox", {"rope_parameters": None, "rotary_pct": "all"}, "rotary_pct"),
    ("llama", {"rms_norm_eps": float("nan")}, "eps of a norm must be a finite number above 0"),
    ("llama", {"attention_bias": True}, "q_proj.bias"),
    ("llama", {"mlp_bias": True}, "_proj.bias"),
    ("llama", {"num_attention_heads": "2"}, "num_attention_heads"),
    ("llama", {"num_attention_heads": 0}, "."),
    ("llama", {"num_key_value_heads": 0}, "."),
    ("llama", {"num_key_value_heads": 3}, "."),
    ("llama", {"num_hidden_layers": True}, "num_hidden_layers|unknown tensor"),
    ("llama", {"quantization_config": {"quant_method": "torchao"}}, "quantization_config"),
    ("llama", {"auto_map": {"AutoModel": "other.Model"}}, "auto_map"),
    ("llama", {"model_type": ["llama"]}, "model_type"),
    ("llama", {"model_type": "mixtral"}, "'mixtral'.*one of these families"),
    # Stock code has let one of two tables win, and the other in other versions.
    ("llama", {"rope_parameters": TURNING, "rope_scaling": YARN}, "left out beside"),
    ("llama", {"rope_parameters": YARN, "rope_scaling": TURNING}, "left out beside"),
    ("llama", {"rope_parameters": None, "rope_scaling": YARN}, "yarn"),
    ("llama", {"rope_parameters": {"type": "yarn", "factor": 4.0, "rope_theta": 1e4}}, "yarn"),
    ("llama", {"rope_parameters": TURNING | {"type": "yarn"}}, "yarn"),
    ("llama", {"rope_parameters": {"full_attention": YARN}}, "yarn"),
    ("llama", {"rope_parameters": {"rope_type": ["default"]}}, "rope_type"),
    ("llama", {"rope_parameters": "linear"}, "rope_parameters"),
    ("llama", {"rope_parameters": None, "rope_scaling": "linear"}, "rope_scaling"),
    ("llama", {"rope_parameters": None, "rope_scaling": {"sliding_attention": YARN}}, "yarn"),
    ("llama", {"rope_parameters": {"rope_theta": "abc"}}, "rope_theta"),
    ("llama", {"rope_parameters": {"rope_theta": 10**400}}, "rope_theta"),
    ("llama", {"rope_parameters": None, "rope_theta": "abc"}, "rope_theta"),
    ("llama", {"rope_parameters": TURNING | {"partial_rotary_factor": "half"}}, "partial_rotary"),
    ("llama", {"rope_parameters": TURNING | {"partial_rotary_factor": 2.0}}, "partial_rotary"),
    ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 0}}, "factor"),
]


@pytest.mark.parametrize(("family", "settings", "match"), SETTINGS, ids=str)
def test_settings_of_other_models_are_refused_in_one_line(family, settings, match, altered):
    with pytest.raises(UserError, match=match) as caught:
        blocks(altered(family, settings))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000, '{"model_type": ' + "1" * 5000 + "}"])
def test_unreadable_settings(text, altered):
    folder = altered("llama")
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json"):
        blocks(folder)


FOLDERS = {
    "cut off": (
        lambda d: (d / "model.safetensors").write_bytes(
            (d / "model.safetensors").read_bytes()[:-50]
        ),
        r"model\.safetensors, truncated",
    ),
    "pickle": (
        lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"),
        "pickle files only",
    ),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "without weights"),
    "no config": (lambda d: (d / "config.json").unlink(), r"config\.json"),
    "an adapter": (lambda d: (d / "adapter_config.json").write_text("{}"), "plain checkpoint"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_what_is_no_whole_checkpoint_is_refused_in_one_line(case, altered):
    change, match = FOLDERS[case]
    folder = altered("gpt2")
    change(folder)
    with pytest.raises(UserError, match=match) as caught:
        blocks(folder)
    assert "\n" not in str(caught.value)
