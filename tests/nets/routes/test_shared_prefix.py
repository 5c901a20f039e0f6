"""The shared prefix computes what concatenation computes: values and gradients."""

import pytest
import torch
from tests.reference.separate_sequences import RAGGED, by_the_book, norm_in_own_dtype, random_pairs
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from promptlimits.base.errors import PromptLimitsWarning, UserError
from promptlimits.capacity.train.memory import ActivationMeter
from promptlimits.nets.decoder.block import AttentionLayer
from promptlimits.nets.decoder.families import decoder_of
from promptlimits.nets.load.load import load_parts
from promptlimits.nets.protocol import Part, PromptKind, pack
from promptlimits.nets.routes import causal
from promptlimits.nets.routes.causal import HuggingFaceCausalLM, Route
from promptlimits.nets.routes.whole_model import WholeModel
from promptlimits.testing.tiny_models import tiny_causal_lm

SHARED = ("llama", "gemma3", "gpt2", "gpt_neox")


def frozen(directory, family, dtype=torch.float64):
    parts = load_parts(str(tiny_causal_lm(directory, family, layers=3)), dtype=dtype)
    norm_in_own_dtype(parts.model)
    return HuggingFaceCausalLM(parts.model, card=parts.card, codec=parts.codec)


def pairs_of(model):
    """Unequal pairs of a model's tokens."""
    assert model.card.vocabulary >= 100
    return random_pairs(RAGGED, seed=0)


def separate(model, prompt, pairs):
    """The slow twin: stock attention, one unpadded sequence for each pair; (R, V)."""
    network = model._model
    switched = network.config._attn_implementation
    # Not eager, where there is a choice: it takes the softmax in float32 even in float64.
    network.set_attn_implementation("sdpa" if network._supports_sdpa else "eager")
    logits = by_the_book(network, prompt, pairs)
    network.set_attn_implementation(switched)
    return logits


@pytest.fixture(params=[Route.DECODER, Route.SHARED_PREFIX])
def route(request, monkeypatch):
    """Own code, or none for any family, as of one that this package has never heard of."""
    if request.param is Route.SHARED_PREFIX:
        monkeypatch.setattr(causal, "decoder_of", lambda _: None)
    return Route(request.param)


@pytest.mark.parametrize("prompt_tokens", [0, 1, 3, 11])
@pytest.mark.parametrize("family", SHARED)
def test_logits_and_gradients_equal_those_of_separate_sequences(
    route, family, prompt_tokens, tmp_path
):
    """Part by part, pair by pair: no part, no pair and no order of them changes another's."""
    model = frozen(tmp_path, family)
    assert model.route is route
    pairs, lengths = pairs_of(model), (prompt_tokens, 2)
    packed = pack(pairs)
    generator = torch.Generator().manual_seed(1)
    prompt = torch.randn(sum(lengths), model.card.dim, generator=generator, dtype=torch.float64)
    prompt.requires_grad_(True)
    parts = [Part(prompt_tokens=length, pairs=packed) for length in lengths]
    found = model.head.logits(model.prepare(parts).read_states(prompt))
    expected = torch.cat([separate(model, one, pairs) for one in prompt.split(lengths)])
    slopes = [torch.autograd.grad(logits.square().sum(), prompt)[0] for logits in (found, expected)]
    for value, reference in ((found, expected), slopes):
        assert (value - reference).norm() <= 1e-10 * reference.norm()
    first = model.next_token_logits(prompt[None, :prompt_tokens], packed)[0]
    torch.testing.assert_close(first, found[: len(first)], rtol=1e-10, atol=1e-11)


