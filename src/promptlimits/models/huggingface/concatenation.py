"""The plain way to put prompts in front of pairs: one padded sequence for each pair.

It costs K runs of the prompt and computes with padding, and it works for every causal model
that takes input embeddings. It is the fallback for families whose attention cannot be
replaced, and the oracle that the shared prefix is tested against.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from promptlimits.models.protocol import PackedPairs


def concatenated_logits(
    model: PreTrainedModel, prompts: Tensor, embeddings: Tensor, pairs: PackedPairs
) -> Tensor:
    """Next-token logits at the read positions, each pair in a sequence of its own.

    Args:
        model: A causal language model.
        prompts: (B, P, D) soft prompts.
        embeddings: (T, D) input embeddings of the pairs' tokens.
        pairs: The pairs.

    Returns:
        Logits (B, R, V).
    """
    batch, prompt_tokens, width = prompts.shape
    count, longest = pairs.num_pairs, int(pairs.lengths.max())
    starts = pairs.lengths.cumsum(0) - pairs.lengths
    slots = torch.arange(longest, device=embeddings.device)
    filled = slots[None, :] < pairs.lengths[:, None]
    source = torch.where(filled, starts[:, None] + slots[None, :], 0)
    rows = embeddings[source].expand(batch, -1, -1, -1)
    front = prompts[:, None].expand(-1, count, -1, -1)
    inputs = torch.cat([front, rows], dim=2).reshape(batch * count, -1, width)
    ones = torch.ones(count, prompt_tokens, dtype=torch.long, device=embeddings.device)
    mask = torch.cat([ones, filled.long()], dim=1).repeat(batch, 1)
    # Filler stands after the real tokens, where a causal model cannot see it.
    logits: Tensor = model(inputs_embeds=inputs, attention_mask=mask, use_cache=False).logits
    place = prompt_tokens + pairs.read - starts[pairs.pair_of_read]
    return logits.view(batch, count, prompt_tokens + longest, -1)[:, pairs.pair_of_read, place]
