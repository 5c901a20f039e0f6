"""What a decoder takes from stock modules: gains that move into the weights behind them."""

import pytest
import torch
from tests.reference.separate_sequences import by_the_book, random_pairs

from promptlimits.nets.decoder import families
from promptlimits.nets.decoder.families import decoder_of
from promptlimits.nets.protocol import Part, PromptKind, pack

PAIRS = random_pairs(((1, 1), (9, 4), (3, 2)), seed=0)


def with_gains(network):
    """Norms whose gains are far from one."""
    generator = torch.Generator().manual_seed(3)
    for name, weight in network.named_parameters():
        if name.endswith("norm.weight"):
            drawn = 0.5 + torch.rand(weight.shape, generator=generator)
            weight.data.copy_(drawn.to(weight.dtype))
    return network


def logits_and_gradient(network, prompt):
    own = decoder_of(network)
    part = Part(prompt_tokens=len(prompt), pairs=pack(PAIRS))
    logits = own.head.logits(own.prepare([part], PromptKind.SOFT).read_states(prompt))
    return logits, torch.autograd.grad(logits.square().sum(), prompt)[0]


@pytest.mark.parametrize("copied_bytes", [0, 2**28])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_moved_gains_change_neither_results_nor_the_model(
    family, copied_bytes, open_model, monkeypatch
):
    monkeypatch.setattr(families, "_COPIED_BYTES", copied_bytes)
    network = with_gains(open_model(family))
    before = {name: weight.clone() for name, weight in network.named_parameters()}
    generator = torch.Generator().manual_seed(1)
    width = network.config.hidden_size
    prompt = torch.randn(3, width, generator=generator, dtype=torch.float64).requires_grad_(True)
    found, gradient = logits_and_gradient(network, prompt)
    expected = by_the_book(network, prompt, PAIRS)
    (right,) = torch.autograd.grad(expected.square().sum(), prompt)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient, right, rtol=1e-9, atol=1e-9)
    assert all(torch.equal(weight, before[name]) for name, weight in network.named_parameters())


def test_feed_forward_weights_are_copied_only_below_the_limit(open_model, monkeypatch):
    network = open_model("llama", layers=3)
    config = network.config
    needed = 3 * 2 * config.hidden_size * config.intermediate_size * torch.float64.itemsize

    def shared(limit):
        monkeypatch.setattr(families, "_COPIED_BYTES", limit)
        own = decoder_of(network)
        assert all(block.attention_norm.weight is None for block in own.blocks)
        pairs = zip(own.blocks, network.model.layers, strict=True)
        found = set()
        for block, layer in pairs:
            same = block.feed.up.weight.data_ptr() == layer.mlp.up_proj.weight.data_ptr()
            assert same == (block.feed_norm.weight is not None)
            found.add(same)
        return found

    assert shared(needed) == {False}
    assert shared(needed - 1) == {True}


def test_in_16_bits_gains_stay_where_they_are(open_model):
    own = decoder_of(open_model("llama", dtype=torch.bfloat16))
    norms = [norm for block in own.blocks for norm in (block.attention_norm, block.feed_norm)]
    assert all(norm.weight is not None for norm in norms)
