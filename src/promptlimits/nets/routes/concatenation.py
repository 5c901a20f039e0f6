"""The plain way to put prompts in front of pairs: one padded sequence for each pair.

It costs K runs of the prompt and computes with padding, and it works for every causal model
that takes input embeddings. It is the fallback for families whose attention cannot be
replaced, and the oracle that the shared prefix is tested against.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from promptlimits.nets.protocol import PackedPairs


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
    rows, starts = pair_rows(embeddings, pairs)
    count, longest, _ = rows.shape
    front = prompts[:, None].expand(-1, count, -1, -1)
    inputs = torch.cat([front, rows.expand(batch, -1, -1, -1)], dim=2)
    inputs = inputs.reshape(batch * count, -1, width)
    # Filler needs no mask: it stands after the real tokens, where a causal model cannot see it.
    # With one, a window of nothing but filler would give NaN, which no weight of 0 undoes.
    logits: Tensor = model(inputs_embeds=inputs, use_cache=False).logits
    place = prompt_tokens + pairs.read - starts[pairs.pair_of_read]
    return logits.view(batch, count, prompt_tokens + longest, -1)[:, pairs.pair_of_read, place]


def pair_rows(embeddings: Tensor, pairs: PackedPairs) -> tuple[Tensor, Tensor]:
    """Each pair's tokens in a row of its own, filled up at the end.

    Args:
        embeddings: (T, D) of the packed tokens.
        pairs: The K pairs, the longest of L tokens.

    Returns:
        The rows (K, L, D), and where each pair starts among the packed tokens (K,).
    """
    starts = pairs.lengths.cumsum(0) - pairs.lengths
    slots = torch.arange(int(pairs.lengths.max()), device=embeddings.device)
    filled = slots[None, :] < pairs.lengths[:, None]
    source = torch.where(filled, starts[:, None] + slots[None, :], 0)
    return embeddings[source], starts
