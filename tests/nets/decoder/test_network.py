"""The decoder computes what separate sequences through stock code compute, and its gradient."""

from dataclasses import replace

import pytest
import torch
from tests.reference.separate_sequences import RAGGED, by_the_book, random_pairs
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
)

from promptlimits.capacity.train.config import lead_in
from promptlimits.capacity.train.objective import lead
from promptlimits.nets.decoder import attention
from promptlimits.nets.decoder.families import decoder_of
from promptlimits.nets.load.network import quiet
from promptlimits.nets.prefix_shape import PrefixShape
from promptlimits.nets.protocol import Part, PromptKind, pack
from promptlimits.nets.routes.separate import prefixed_logits

FAMILIES = ("llama", "qwen2", "gemma3", "gpt2", "gpt_neox")

EQUAL = ((2, 3), (2, 3), (2, 3))
LONG = ((34, 5), (2, 2))
"""One is long enough for blocked attention."""

NEOX = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
GPT2 = {"vocab_size": 100, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 32} | {
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def problems():
    """Prompt lengths and pairs of eight problems, in no order that suits the layout."""
    return [
        (3, random_pairs(RAGGED, seed=0)),
        (11, random_pairs(RAGGED[:3], seed=1)),
        (3, random_pairs(RAGGED, seed=2)),
        (2, random_pairs(EQUAL, seed=3)),
        (4, random_pairs(LONG, seed=4)),
        (3, random_pairs(RAGGED[::-1], seed=5)),
        (2, random_pairs(EQUAL, seed=6)),
        (0, random_pairs(RAGGED, seed=7)),
    ]


def parts_of(several):
    return [Part(prompt_tokens=length, pairs=pack(pairs)) for length, pairs in several]


def normal(*size, seed):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def decoder(network):
    found = decoder_of(network)
    assert found is not None
    return found


def prefix_width(network):
    with quiet():
        return PrefixShape.of(network).width


def close(found, expected):
    return bool((found - expected).norm() <= 1e-11 * expected.norm())


def separate(network, kind, prompt, pairs):
    """Logits of one problem by stock code."""
    if kind is PromptKind.SOFT:
        return by_the_book(network, prompt, pairs)
    packed = pack(pairs)
    tokens = network.get_input_embeddings()(packed.input_ids)
    with quiet():
        shape = PrefixShape.of(network)
    return prefixed_logits(network, prompt[None], tokens, packed, shape=shape)[0]


@pytest.mark.parametrize(
    ("family", "layers", "kind"),
    [
        *((family, layers, PromptKind.SOFT) for family in FAMILIES for layers in (1, 3)),
        *((family, 3, PromptKind.PREFIX) for family in ("llama", "gemma3", "gpt_neox")),
    ],
)
def test_many_ragged_problems_equal_separate_sequences(family, layers, kind, open_model):
    network = open_model(family, layers=layers)
    # A stock cache takes no prefix of no token.
    several = problems() if kind is PromptKind.SOFT else problems()[:-1]
    own, lengths = decoder(network), [length for length, _ in several]
    width = own.dim if kind is PromptKind.SOFT else prefix_width(network)
    prompts = normal(sum(lengths), width, seed=8).requires_grad_(True)
    found = own.head.logits(own.prepare(parts_of(several), kind).read_states(prompts))
    expected = torch.cat(
        [
            separate(network, kind, prompt, pairs)
            for prompt, (_, pairs) in zip(prompts.split(lengths), several, strict=True)
        ]
    )
    assert close(found, expected)
    weights = normal(*expected.shape, seed=9)
    slopes = [torch.autograd.grad((one * weights).sum(), prompts)[0] for one in (found, expected)]
    assert close(*slopes)


@pytest.mark.parametrize("kind", list(PromptKind))
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_the_fused_kernels_of_a_device_give_what_scores_give(family, kind, open_model, monkeypatch):
    own, several = decoder(open_model(family)), problems()[:-1]
    width = own.dim if kind is PromptKind.SOFT else prefix_width(open_model(family))
    prompts = normal(sum(length for length, _ in several), width, seed=8).requires_grad_(True)

    def states_and_gradient(way):
        monkeypatch.setattr(attention, "way_of", lambda *_, **__: way())
        states = own.prepare(parts_of(several), kind).read_states(prompts)
        weights = normal(*states.shape, seed=9)
        return states.detach(), *torch.autograd.grad((states * weights).sum(), prompts)

    whole, fused = (states_and_gradient(way) for way in (attention.Whole, attention.Fused))
    assert close(fused[0], whole[0])
    assert close(fused[1], whole[1])


@pytest.mark.parametrize("kind", list(PromptKind))
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("read", [(4, 3, 2, 1, 0), (1, 1, 4), (0, 2, 4, 2, 3)])
def test_positions_may_be_read_in_any_order_and_more_than_once(read, family, kind, open_model):
    network, pairs = open_model(family), pack(random_pairs([(1, 2), (1, 3)], seed=0))
    own = decoder(network)
    assert pairs.read.tolist() == [0, 1, 2, 3, 4]
    index = torch.tensor(read)
    again = replace(
        pairs,
        read=pairs.read[index],
        targets=pairs.targets[index],
        pair_of_read=pairs.pair_of_read[index],
    )
    width = own.dim if kind is PromptKind.SOFT else prefix_width(network)
    prompt = normal(3, width, seed=17).requires_grad_(True)
    weights = normal(len(read), own.dim, seed=18)
    found, straight = (
        own.prepare([Part(prompt_tokens=3, pairs=some)], kind).read_states(prompt)
        for some in (again, pairs)
    )
    assert close(found, straight[index])
    (gradient,) = torch.autograd.grad((found * weights).sum(), prompt)
    (expected,) = torch.autograd.grad((straight[index] * weights).sum(), prompt)
    assert close(gradient, expected)


def test_a_problem_alone_is_the_same_problem(open_model):
    own, several = decoder(open_model("llama")), problems()
    lengths = [length for length, _ in several]
    prompts = normal(sum(lengths), own.dim, seed=12)
    parts = parts_of(several)
    together = own.prepare(parts, PromptKind.SOFT).read_states(prompts)
    sizes = [part.pairs.read.numel() for part in parts]
    for part, prompt, states in zip(
        parts, prompts.split(lengths), together.split(sizes), strict=True
    ):
        alone = own.prepare([part], PromptKind.SOFT).read_states(prompt)
        assert close(states, alone)


def test_a_problem_split_by_its_pairs_adds_up(open_model):
    """What a memory budget does: the gradient of the whole is the sum of the parts'."""
    own, pairs = decoder(open_model("llama")), random_pairs(RAGGED, seed=0)
    prompt = normal(3, own.dim, seed=13).requires_grad_(True)

    def gradient(some):
        batch = own.prepare(parts_of([(3, some)]), PromptKind.SOFT)
        return torch.autograd.grad(
            own.head.logits(batch.read_states(prompt)).square().sum(), prompt
        )[0]

    assert close(gradient(pairs[:2]) + gradient(pairs[2:]), gradient(pairs))


@pytest.mark.parametrize("pairs", [RAGGED, LONG])
def test_a_second_reverse_pass_is_refused_not_wrong(pairs, open_model):
    own = decoder(open_model("llama"))
    prompt = normal(3, own.dim, seed=14).requires_grad_(True)
    batch = own.prepare(parts_of([(3, random_pairs(pairs, seed=0))]), PromptKind.SOFT)
    loss = batch.read_states(prompt).square().sum()
    torch.autograd.grad(loss, prompt, retain_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once"):
        torch.autograd.grad(loss, prompt)


@pytest.mark.parametrize("kind", list(PromptKind))
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_gives_the_same_again_and_again(family, kind, open_model):
    network = open_model(family)
    own = decoder(network)
    width = own.dim if kind is PromptKind.SOFT else prefix_width(network)
    batch = own.prepare(parts_of([(3, random_pairs(RAGGED, seed=0))]), kind)
    fixed = batch.fixed_rows.clone()
    prompt = normal(3, width, seed=1).requires_grad_(True)

    def once():
        states = batch.read_states(prompt)
        kept = states.detach().clone()
        gradient = states.detach().clone()
        (found,) = torch.autograd.grad(states, prompt, gradient)
        # What is given in and given out is nobody's to overwrite.
        assert torch.equal(states, kept)
        assert torch.equal(gradient, kept)
        return kept, found

    first, second = once(), once()
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert torch.equal(batch.fixed_rows, fixed)


def test_nothing_is_kept_without_a_reverse_pass(open_model):
    own = decoder(open_model("llama"))
    batch = own.prepare(parts_of([(3, random_pairs(RAGGED, seed=0))]), PromptKind.SOFT)
    prompt = normal(3, own.dim, seed=15)
    assert batch.kept_bytes(batch.read_states(prompt)) == 0
    states = batch.read_states(prompt.requires_grad_(True))
    assert batch.kept_bytes(states) > 0
    torch.autograd.grad(states.sum(), prompt)
    assert batch.kept_bytes(states) == 0


@pytest.mark.parametrize(
    ("settings", "network_class"),
    [
        (GPTNeoXConfig(use_parallel_residual=False, rotary_pct=0.5, **NEOX), GPTNeoXForCausalLM),
        (GPTNeoXConfig(hidden_act="gelu_fast", attention_bias=False, **NEOX), GPTNeoXForCausalLM),
        (GPT2Config(activation_function="relu", **GPT2), GPT2LMHeadModel),
        (GPT2Config(scale_attn_by_inverse_layer_idx=True, **GPT2), GPT2LMHeadModel),
    ],
)
def test_settings_of_a_family_are_followed(settings, network_class):
    network = network_class(settings).double().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(21)
    for weight in network.parameters():
        weight.normal_(generator=generator).mul_(0.3)
    own, pairs = decoder(network), random_pairs(RAGGED, seed=0)
    prompt = normal(3, own.dim, seed=22).requires_grad_(True)
    batch = own.prepare(parts_of([(3, pairs)]), PromptKind.SOFT)
    found = own.head.logits(batch.read_states(prompt))
    expected = by_the_book(network, prompt, pairs)
    assert close(found, expected)
    slopes = [torch.autograd.grad(each.square().sum(), prompt)[0] for each in (found, expected)]
    assert close(*slopes)


def test_what_long_pairs_keep_grows_with_their_length_not_its_square(open_model):
    own = decoder(open_model("llama"))
    kept = []
    for length in (60, 120):
        part = Part(prompt_tokens=1, pairs=pack(random_pairs([(length, 1)], seed=0)))
        batch = own.prepare([part], PromptKind.SOFT)
        kept.append(batch.kept_bytes(batch.read_states(torch.zeros(1, own.dim).requires_grad_())))
    assert kept[1] <= 2 * kept[0]


@pytest.mark.parametrize("long", [attention.WORTH_IT_ONE_WAY, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_the_same_without_a_reverse_pass(family, long, open_model, monkeypatch):
    """Also where prompts of three tokens count as long, so that their scores are not kept."""
    monkeypatch.setattr(attention, "WORTH_IT_ONE_WAY", long)
    own, parts = decoder(open_model(family)), parts_of(problems())
    batch = own.prepare(parts, PromptKind.SOFT)
    prompts = normal(sum(part.prompt_tokens for part in parts), own.dim, seed=19)
    bare = batch.read_states(prompts)
    assert close(bare, batch.read_states(prompts.clone().requires_grad_(True)).detach())


def test_a_long_context_is_read_without_its_scores(open_model, monkeypatch):
    softmax = attention.softmax_of

    def within_no_prompt(scores):
        assert scores.shape[-1] != 50, "scores of the prompt"
        return softmax(scores)

    monkeypatch.setattr(attention, "softmax_of", within_no_prompt)
    own = decoder(open_model("llama"))
    part = Part(prompt_tokens=50, pairs=pack(random_pairs([(2, 1)], seed=0)))
    own.prepare([part], PromptKind.SOFT).read_states(normal(50, own.dim, seed=20))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", list(PromptKind))
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt_neox"])
def test_the_memory_of_a_step_is_estimated_from_above_and_not_by_much(
    family, kind, dtype, open_model
):
    network = open_model(family, dtype=dtype)
    own = decoder(network)
    width = own.dim if kind is PromptKind.SOFT else prefix_width(network)
    for length, sizes in ((5, [(4, 3)] * 30), (1, [(1, 1)]), (0, RAGGED), (20, [(90, 5)] * 2)):
        part = Part(prompt_tokens=length, pairs=pack(random_pairs(sizes, seed=0)))
        prompt = torch.zeros(length, width, requires_grad=True)
        batch = own.prepare([part], kind)
        kept = batch.kept_bytes(batch.read_states(prompt))
        assert kept <= own.step_bytes(part, kind) <= 5 * kept


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_weights_take_prompts_of_float32(family, open_model):
    """bfloat16 has 8 bits: three layers agree with float32 to some hundredths."""
    pairs = random_pairs(RAGGED, seed=0)
    wide = decoder(open_model(family, dtype=torch.float32))
    narrow = decoder(open_model(family, dtype=torch.bfloat16))
    prompt = normal(3, wide.dim, seed=16).float()
    found = []
    for own in (wide, narrow):
        leaf = prompt.clone().requires_grad_(True)
        batch = own.prepare(parts_of([(3, pairs)]), PromptKind.SOFT)
        logits = own.head.logits(batch.read_states(leaf)).float()
        (gradient,) = torch.autograd.grad(logits.square().mean(), leaf)
        assert gradient.dtype == torch.float32
        found.append((logits.detach(), gradient))
    (logits, gradient), (rounded, rounded_gradient) = found
    assert (rounded - logits).norm() <= 0.05 * logits.norm()
    direction = torch.cosine_similarity(rounded_gradient.flatten(), gradient.flatten(), dim=0)
    assert direction >= 0.95


@pytest.mark.parametrize("sizes", [RAGGED, [(40, 3)] * 2])
@pytest.mark.parametrize("kind", list(PromptKind))
@pytest.mark.parametrize("family", FAMILIES)
def test_a_narrowed_decoder_rounds_its_products_alone(family, kind, sizes, open_model):
    """What it gives is float32, some hundredths from what the decoder itself gives."""
    network = open_model(family, dtype=torch.float32)
    wide = decoder(network)
    width = wide.dim if kind is PromptKind.SOFT else prefix_width(network)
    prompt = normal(3, width, seed=16).float()
    found = []
    for own in (wide, wide.narrowed(torch.bfloat16)):
        leaf = prompt.clone().requires_grad_(True)
        part = Part(prompt_tokens=3, pairs=pack(random_pairs(sizes, seed=0)))
        states = own.prepare([part], kind).read_states(leaf)
        logits = own.head.logits(states).float()
        (gradient,) = torch.autograd.grad(logits.square().mean(), leaf)
        found.append((states.dtype, logits.detach(), gradient))
    (_, logits, gradient), (dtype, rounded, back) = found
    assert dtype == torch.float32
    assert 0 < (rounded - logits).norm() <= 0.05 * logits.norm()
    assert torch.cosine_similarity(back.flatten(), gradient.flatten(), dim=0) >= 0.98


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_16_bits_stock_code_turns_less_where_a_token_leads(dtype, open_model):
    differences, turned = [], []
    for family in FAMILIES:
        network, pairs = open_model(family, dtype=dtype), random_pairs(RAGGED * 8, seed=0)
        own, prompt = decoder(network), normal(3, decoder(network).dim, seed=16).to(dtype)
        batch = own.prepare(parts_of([(3, pairs)]), PromptKind.SOFT)
        found = own.head.logits(batch.read_states(prompt)).double()
        stock = by_the_book(network, prompt, pairs).double()
        winners = found.argmax(dim=1)
        leads = lead(found, winners)
        differences.append((leads - lead(stock, winners)).abs().max())
        sure = leads > lead_in(str(dtype).removeprefix("torch."))
        turned.append((stock.argmax(dim=1) != winners)[sure].double().mean())
    # What single precision asks for is below the rounding of 16 bits; two roundings help.
    assert max(differences) > lead_in("float32")
    assert max(turned) <= 0.02


def test_settings_without_a_table_are_left_to_stock_code(open_model):
    network = open_model("gemma3")
    assert decoder_of(network) is not None
    network.config.final_logit_softcapping = 30.0
    assert decoder_of(network) is None
    network = open_model("llama")
    network.config.rope_parameters = {**network.config.rope_parameters, "rope_type": "dynamic"}
    assert decoder_of(network) is None
    network = open_model("gpt2")
    network.config.activation_function = "mish"
    assert decoder_of(network) is None
    network.config.model_type = "unheard-of"
    assert decoder_of(network) is None


@pytest.mark.parametrize(("prompt", "longest"), [(1, 3), (12, 4), (13, 4), (64, 7), (70, 3)])
def test_softmax_rows_are_whole_lanes_on_a_processor(prompt, longest):
    parts = [torch.zeros(6, prompt), torch.zeros(6, longest)]
    joined = attention._side_by_side(parts, float("-inf"))
    columns, lanes, least = joined.shape[1], attention.LANES, attention.NARROW
    assert columns % lanes == 0
    assert least <= columns < max(least + 1, prompt + longest + lanes)
    assert bool((joined[:, prompt + longest :] == float("-inf")).all())
    assert not joined[:, : prompt + longest].any()
