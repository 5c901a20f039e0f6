"""Logits behind a soft prompt by stock code: one unpadded sequence for each pair."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from promptlimits.nets.protocol import EncodedPair


def random_pairs(sizes: Sequence[tuple[int, int]], *, seed: int) -> list[EncodedPair]:
    """Pairs of given lengths of key and value, ids from 1 to 99."""
    generator = torch.Generator().manual_seed(seed)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, 100, (count,), generator=generator).tolist())

    return [EncodedPair(key="", value="", key_ids=ids(a), value_ids=ids(b)) for a, b in sizes]


def by_the_book(network: PreTrainedModel, prompt: Tensor, pairs: Sequence[EncodedPair]) -> Tensor:
    """Logits (R, V) of one problem: stock code, one unpadded sequence for each pair."""
    rows = []
    for pair in pairs:
        tokens = network.get_input_embeddings()(torch.tensor(pair.input_ids))
        logits = network(inputs_embeds=torch.cat([prompt, tokens])[None]).logits[0]
        rows.append(logits[-len(pair.value_ids) :])
    return torch.cat(rows)
