"""Families without code of their own here: they run as stock tools replay them, or are refused."""

import json

import pytest
import torch
from peft import PeftModel

from promptlimits.base.errors import UserError
from promptlimits.capacity.witness.files import adapter_bytes, adapter_config
from promptlimits.nets.load.load import load_parts
from promptlimits.nets.load.network import quiet
from promptlimits.nets.load.stock import decode_greedily, load_stock
from promptlimits.nets.protocol import NO_LIMIT, EncodedPair, Part, PromptKind, pack
from promptlimits.nets.routes.causal import HuggingFaceCausalLM, Route
from promptlimits.nets.routes.separate import concatenated_logits
from promptlimits.testing.tiny_models import tiny_of_family

pytestmark = [
    pytest.mark.filterwarnings("ignore::promptlimits.base.errors.PromptLimitsWarning"),
    pytest.mark.slow,  # a second for each family, most of it stock generate
]

BASE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}
STATE = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
LINEAR = {
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
TWICE = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 404}
ENCODER = {key: BASE[key] for key in BASE if key not in {"num_key_value_heads", "head_dim"}}

# Family, settings, context length, whether stock generate keeps its cache behind a soft prompt.
RUN = {
    "mamba": (STATE, NO_LIMIT, False),
    "mamba2": (STATE | {"num_heads": 8, "head_dim": 8, "n_groups": 1}, NO_LIMIT, False),
    "falcon_mamba": (STATE, NO_LIMIT, False),
    "rwkv": (
        {"hidden_size": 32, "num_hidden_layers": 2, "context_length": 128, "rescale_every": 0},
        128,
        False,
    ),
    "recurrent_gemma": (
        BASE
        | {
            "num_hidden_layers": 3,
            "lru_width": 32,
            "attention_window_size": 8,
            "block_types": ["recurrent", "recurrent", "attention"],
        },
        128,
        False,
    ),
    "jamba": (
        BASE
        | {
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
            "num_experts": 2,
            "num_experts_per_tok": 1,
        },
        128,
        True,
    ),
    # Layers without attention only, as the first ones of such hybrids are.
    "qwen3_5_text": (BASE | LINEAR | {"layer_types": ["linear_attention"] * 2}, 128, False),
    "qwen3_next": (
        BASE
        | LINEAR
        | {
            "layer_types": ["linear_attention", "full_attention"],
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
        128,
        True,
    ),
    # Looks tokens up a second time, by their ids.
    "gemma3n_text": (
        BASE
        | TWICE
        | {
            "laurel_rank": 8,
            "num_kv_shared_layers": 0,
            "sliding_window": 8,
            "intermediate_size": [64, 64],
            "activation_sparsity_pattern": [0.0, 0.0],
            "layer_types": ["sliding_attention", "full_attention"],
        },
        128,
        False,
    ),
    # PEFT does not find the number of their heads.
    "mpt": ({"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128}, 128, True),
    "xglm": (
        {
            "d_model": 32,
            "ffn_dim": 64,
            "num_layers": 2,
            "attention_heads": 4,
            "max_position_embeddings": 128,
        },
        128,
        True,
    ),
    "bloom": ({"hidden_size": 32, "n_head": 4, "n_layer": 2}, NO_LIMIT, True),
}


def frozen(directory):
    parts = load_parts(str(directory))
    return HuggingFaceCausalLM(parts.model, card=parts.card, codec=parts.codec)


def ids(*lengths, vocabulary):
    generator = torch.Generator().manual_seed(5)
    drawn = (torch.randint(1, vocabulary, (length,), generator=generator) for length in lengths)
    return [tuple(one.tolist()) for one in drawn]


def between_tokens(model, *, rows):
    """A prompt (P, D) that is no token's embedding."""
    embedded = model.embed(torch.arange(1, rows + 2))
    return 0.6 * embedded[:-1] + 0.4 * embedded[1:]


def greedy(model, prompt, key, *, kind):
    """Four tokens, each the most likely one by what training computes."""
    said = list(key)
    for _ in range(4):
        pair = EncodedPair.of_ids(said, [0])
        part = Part(prompt_tokens=prompt.shape[0], pairs=pack([pair]))
        with torch.no_grad():
            states = model.prepare([part], kind=kind).read_states(prompt)
            said.append(int(model.head.logits(states)[-1].argmax()))
    return said[len(key) :]


def replayed(directory, model, prompt, keys, folder, *, kind):
    """The same by stock PEFT and generate."""
    config = adapter_config(
        prompt_tokens=prompt.shape[0],
        dim=model.card.dim,
        reference="it",
        prefix_shape=None if kind is PromptKind.SOFT else model.prefix_shape,
    )
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(adapter_bytes(prompt.detach().contiguous()))
    stock = load_stock(str(directory))
    with quiet():
        # An end marker that is never said, so that all four tokens come.
        decode_greedily(stock.model, stop_ids=(model.card.vocabulary - 1,))
        answering = PeftModel.from_pretrained(stock.model, str(folder)).eval()
        found = []
        for key in keys:
            given = torch.tensor([key])
            with torch.inference_mode():
                row = answering.generate(
                    input_ids=given, attention_mask=torch.ones_like(given), max_new_tokens=4
                )
            found.append(row[0, len(key) :].tolist())
    return found


@pytest.mark.parametrize("family", RUN)
def test_training_computes_what_stock_tools_replay(family, tmp_path):
    settings, context_length, from_cache = RUN[family]
    directory = tiny_of_family(tmp_path / "it", family, settings)
    model = frozen(directory)
    assert model.card.context_length == context_length
    assert model.card.decodes_from_cache is from_cache
    keys = ids(1, 2, 5, 9, vocabulary=model.card.vocabulary - 1)
    prompt = between_tokens(model, rows=3)
    said = [greedy(model, prompt, key, kind=PromptKind.SOFT) for key in keys]
    assert len({tuple(one) for one in said}) > 1
    found = replayed(directory, model, prompt, keys, tmp_path / "adapter", kind=PromptKind.SOFT)
    assert found == said


@pytest.mark.parametrize("family", RUN)
def test_pairs_beside_each_other_are_pairs_alone(family, tmp_path):
    """A recurrent layer would carry the end of one pair into the beginning of the next."""
    directory = tiny_of_family(tmp_path / "it", family, RUN[family][0])
    model, stock = frozen(directory), load_parts(str(directory)).model
    tokens = ids(1, 30, 2, 7, vocabulary=model.card.vocabulary)
    pairs = [
        EncodedPair.of_ids(key, value) for key, value in zip(tokens, reversed(tokens), strict=True)
    ]
    prompt = between_tokens(model, rows=3)[None].requires_grad_()
    found = model.next_token_logits(prompt, pack(pairs))
    expected = torch.cat(
        [
            concatenated_logits(stock, prompt, model.embed(packed.input_ids), packed)
            for packed in (pack([pair]) for pair in pairs)
        ],
        dim=1,
    )
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * scale)
    slopes = [torch.autograd.grad(each.square().mean(), prompt)[0] for each in (found, expected)]
    torch.testing.assert_close(
        slopes[0], slopes[1], rtol=0, atol=1e-3 * float(slopes[1].abs().max())
    )


def test_a_recurrent_model_does_not_share_its_prompt(tmp_path):
    directory = tiny_of_family(tmp_path, "qwen3_5_text", RUN["qwen3_5_text"][0])
    assert frozen(directory).route is Route.CONCATENATION


REFUSED = {
    "gemma4_text": (
        BASE | TWICE | {"sliding_window": 8, "num_kv_shared_layers": 0},
        "run in transformers on a prompt in place of input embeddings, got RuntimeError: It seems",
    ),
    "reformer": (
        {
            "hidden_size": 32,
            "attention_head_size": 8,
            "num_attention_heads": 4,
            "feed_forward_size": 64,
            "num_buckets": 4,
            "max_position_embeddings": 128,
            "axial_pos_shape": [8, 16],
            "axial_pos_embds_dim": [8, 24],
            "is_decoder": True,
            "attn_layers": ["local", "lsh"],
        },
        "got AssertionError: If you want to train `ReformerModel`",
    ),
    "cpmant": (
        {
            "hidden_size": 32,
            "num_attention_heads": 4,
            "dim_head": 8,
            "dim_ff": 64,
            "num_hidden_layers": 2,
        },
        "take inputs_embeds, which PEFT gives it, got cpmant, which takes none",
    ),
    "xlstm": (
        {"hidden_size": 32, "num_heads": 4, "num_hidden_layers": 2},
        "take attention_mask, which PEFT gives it, got xlstm, which takes none",
    ),
    "xlm": ({"emb_dim": 32, "n_layers": 2, "n_heads": 4}, "an encoder that sees both sides"),
    "xlnet": (
        {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
        "be causal: no token may change what stands before it",
    ),
}


@pytest.mark.parametrize("family", REFUSED)
def test_what_stock_tools_do_not_run_is_refused_with_the_reason(family, tmp_path):
    settings, words = REFUSED[family]
    directory = tiny_of_family(tmp_path, family, settings)
    with pytest.raises(UserError) as caught:
        frozen(directory)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_per_layer_embeddings_of_width_none_run(tmp_path):
    settings, _ = REFUSED["gemma4_text"]
    directory = tiny_of_family(
        tmp_path, "gemma4_text", settings | {"hidden_size_per_layer_input": 0}
    )
    assert frozen(directory).card.decodes_from_cache


@pytest.mark.parametrize(
    ("family", "settings", "words"),
    [
        ("roberta", ENCODER | {"is_decoder": True}, "token ids behind a prefix read otherwise"),
        ("gemma3n_text", RUN["gemma3n_text"][0], r"gemma3n_text \("),
        ("qwen3_5_text", RUN["qwen3_5_text"][0], r"\(ValueError: `get_seq_length`"),
        ("mamba", RUN["mamba"][0], "its layers do not all cache keys and values"),
    ],
)
def test_a_prefix_that_peft_would_run_otherwise_is_refused(family, settings, words, tmp_path):
    model = frozen(tiny_of_family(tmp_path, family, settings))
    with pytest.raises(UserError, match=words) as caught:
        model.prompt_width(PromptKind.PREFIX)
    assert "choose --kind soft" in str(caught.value)


@pytest.mark.parametrize("family", ["mpt", "bloom"])
def test_a_prefix_is_replayed_as_it_is_trained(family, tmp_path):
    directory = tiny_of_family(tmp_path / "it", family, RUN[family][0])
    model = frozen(directory)
    prefix = 0.8 * model.prefix_from_tokens(torch.arange(1, 4)[None])[0]
    keys = ids(1, 2, 6, vocabulary=model.card.vocabulary - 1)
    said = [greedy(model, prefix, key, kind=PromptKind.PREFIX) for key in keys]
    found = replayed(directory, model, prefix, keys, tmp_path / "adapter", kind=PromptKind.PREFIX)
    assert found == said
