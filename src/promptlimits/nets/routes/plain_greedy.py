"""Greedy decoding by whole forward passes of a stock network: what a prompt means, said directly.

No PEFT, no `generate`, nothing carried from one token to the next: the prompt and all tokens so
far go through the network anew for each token. Slow, and the yardstick of what is fast.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from promptlimits.nets.prefix_shape import PrefixShape


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
