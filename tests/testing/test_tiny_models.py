"""The tiny models are what other tests take them for."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from promptlimits.testing.tiny_models import FAMILIES, WORDS, tiny_causal_lm, tiny_tokenizer


def weights(directory):
    return (directory / "model.safetensors").read_bytes()


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_a_function_of_the_seed(family, tmp_path):
    before = torch.random.get_rng_state()
    first = tiny_causal_lm(tmp_path / "first", family, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    assert weights(tiny_causal_lm(tmp_path / "again", family, seed=3)) == weights(first)
    assert weights(tiny_causal_lm(tmp_path / "other", family, seed=4)) != weights(first)


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_tools_load_it_and_the_order_of_tokens_matters(family, tmp_path):
    directory = tiny_causal_lm(tmp_path, family, dim=16, layers=3)
    model, info = AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(directory))
    # Longer than the sliding windows, so that a wrong mask or position shows.
    ids = torch.arange(1, 25).unsqueeze(0)
    swapped = ids.clone()
    swapped[0, [0, 20]] = ids[0, [20, 0]]
    with torch.no_grad():
        difference = (model(ids).logits[0, -1] - model(swapped).logits[0, -1]).abs().max()
    assert difference > 1e-2


def test_words_are_one_token_and_texts_round_trip():
    tokenizer = tiny_tokenizer()
    for word in WORDS:
        assert len(tokenizer(word).input_ids) == len(tokenizer(f" {word}").input_ids) == 1
    for text in ("one two", "Côte d'Ivoire", "東京\n"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.get_vocab() == tiny_tokenizer(WORDS[::-1]).get_vocab()
