"""A model exactly as a stock user loads it, for checking what was found with faster code.

Nothing of this package's own attention, packing or caching is on this path: the network has the
attention that transformers chooses, and `generate` is transformers' own. The yardstick of both is
`greedy`: no PEFT, no `generate`, nothing carried from one token to the next; the prompt and all
tokens so far go through the network anew for each token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from promptlimits.nets.files.cache import Progress, no_progress
from promptlimits.nets.load.checkpoint import end_ids, read_checkpoint
from promptlimits.nets.load.locate import Located, locate
from promptlimits.nets.load.network import LOADING_ERRORS, alike, require_device
from promptlimits.nets.prefix_shape import PrefixShape
from promptlimits.nets.protocol import NO_LIMIT

_LENGTH_KEYS: Final = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx"),
    *("max_sequence_length", "max_seq_length", "model_max_length"),
)
_CACHED_TOKENS: Final = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class StockModel:
    """A model as stock tools load it, in evaluation mode."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    located: Located
    model_hash: str  # over its weights, configuration, tokenizer and end markers
    context_length: int  # most tokens of one sequence; `NO_LIMIT` where positions end nowhere
    stop_ids: tuple[int, ...]  # tokens at which its own `generate` stops

    @property
    def name(self) -> str:
        """Short name for people."""
        return self.located.name

    @property
    def source(self) -> str:
        """Where it came from: the catalog, the hub, or the path as it was given."""
        return self.located.source


def load_stock(
    reference: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    allow_hub: bool = True,
    allow_local: bool = True,
    on_progress: Progress = no_progress,
    **options: Any,
) -> StockModel:
    """Load a model with stock tools only; `options` are those of `read_network`."""
    require_device(device)
    found = locate(reference, allow_hub=allow_hub, allow_local=allow_local, on_progress=on_progress)
    name = f"model {found.name}"
    read = read_checkpoint(found.directory, name=name, dtype=dtype, **options)
    model = read.model.to(device).eval()
    return StockModel(
        model=model,
        tokenizer=read.tokenizer,
        located=found,
        model_hash=read.model_hash,
        context_length=_context_length(read.config.get_text_config()),
        stop_ids=end_ids(model, read.tokenizer, name=name),
    )


def _context_length(text: PretrainedConfig) -> int:
    rotary = getattr(text, "rope_parameters", None) or {}
    lengths = (getattr(text, key, None) for key in _LENGTH_KEYS)
    length = next((one for one in lengths if isinstance(one, int) and one > 0), NO_LIMIT)
    if rotary.get("rope_type") != "longrope":
        return length
    # Past this length all positions turn otherwise, those already in a cache as well.
    return int(min(length, rotary.get("original_max_position_embeddings", length)))


def decode_greedily(model: PreTrainedModel, *, stop_ids: tuple[int, ...]) -> None:
    """Have `generate` take the most likely token each time and stop at `stop_ids` only.

    Some models come with penalties, sampling or a cache of their own choice in their
    generation_config.json; with those the output is not the model's most likely answer. A cache
    is kept where a step from it gives what the whole text gives.
    """
    model.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        use_cache=_decodes_from_cache(model),
        eos_token_id=list(stop_ids),
        pad_token_id=stop_ids[0],
    )


@torch.no_grad()
def _decodes_from_cache(model: Any) -> bool:
    """Whether stock `generate` may go on from its cache behind a soft prompt.

    PEFT puts a soft prompt in front of the first step and looks in `past_key_values` for what later
    steps go on from. Recurrent models keep their state elsewhere, some hybrids cannot say how long
    theirs is, and layers that look tokens up a second time do so in a step from the cache but not
    behind input embeddings. Without the cache PEFT puts the prompt in front of the whole text at
    each step, which is what training computes, in every family.
    """
    embedding = model.get_input_embeddings()
    ids = torch.arange(_CACHED_TOKENS, device=model.device)[None] % embedding.weight.shape[0]
    embedded = embedding(ids)
    try:
        whole = model(inputs_embeds=embedded, use_cache=False).logits[:, -1]
        begun = model(inputs_embeds=embedded[:, :-1], use_cache=True)
        cache = begun.past_key_values
        if cache.get_seq_length() != _CACHED_TOKENS - 1:
            return False
        stepped = model(input_ids=ids[:, -1:], past_key_values=cache, use_cache=True).logits[:, -1]
    except LOADING_ERRORS:
        return False
    return alike(stepped.float(), whole.float(), dtype=model.dtype)


@torch.inference_mode()
def greedy(
    network: PreTrainedModel,
    key_ids: Sequence[int],
    *,
    tokens: int,
    prompt: Tensor | None = None,
    prefix_shape: PrefixShape | None = None,
) -> tuple[int, ...]:
    """The most likely token behind `key_ids`, `tokens` times over, end markers included.

    The prompt in front is of input vectors (P, D) or, with `prefix_shape`, a KV prefix (P, W).
    """
    ids = list(key_ids)
    for _ in range(tokens):
        read = torch.tensor([ids], device=network.device)
        if prompt is None:
            logits = network(input_ids=read).logits
        elif prefix_shape is None:
            embedded = network.get_input_embeddings()(read)
            logits = network(inputs_embeds=torch.cat([prompt[None], embedded], dim=1)).logits
        else:
            cache = DynamicCache()
            for layer, (keys, values) in enumerate(prefix_shape.to_layers(prompt[None])):
                cache.update(keys, values, layer)
            logits = network(input_ids=read, past_key_values=cache).logits
        ids.append(int(logits[0, -1].argmax()))
    return tuple(ids[len(key_ids) :])


def small_network(*, vocabulary: int, seed: int) -> PreTrainedModel:
    """A random network of the Llama family with grouped heads, in memory."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        # With the usual 0.02 next to nothing would move the logits, a wrong position included.
        initializer_range=0.5,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).float().eval()
