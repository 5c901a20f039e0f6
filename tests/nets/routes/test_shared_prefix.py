"""The shared prefix computes what concatenation computes: values and gradients."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from promptlimits.base.errors import PromptLimitsWarning, UserError
from promptlimits.capacity.train.memory import ActivationMeter
from promptlimits.nets.decoder.attention_layer import AttentionLayer
from promptlimits.nets.decoder.families import decoder_of
from promptlimits.nets.decoder.plan import BlockPlan
from promptlimits.nets.decoder.pointwise import SavedTensors
from promptlimits.nets.load.load import load_parts
from promptlimits.nets.protocol import EncodedPair, PackedPairs, Part, PromptKind, pack
from promptlimits.nets.routes import causal
from promptlimits.nets.routes.causal import HuggingFaceCausalLM, Route
from promptlimits.nets.routes.whole_model import WholeModel
from promptlimits.testing.tiny_models import tiny_causal_lm

SHARED = ("llama", "gemma3", "gpt2", "gpt_neox")


def norm_in_own_dtype(network: nn.Module) -> None:
    """Stock RMSNorm rounds to float32 even in float64, which would hide a real difference."""

    def rms_norm(x: Tensor, *, gain: Tensor, eps: float) -> Tensor:
        return gain * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)

    for module in network.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = partial(rms_norm, gain=module.weight, eps=module.variance_epsilon)
        elif type(module).__name__ == "Gemma3RMSNorm":
            module.forward = partial(rms_norm, gain=1 + module.weight, eps=module.eps)


def frozen(directory: Path, family: str, dtype: torch.dtype = torch.float64) -> HuggingFaceCausalLM:
    parts = load_parts(str(tiny_causal_lm(directory, family, layers=3)), dtype=dtype)
    norm_in_own_dtype(parts.model)
    return HuggingFaceCausalLM(parts.model, card=parts.card, codec=parts.codec)


def unequal_pairs(vocabulary: int, *, seed: int = 0) -> list[EncodedPair]:
    """Keys of 1 to 9 tokens and values of 1 to 4: some pass Gemma's window of 8."""
    generator = torch.Generator().manual_seed(seed)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, vocabulary, (count,), generator=generator).tolist())

    sizes = ((1, 1), (9, 4), (3, 2), (6, 1), (2, 3))
    return [EncodedPair(key="", value="", key_ids=ids(a), value_ids=ids(b)) for a, b in sizes]


def by_the_book(model: HuggingFaceCausalLM, prompt: Tensor, pairs: list[EncodedPair]) -> Tensor:
    """The slow twin: stock attention, one unpadded sequence for each pair; (R, V)."""
    network = model._model
    switched = network.config._attn_implementation
    # Not eager, where there is a choice: it takes the softmax in float32 even in float64.
    network.set_attn_implementation("sdpa" if network._supports_sdpa else "eager")
    rows = []
    for pair in pairs:
        tokens = model.embed(torch.tensor(pair.input_ids))
        logits = network(inputs_embeds=torch.cat([prompt, tokens])[None]).logits[0]
        rows.append(logits[-len(pair.value_ids) :])
    network.set_attn_implementation(switched)
    return torch.cat(rows)


def loss_and_gradient(logits: Tensor, pairs: PackedPairs, prompt: Tensor) -> tuple[Tensor, Tensor]:
    loss = cross_entropy(logits, pairs.targets)
    return loss.detach(), torch.autograd.grad(loss, prompt)[0]


@pytest.mark.parametrize("prompt_tokens", [1, 3, 11])
@pytest.mark.parametrize("family", SHARED)
def test_loss_and_gradient_equal_those_of_separate_sequences(
    family: str, prompt_tokens: int, tmp_path: Path
) -> None:
    model = frozen(tmp_path, family)
    assert model.shares_prefix
    pairs = unequal_pairs(model.card.vocabulary)
    packed = pack(pairs)
    generator = torch.Generator().manual_seed(1)
    prompt = torch.randn(
        prompt_tokens, model.card.dim, generator=generator, dtype=torch.float64
    ).requires_grad_(True)
    expected = loss_and_gradient(by_the_book(model, prompt, pairs), packed, prompt)
    found = loss_and_gradient(model.next_token_logits(prompt[None], packed)[0], packed, prompt)
    for value, reference in zip(found, expected, strict=True):
        assert (value - reference).norm() <= 1e-10 * reference.norm()


