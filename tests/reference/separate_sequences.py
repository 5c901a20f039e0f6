"""Logits behind a soft prompt by stock code: one unpadded sequence for each pair."""

from functools import partial

import torch

from promptlimits.nets.protocol import EncodedPair

RAGGED = ((1, 1), (9, 4), (3, 2), (6, 1), (2, 3))
"""Tokens of keys and values; some pass the tiny Gemma's window of 8."""


def norm_in_own_dtype(network):
    """Stock RMSNorm rounds to float32 even in float64, which would hide a real difference."""

    def rms_norm(x, *, gain, eps):
        return gain * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)

    for module in network.modules():
        if type(module).__name__ == "Gemma3RMSNorm":
            module.forward = partial(rms_norm, gain=1 + module.weight, eps=module.eps)
        elif type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(rms_norm, gain=module.weight, eps=module.variance_epsilon)


def random_pairs(sizes, *, seed):
    """Pairs of given lengths of key and value, ids from 1 to 99."""
    generator = torch.Generator().manual_seed(seed)

    def ids(count):
        return tuple(torch.randint(1, 100, (count,), generator=generator).tolist())

    return [EncodedPair.of_ids(ids(a), ids(b)) for a, b in sizes]


def by_the_book(network, prompt, pairs):
    """Logits (R, V) of one problem: stock code, one unpadded sequence for each pair."""
    rows = []
    for pair in pairs:
        tokens = network.get_input_embeddings()(torch.tensor(pair.input_ids))
        logits = network(inputs_embeds=torch.cat([prompt, tokens])[None]).logits[0]
        rows.append(logits[-len(pair.value_ids) :])
    return torch.cat(rows)