def test_a_family_with_its_own_attention_falls_back_and_says_so(tmp_path):
    parts = load_parts(str(tiny_causal_lm(tmp_path, "gpt_neo")), dtype=torch.float64)
    with pytest.warns(PromptLimitsWarning, match="run once for every pair"):
        model = HuggingFaceCausalLM(parts.model, card=parts.card, codec=parts.codec)
    assert model.route is Route.CONCATENATION
    pairs = pairs_of(model)
    prompts = torch.randn(2, 3, model.card.dim, dtype=torch.float64)
    found = model.next_token_logits(prompts, pack(pairs))
    for index in range(2):
        expected = separate(model, prompts[index], pairs)
        # Its attention computes in float32 whatever the dtype.
        torch.testing.assert_close(found[index], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", list(PromptKind))
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("route", [Route.SHARED_PREFIX], indirect=True)
@pytest.mark.filterwarnings("ignore::promptlimits.base.errors.PromptLimitsWarning")
def test_the_memory_of_stock_code_is_estimated_from_above(
    route, alone, family, kind, dtype, tmp_path, monkeypatch
):
    if alone:
        monkeypatch.setattr(WholeModel, "share_prefix", lambda *_: "a test says so")
    model = frozen(tmp_path, family, dtype)
    assert model.route is (Route.CONCATENATION if alone else route)
    one = pairs_of(model)
    for length, pairs in ((5, one * 4), (1, one[:1]), (40, one)):
        part = Part(prompt_tokens=length, pairs=pack(pairs))
        prompt = torch.zeros(length, model.prompt_width(kind), requires_grad=True)
        meter = ActivationMeter()
        with meter.watching():
            states = model.prepare([part], kind=kind).read_states(prompt)
        torch.autograd.grad(states, prompt, torch.ones_like(states))
        del states
        kept = meter.freed_bytes()
        assert kept <= model.step_bytes(part, kind=kind) <= 8 * kept


def test_own_code_that_is_wrong_for_long_pairs_only_is_not_taken(tmp_path, monkeypatch):
    original = AttentionLayer.forward

    def short_sighted(layer, rows, plan, saved):
        longest = plan.layout.longest_sequence
        return original(layer, rows, plan, saved) * (1.0 if longest <= 20 else 0.9)

    monkeypatch.setattr(AttentionLayer, "forward", short_sighted)
    assert frozen(tmp_path, "gpt_neox").route is Route.SHARED_PREFIX


def test_a_model_whose_tokens_see_later_ones_is_refused(tmp_path):
    parts = load_parts(str(tiny_causal_lm(tmp_path, "gemma3", layers=3)), dtype=torch.float64)
    parts.model.config.use_bidirectional_attention = True
    for layer in parts.model.model.layers:
        layer.self_attn.is_causal = False
    with pytest.raises(UserError, match="must be causal"):
        HuggingFaceCausalLM(parts.model, card=parts.card, codec=parts.codec)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_an_odd_number_of_rotated_numbers_is_left_to_stock_code(share):
    config = GPTNeoXConfig(
        vocab_size=100, hidden_size=36, num_hidden_layers=2, num_attention_heads=4, rotary_pct=share
    )
    assert decoder_of(GPTNeoXForCausalLM(config)) is None


@pytest.mark.parametrize("kind", list(PromptKind))
def test_no_weight_is_trainable_and_no_call_changes_the_model(kind, route, tmp_path):
    model = frozen(tmp_path, "llama", torch.float32)
    network = model._model
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    attention = network.config._attn_implementation
    part = Part(prompt_tokens=2, pairs=pack(pairs_of(model)))
    prompt = torch.randn(2, model.prompt_width(kind), requires_grad=True)
    model.head.logits(model.prepare([part], kind=kind).read_states(prompt)).sum().backward()
    assert bool(prompt.grad.abs().sum() > 0)
    assert network.config._attn_implementation == attention
    assert not any(weight.requires_grad for weight in network.parameters())
    assert all(weight.grad is None for weight in network.parameters())
    assert all(torch.equal(found, before[name]) for name, found in network.state_dict().items())


def test_embeddings_of_another_dtype_are_refused(tmp_path):
    parts = load_parts(str(tiny_causal_lm(tmp_path, "gpt2")), dtype=torch.bfloat16)
    parts.model.get_input_embeddings().to(torch.float32)
    with pytest.raises(UserError, match=r"embeddings of the dtype .*bfloat16.*got float32"):
        HuggingFaceCausalLM(parts.model, card=parts.card, codec=parts.codec)


def test_the_deviation_of_the_logits_is_that_of_single_tokens(tmp_path):
    model = frozen(tmp_path, "llama")
    vocabulary = model.card.vocabulary
    ids = torch.arange(64) * (vocabulary // 64)
    logits = model._model(input_ids=ids[:, None]).logits[:, 0]
    deviation = float(logits.std(dim=-1).mean())
    assert model.logit_deviation == pytest.approx(deviation, rel=0.05)
    assert model.logit_deviation == float(f"{model.logit_deviation:.1e}")