@pytest.mark.parametrize("family", SHARED)
def test_problems_of_a_batch_equal_the_same_problems_alone(family: str, tmp_path: Path) -> None:
    model = frozen(tmp_path, family)
    packed = pack(unequal_pairs(model.card.vocabulary))
    generator = torch.Generator().manual_seed(2)
    prompts = torch.randn(3, 2, model.card.dim, generator=generator, dtype=torch.float64)
    together = model.next_token_logits(prompts, packed)
    for index in range(3):
        alone = model.next_token_logits(prompts[index : index + 1], packed)[0]
        torch.testing.assert_close(together[index], alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("family", SHARED)
def test_no_prompt_is_the_bare_model(family: str, tmp_path: Path) -> None:
    model = frozen(tmp_path, family)
    pairs = unequal_pairs(model.card.vocabulary)
    empty = torch.zeros(1, 0, model.card.dim, dtype=torch.float64)
    expected = by_the_book(model, empty[0], pairs)
    found = model.next_token_logits(empty, pack(pairs))[0]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_the_order_of_pairs_does_not_matter(tmp_path: Path) -> None:
    model = frozen(tmp_path, "llama")
    pairs = unequal_pairs(model.card.vocabulary)
    prompt = torch.randn(1, 2, model.card.dim, dtype=torch.float64)
    forward = model.next_token_logits(prompt, pack(pairs))[0]
    backward = model.next_token_logits(prompt, pack(pairs[::-1]))[0]
    lengths = [len(pair.value_ids) for pair in pairs]
    torch.testing.assert_close(
        torch.cat(list(backward.split(lengths[::-1]))[::-1]), forward, rtol=1e-10, atol=1e-12
    )


def test_a_family_with_its_own_attention_falls_back_and_says_so(tmp_path: Path) -> None:
    parts = load_parts(str(tiny_causal_lm(tmp_path, "gpt_neo")), dtype=torch.float64)
    with pytest.warns(PromptLimitsWarning, match="run once for every pair"):
        model = HuggingFaceCausalLM(parts.model, card=parts.card, codec=parts.codec)
    assert not model.shares_prefix
    pairs = unequal_pairs(model.card.vocabulary)
    prompts = torch.randn(2, 3, model.card.dim, dtype=torch.float64)
    found = model.next_token_logits(prompts, pack(pairs))
    for index in range(2):
        expected = by_the_book(model, prompts[index], pairs)
        # Its attention computes in float32 whatever the dtype.
        torch.testing.assert_close(found[index], expected, rtol=1e-3, atol=1e-5)


@pytest.fixture
def no_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """No family has own code, as a family that this package has never heard of."""
    monkeypatch.setattr(causal, "decoder_of", lambda _: None)


@pytest.mark.usefixtures("no_tables")
@pytest.mark.parametrize("family", SHARED)
def test_a_family_without_own_code_shares_the_prefix_through_stock_code(
    family: str, tmp_path: Path
) -> None:
    model = frozen(tmp_path, family)
    assert model.route is Route.SHARED_PREFIX
    pairs = unequal_pairs(model.card.vocabulary)
    packed = pack(pairs)
    prompt = torch.randn(3, model.card.dim, dtype=torch.float64, requires_grad=True)
    parts = [Part(prompt_tokens=1, pairs=packed), Part(prompt_tokens=2, pairs=packed)]
    found = model.head.logits(model.prepare(parts).read_states(prompt))
    expected = torch.cat([by_the_book(model, one, pairs) for one in prompt.split([1, 2])])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)
    slopes = [torch.autograd.grad(logits.square().sum(), prompt)[0] for logits in (found, expected)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-9, atol=1e-10)


