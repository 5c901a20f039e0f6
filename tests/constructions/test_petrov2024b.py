"""One soft token asks for every sequence; a prefix leaves relative attention alone."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from promptlimits.constructions.petrov2024b import (
    content_shares,
    largest_share_change,
    soft_token_network,
)
from promptlimits.errors import UserError
from promptlimits.lipschitz.weights import random_weights
from promptlimits.models.paper_layers import causal_bias
from promptlimits.models.transformer import from_weights
from promptlimits.testing.tiny_models import tiny_causal_lm


@pytest.mark.parametrize(("digits", "steps"), [(1, 1), (2, 1), (2, 5), (3, 3), (7, 2)])
def test_one_soft_token_asks_for_every_sequence(digits: int, steps: int) -> None:
    network = soft_token_network(digits=digits, steps=steps)
    answers = {
        network.generate(network.soft_token(answer))
        for answer in product(range(digits), repeat=steps)
    }
    assert answers == set(product(range(digits), repeat=steps))
    hard = {network.generate(network.embeddings[:, digit]) for digit in range(digits)}
    assert len(hard) <= digits


@pytest.mark.parametrize(("digits", "steps"), [(100_000, 6), (50, 60)])
def test_larger_vocabularies_and_lengths(digits: int, steps: int) -> None:
    network = soft_token_network(digits=digits, steps=steps)
    generator = np.random.default_rng(digits)
    for answer in (generator.integers(0, digits, steps).tolist(), [digits - 1] * steps):
        assert network.generate(network.soft_token(answer)) == tuple(answer)


def test_what_is_refused() -> None:
    network = soft_token_network(digits=3, steps=2)
    with pytest.raises(UserError, match="be 2 digits from 0 to 2"):
        network.soft_token((0, 3))
    with pytest.raises(UserError, match="digits and steps must be at most"):
        soft_token_network(digits=2**40, steps=2)
    with pytest.raises(UserError, match="make 300,100,000"):
        soft_token_network(digits=100_000, steps=1_000)


def shares(tokens: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> np.ndarray:
    logits = (query @ tokens).T @ (key @ tokens) + causal_bias(tokens.shape[1], tokens)
    return torch.softmax(logits, dim=-1).numpy()


def test_a_head_of_the_papers_keeps_relative_attention() -> None:
    generator = np.random.default_rng(0)
    model = from_weights(
        random_weights(
            dim=6, heads=1, head_dim=6, hidden=0, layers=1, generator=generator, masked=True
        )
    )
    head = model.layers[0].heads[0]
    content = torch.tensor(generator.standard_normal((6, 9)))
    for prefix in (1, 5):
        front = torch.tensor(3 * generator.standard_normal((6, prefix)))
        behind = shares(torch.cat([front, content], dim=1), head.query, head.key)
        alone = shares(content, head.query, head.key)
        assert largest_share_change(behind, alone, prefix) <= 1e-14
        taken = behind[prefix:, :prefix].sum(axis=1)
        assert taken.min() > 0
        # t_i -> (1 - alpha_i) t_i + alpha_i (mean of prefix values)
        values = (head.value @ torch.cat([front, content], dim=1)).numpy()
        mean = values[:, :prefix] @ (behind[prefix:, :prefix] / taken[:, None]).T
        mixed = (1 - taken) * (values[:, prefix:] @ alone.T) + taken * mean
        assert np.abs(values @ behind[prefix:].T - mixed).max() <= 1e-13


def test_real_attention_keeps_it_in_the_first_layer_only(tmp_path: Path) -> None:
    tiny_causal_lm(tmp_path, "llama", layers=2, seed=1)
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="eager", dtype=torch.float64
    ).eval()
    tokens = torch.arange(5, 17)[None]
    with torch.no_grad():
        content = model.get_input_embeddings()(tokens)
        generator = torch.Generator().manual_seed(0)
        soft = torch.randn(1, 4, content.shape[-1], generator=generator, dtype=torch.float64)
        behind = model(
            inputs_embeds=torch.cat([soft, content], dim=1), output_attentions=True
        ).attentions
        alone = model(inputs_embeds=content, output_attentions=True).attentions
    changes = [
        largest_share_change(b.numpy(), a.numpy(), 4) for b, a in zip(behind, alone, strict=True)
    ]
    # Rotary positions depend on differences only; angles are computed in float32.
    assert changes[0] <= 1e-5
    assert changes[1] > 1e-2
    assert np.allclose(content_shares(behind[0].numpy(), 4).sum(axis=-1), 1)
