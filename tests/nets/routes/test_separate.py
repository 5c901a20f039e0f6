"""KV prefixes: their layout is PEFT's, and a prefix of tokens is those tokens in the context."""

import json

import pytest
import torch
from safetensors.torch import save_file
from tests.nets.routes.test_shared_prefix import frozen, pairs_of

from promptlimits.base.errors import UserError
from promptlimits.nets.load.network import quiet
from promptlimits.nets.prefix_shape import PrefixShape
from promptlimits.nets.protocol import EncodedPair, Part, PromptKind, pack
from promptlimits.nets.routes.separate import prefix_from_tokens, prefixed_logits
from promptlimits.testing.tiny_models import tiny_causal_lm

FAMILIES = ("llama", "gemma3", "gpt2", "gpt_neox", "gpt_neo", "qwen2")
LONG = 11
"""More tokens than Gemma's and GPT-Neo's windows of 8 hold."""

pytestmark = pytest.mark.filterwarnings("ignore::promptlimits.base.errors.PromptLimitsWarning")


def normal(*size, seed, dtype=torch.float64):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def network_of(directory, family, **changes):
    from transformers import AutoModelForCausalLM

    path = tiny_causal_lm(directory, family, **changes)
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


# --- the layout ---------------------------------------------------------------------------


def test_a_row_is_keys_then_values_layer_by_layer():
    """Written from PEFT's documentation: number (l, keys or values, head, place) of token p."""
    shape = PrefixShape(layers=3, kv_heads=2, head_dim=4)
    assert (shape.token_dim, shape.width) == (8, 48)
    prefixes = torch.arange(2 * 5 * 48, dtype=torch.float32).view(2, 5, 48)
    layers = shape.to_layers(prefixes)
    assert len(layers) == 3
    for index in range(3):
        for part in range(2):
            assert layers[index][part].shape == (2, 2, 5, 4)
            for head in range(2):
                start = ((2 * index + part) * 2 + head) * 4
                assert torch.equal(layers[index][part][:, head], prefixes[..., start : start + 4])
    assert torch.equal(shape.from_layers(layers), prefixes)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_shape_is_what_the_model_caches(family, tmp_path):
    grouped = family in {"llama", "qwen2", "gemma3"}
    found = PrefixShape.of(network_of(tmp_path, family, layers=3))
    assert found == PrefixShape(layers=3, kv_heads=2 if grouped else 4, head_dim=8)


# --- the plain way ------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [1, LONG])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_prefix_of_tokens_is_the_tokens_in_the_context(family, tokens, tmp_path):
    """Part by part, and a soft prompt of the same tokens gives the same logits."""
    model = frozen(tmp_path, family)
    packed = pack(pairs_of(model))
    ids = torch.randint(
        1, model.card.vocabulary, (2, tokens), generator=torch.Generator().manual_seed(3)
    )
    parts = [Part(prompt_tokens=tokens, pairs=packed)] * 2
    soft = model.prepare(parts).read_states(model.embed(ids).flatten(0, 1))
    prefixes = model.prefix_from_tokens(ids)
    assert prefixes.shape == (2, tokens, model.prompt_width(PromptKind.PREFIX))
    assert prefixes.dtype == torch.float32
    stock = prefix_from_tokens(model._model, ids, shape=model.prefix_shape)
    torch.testing.assert_close(prefixes, stock, rtol=1e-4, atol=1e-4)
    batch = model.prepare(parts, kind=PromptKind.PREFIX)
    found = model.head.logits(batch.read_states(prefixes.flatten(0, 1)))
    # The prefix is stored in float32; so are its errors.
    torch.testing.assert_close(found, model.head.logits(soft), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradient_equal_those_of_one_unpadded_sequence_each(family, tmp_path):
    from transformers import DynamicCache

    model = frozen(tmp_path, family)
    pairs = pairs_of(model)
    shape, packed = model.prefix_shape, pack(pairs)
    prefixes = normal(2, LONG, shape.width, seed=4).requires_grad_()
    weights = normal(2, int(packed.read.numel()), model.card.vocabulary, seed=5)
    network = model._model
    network.set_attn_implementation("sdpa" if network._supports_sdpa else "eager")
    rows = []
    for pair in pairs:
        cache = DynamicCache()
        for index, (keys, values) in enumerate(shape.to_layers(prefixes)):
            cache.update(keys, values, index)
        ids = torch.tensor([pair.input_ids] * 2)
        logits = network(input_ids=ids, past_key_values=cache, use_cache=True).logits
        rows.append(logits[:, -len(pair.value_ids) :])
    expected = torch.cat(rows, dim=1)
    tokens = model.embed(packed.input_ids)
    found = prefixed_logits(network, prefixes, tokens, packed, shape=shape)
    # GPT-Neo has eager attention only, whose softmax is float32's whatever the dtype.
    tight = 1e-9 if network._supports_sdpa else 1e-5
    torch.testing.assert_close(found, expected, rtol=tight, atol=tight)
    gradients = [
        torch.autograd.grad((logits * weights).sum(), prefixes)[0] for logits in (found, expected)
    ]
    assert (gradients[0] - gradients[1]).norm() <= tight * gradients[1].norm()


def test_a_prefix_of_no_token_is_the_bare_model(tmp_path):
    model = frozen(tmp_path, "gemma3")
    part = Part(prompt_tokens=0, pairs=pack(pairs_of(model)))
    kinds = {
        kind: model.prepare([part], kind=kind).read_states(
            torch.zeros(0, model.prompt_width(kind), dtype=torch.float64)
        )
        for kind in PromptKind
    }
    logits = [model.head.logits(states) for states in kinds.values()]
    # Stock eager attention, which runs the prefix, takes its softmax in float32.
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-5, atol=1e-5)


