"""Tiny random causal language models on disk, with a tokenizer, made without a network.

They load with stock Hugging Face tools and exercise the same code as a real model of their
family: grouped heads, tied weights, rotary or learned positions, sliding windows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END_TOKEN: Final = "<|end|>"

WORDS: Final[tuple[str, ...]] = (
    *("France", "Paris", "Germany", "Berlin", "Italy", "Rome", "Spain", "Madrid"),
    *("Japan", "Tokyo", "Peru", "Lima", "Cuba", "Havana", "Kenya", "Nairobi"),
    *("red", "green", "blue", "black", "white", "one", "two", "three", "four", "five"),
    *("cat", "dog", "bird", "fish", "tree", "house", "river", "stone", "moon", "sun"),
)
"""Words that are one token of the tiny tokenizer, at the start of a text and after a space."""


def _llama(size: Mapping[str, int]) -> dict[str, Any]:
    return {
        "hidden_size": size["dim"],
        "intermediate_size": 2 * size["dim"],
        "num_hidden_layers": size["layers"],
        "num_attention_heads": size["heads"],
        "num_key_value_heads": size["kv_heads"],
        "max_position_embeddings": size["context_length"],
        "tie_word_embeddings": True,
    }


def _gemma3_text(size: Mapping[str, int]) -> dict[str, Any]:
    sliding = ["sliding_attention"] * (size["layers"] - 1)
    return _llama(size) | {
        "head_dim": size["dim"] // size["heads"],
        "query_pre_attn_scalar": size["dim"] // size["heads"],
        "sliding_window": 8,
        "layer_types": [*sliding, "full_attention"],
    }


def _gpt2(size: Mapping[str, int]) -> dict[str, Any]:
    return {
        "n_embd": size["dim"],
        "n_layer": size["layers"],
        "n_head": size["heads"],
        "n_positions": size["context_length"],
    }


def _gpt_neox(size: Mapping[str, int]) -> dict[str, Any]:
    return {
        "hidden_size": size["dim"],
        "intermediate_size": 2 * size["dim"],
        "num_hidden_layers": size["layers"],
        "num_attention_heads": size["heads"],
        "max_position_embeddings": size["context_length"],
        "use_parallel_residual": True,
    }


def _bert(size: Mapping[str, int]) -> dict[str, Any]:
    return {
        "hidden_size": size["dim"],
        "intermediate_size": 2 * size["dim"],
        "num_hidden_layers": size["layers"],
        "num_attention_heads": size["heads"],
        "max_position_embeddings": size["context_length"],
    }


def _gpt_neo(size: Mapping[str, int]) -> dict[str, Any]:
    return {
        "hidden_size": size["dim"],
        "num_layers": size["layers"],
        "num_heads": size["heads"],
        "attention_types": [[["global", "local"], (size["layers"] + 1) // 2]],
        "attention_layers": [("global", "local")[i % 2] for i in range(size["layers"])],
        "window_size": 8,
        "max_position_embeddings": size["context_length"],
    }


_FAMILIES: Final[dict[str, tuple[str, Callable[[Mapping[str, int]], dict[str, Any]]]]] = {
    "llama": ("llama", _llama),
    "gemma3": ("gemma3_text", _gemma3_text),
    "gpt2": ("gpt2", _gpt2),
    "gpt_neox": ("gpt_neox", _gpt_neox),
    "gpt_neo": ("gpt_neo", _gpt_neo),
    "qwen2": ("qwen2", _llama),
}

FAMILIES: Final = tuple(family for family in _FAMILIES if family != "qwen2")
"""Names that `tiny_causal_lm` takes, but for "qwen2": stock tools add an end marker of their own to
its tokenizer, so that its tiny model serves for its weights only."""


def tiny_tokenizer(words: Sequence[str] = WORDS) -> PreTrainedTokenizerFast:
    """Make a byte-level tokenizer: every text round-trips, and `words` are one token each."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=100_000,
        min_frequency=1,
        special_tokens=[END_TOKEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    corpus = [form for word in sorted(words) for form in (word, f" {word}")]
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_TOKEN, clean_up_tokenization_spaces=False
    )


def tiny_causal_lm(
    directory: Path | str,
    family: str = "llama",
    *,
    vocab: Sequence[str] = WORDS,
    dim: int = 32,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    context_length: int = 128,
    init_scale: float = 0.3,
    seed: int = 0,
) -> Path:
    """Save a random causal language model and its tokenizer where stock tools load it.

    Weights are normal with deviation `init_scale`, well above the usual 0.02: with the usual
    one every next-token distribution is nearly flat and a wrong mask or position would hardly
    move the logits. Biases and norm scales, which start at 0 and 1, are moved too.
    """
    model_type, settings = _FAMILIES[family]
    size = {"dim": dim, "layers": layers, "heads": heads, "kv_heads": kv_heads}
    return tiny_of_family(
        directory,
        model_type,
        settings(size | {"context_length": context_length}),
        vocab=vocab,
        init_scale=init_scale,
        seed=seed,
    )


def tiny_of_family(
    directory: Path | str,
    model_type: str,
    settings: Mapping[str, Any],
    *,
    vocab: Sequence[str] = WORDS,
    init_scale: float = 0.3,
    seed: int = 0,
) -> Path:
    """Save a random model of any causal family of transformers, and its tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = tiny_tokenizer(vocab)
    config = AutoConfig.for_model(
        model_type,
        **{
            "vocab_size": len(tokenizer),
            "initializer_range": init_scale,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_token_id": 0,
            **settings,
        },
    )
    target = Path(directory)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _save_moved(AutoModelForCausalLM.from_config(config, dtype=torch.float32), target)
    tokenizer.save_pretrained(target)
    return target


def tiny_encoder(
    directory: Path | str,
    *,
    dim: int = 32,
    layers: int = 2,
    heads: int = 4,
    init_scale: float = 0.3,
    seed: int = 0,
) -> Path:
    """Save a random BERT encoder, without a tokenizer, where stock tools load it."""
    import torch
    from transformers import AutoConfig, AutoModel

    size = {"dim": dim, "layers": layers, "heads": heads, "context_length": 64}
    config = AutoConfig.for_model(
        "bert", **_bert(size), vocab_size=50, initializer_range=init_scale
    )
    target = Path(directory)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _save_moved(AutoModel.from_config(config, dtype=torch.float32), target)
    return target


def _save_moved(model: Any, directory: Path) -> None:
    """Save a model with its vectors, which start at 0 and 1, moved."""
    import torch

    with torch.no_grad():
        for vector in (p for p in model.parameters() if p.ndim == 1):
            vector.add_(torch.randn_like(vector), alpha=0.1)
    model.save_pretrained(directory)