@pytest.mark.usefixtures("no_tables")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", list(PromptKind))
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize("route", [Route.SHARED_PREFIX, Route.CONCATENATION])
@pytest.mark.filterwarnings("ignore::promptlimits.base.errors.PromptLimitsWarning")
def test_the_memory_of_stock_code_is_estimated_from_above(
    route: Route,
    family: str,
    kind: PromptKind,
    dtype: torch.dtype,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if route is Route.CONCATENATION:
        monkeypatch.setattr(WholeModel, "share_prefix", lambda *_: "a test says so")
    model = frozen(tmp_path, family, dtype)
    assert model.route is route
    one = unequal_pairs(model.card.vocabulary)
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


def test_own_code_that_is_wrong_for_long_pairs_only_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = AttentionLayer.forward

    def short_sighted(
        layer: AttentionLayer, rows: Tensor, plan: BlockPlan, saved: SavedTensors
    ) -> Tensor:
        longest = plan.layout.longest_sequence
        return original(layer, rows, plan, saved) * (1.0 if longest <= 20 else 0.9)

    monkeypatch.setattr(AttentionLayer, "forward", short_sighted)
    assert frozen(tmp_path, "gpt_neox").route is Route.SHARED_PREFIX


def test_a_model_whose_tokens_see_later_ones_is_refused(tmp_path: Path) -> None:
    parts = load_parts(str(tiny_causal_lm(tmp_path, "gemma3", layers=3)), dtype=torch.float64)
    parts.model.config.use_bidirectional_attention = True
    for layer in parts.model.model.layers:
        layer.self_attn.is_causal = False
    with pytest.raises(UserError, match="must be causal"):
        HuggingFaceCausalLM(parts.model, card=parts.card, codec=parts.codec)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_an_odd_number_of_turned_numbers_is_left_to_stock_code(share: float) -> None:
    config = GPTNeoXConfig(
        vocab_size=100, hidden_size=36, num_hidden_layers=2, num_attention_heads=4, rotary_pct=share
    )
    assert decoder_of(GPTNeoXForCausalLM(config)) is None


def test_no_weight_is_trainable_and_no_call_changes_one(tmp_path: Path) -> None:
    model = frozen(tmp_path, "llama", torch.float32)
    before = {name: weight.clone() for name, weight in model._model.named_parameters()}
    packed = pack(unequal_pairs(model.card.vocabulary))
    prompt = torch.randn(1, 2, model.card.dim, requires_grad=True)
    model.next_token_logits(prompt, packed).sum().backward()
    for name, weight in model._model.named_parameters():
        assert not weight.requires_grad
        assert weight.grad is None
        assert torch.equal(weight, before[name])


def test_families_that_share_the_prefix_do_so_without_a_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", PromptLimitsWarning)
        for family in SHARED:
            assert frozen(tmp_path / family, family).shares_prefix


def test_embeddings_of_another_dtype_are_refused(tmp_path: Path) -> None:
    parts = load_parts(str(tiny_causal_lm(tmp_path, "gpt2")), dtype=torch.bfloat16)
    parts.model.get_input_embeddings().to(torch.float32)
    with pytest.raises(UserError, match=r"embeddings of the dtype .*bfloat16.*got float32"):
        HuggingFaceCausalLM(parts.model, card=parts.card, codec=parts.codec)


def test_the_deviation_of_the_logits_is_that_of_single_tokens(tmp_path: Path) -> None:
    model = frozen(tmp_path, "llama")
    vocabulary = model.card.vocabulary
    ids = torch.arange(64) * (vocabulary // 64)
    logits = model._model(input_ids=ids[:, None]).logits[:, 0]
    deviation = float(logits.std(dim=-1).mean())
    assert model.logit_deviation == pytest.approx(deviation, rel=0.05)
    assert model.logit_deviation == float(f"{model.logit_deviation:.1e}")