# --- stock PEFT ---------------------------------------------------------------------------


def in_peft(network, prefix, shape, folder):
    """The network with the prefix loaded by stock PEFT."""
    from peft import PeftModel

    folder.mkdir()
    config = {
        "peft_type": "PREFIX_TUNING",
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": prefix.shape[0],
        "num_transformer_submodules": 1,
        "num_layers": shape.layers,
        "num_attention_heads": shape.kv_heads,
        "token_dim": shape.token_dim,
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({"prompt_embeddings": prefix}, folder / "adapter_model.safetensors")
    with quiet():
        return PeftModel.from_pretrained(network, str(folder)).eval()


@pytest.mark.parametrize("tokens", [1, LONG])
@pytest.mark.parametrize("family", FAMILIES)
def test_stock_generate_behind_a_prefix_of_peft_sees_these_logits(family, tokens, tmp_path):
    """Prefill and each later step: positions, masks and windows are those of training."""
    from transformers import GenerationConfig

    network = network_of(tmp_path / "m", family, layers=3)
    shape = PrefixShape.of(network)
    prefix = normal(tokens, shape.width, seed=7, dtype=torch.float32)
    keys = torch.randint(1, 60, (2, 5), generator=torch.Generator().manual_seed(8))
    network.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=[10**6], pad_token_id=0
    )
    model = in_peft(network, prefix, shape, tmp_path / "adapter")
    with torch.inference_mode(), quiet():
        said = model.generate(
            input_ids=keys,
            attention_mask=torch.ones_like(keys),
            max_new_tokens=5,
            output_logits=True,
            return_dict_in_generate=True,
        )
    for row, ids in enumerate(said.sequences.tolist()):
        pair = EncodedPair.of_ids(ids[:5], ids[5:])
        packed = pack([pair])
        tokens_in = network.get_input_embeddings()(packed.input_ids)
        expected = prefixed_logits(network, prefix[None], tokens_in, packed, shape=shape)[0]
        found = torch.stack([step[row] for step in said.logits])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# --- what cannot be replayed --------------------------------------------------------------


def test_a_family_without_such_a_cache_is_refused(tmp_path):
    """With the evidence: PEFT loads a prefix for it, and it answers as without one."""
    from transformers import AutoModelForCausalLM, MambaConfig

    config = MambaConfig(vocab_size=70, hidden_size=32, num_hidden_layers=2, state_size=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(UserError, match=r"got mamba \(its layers do not all .*--kind soft"):
        PrefixShape.of(network)
    shape = PrefixShape(layers=2, kv_heads=4, head_dim=8)
    prefix = normal(3, shape.width, seed=9, dtype=torch.float32)
    model = in_peft(network, prefix, shape, tmp_path / "adapter")
    keys = torch.ones(1, 4, dtype=torch.long)
    with torch.inference_mode(), quiet():
        bare = network(input_ids=keys).logits[0, -1]
        said = model.generate(
            input_ids=keys, max_new_tokens=1, output_logits=True, return_dict_in_generate=True
        )
    torch.testing.assert_close(said.logits[0][0], bare, rtol=1e-5, atol=1e-5)
