"""The plain way to put prompts in front of pairs: a padded sequence of its own for each pair.

Soft prompts stand in front of the pair's embeddings, prefixes in transformers' own cache. It costs
K runs or copies of the prompt and computes with padding, and it works for every causal model that
takes input embeddings, and every one whose prefixes PEFT can replay. It is the fallback for
families whose attention cannot be replaced, and the oracle that the faster routes are tested
against.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from promptlimits.nets.load.network import alike
from promptlimits.nets.prefix_shape import PrefixShape
from promptlimits.nets.protocol import EncodedPair, PackedPairs, owners_and_places, pack


def concatenated_logits(
    model: PreTrainedModel, prompts: Tensor, embeddings: Tensor, pairs: PackedPairs
) -> Tensor:
    """Logits (B, R, V) behind soft prompts (B, P, D) of pairs, their embeddings (T, D) packed."""
    batch, prompt_tokens, width = prompts.shape
    rows = _pair_rows(embeddings, pairs)
    count = len(rows)
    front = prompts[:, None].expand(-1, count, -1, -1)
    inputs = torch.cat([front, rows.expand(batch, -1, -1, -1)], dim=2)
    inputs = inputs.reshape(batch * count, -1, width)
    # Filler needs no mask: it stands after the real tokens, where a causal model cannot see it.
    # With one, a window of nothing but filler would give NaN, which no weight of 0 undoes.
    logits: Tensor = model(inputs_embeds=inputs, use_cache=False).logits
    return _at_reads(logits, pairs, batch, behind=prompt_tokens)


def prefixed_logits(
    model: PreTrainedModel,
    prefixes: Tensor,
    embeddings: Tensor,
    pairs: PackedPairs,
    *,
    shape: PrefixShape,
) -> Tensor:
    """Logits (B, R, V) behind KV prefixes (B, P, W) in the dtype of the model, stock attention.

    The first token of each pair stands at position P; differentiable in the prefixes.
    """
    batch = prefixes.shape[0]
    rows = _pair_rows(embeddings, pairs)
    # Mask and positions are left to the model: filler stands behind all tokens.
    logits: Tensor = model(
        inputs_embeds=rows.expand(batch, -1, -1, -1).flatten(0, 1),
        past_key_values=_cache(model, prefixes, len(rows), shape),
        use_cache=True,
    ).logits
    return _at_reads(logits, pairs, batch, behind=0)


def _pair_rows(embeddings: Tensor, pairs: PackedPairs) -> Tensor:
    """Each pair's tokens in a row of its own (K, L, D), filled up at the end."""
    starts = pairs.lengths.cumsum(0) - pairs.lengths
    slots = torch.arange(int(pairs.lengths.max()), device=embeddings.device)
    filled = slots[None, :] < pairs.lengths[:, None]
    return embeddings[torch.where(filled, starts[:, None] + slots[None, :], 0)]


def _at_reads(logits: Tensor, pairs: PackedPairs, batch: int, *, behind: int) -> Tensor:
    """(B, R, V) of logits (B K, behind + L, V)."""
    place = behind + owners_and_places(pairs.lengths)[1][pairs.read]
    by_prompt: Tensor = logits.unflatten(0, (batch, -1))
    return by_prompt[:, pairs.pair_of_read, place]


@torch.no_grad()
def prefix_from_tokens(model: PreTrainedModel, ids: Tensor, *, shape: PrefixShape) -> Tensor:
    """What tokens (B, P) at the start of a sequence leave in the cache: (B, P, W) in float32.

    Behind this prefix the model, with its stock attention, answers as behind the tokens themselves.
    """
    # A cache that knows no windows: one that does would drop the first tokens.
    cache = DynamicCache()
    model(input_ids=ids.to(model.device), past_key_values=cache, use_cache=True)
    return shape.from_layers(
        tuple((layer.keys.float(), layer.values.float()) for layer in cache.layers)
    )


@torch.no_grad()
def replays_prefix(model: PreTrainedModel, shape: PrefixShape) -> bool:
    """Whether PEFT's way to run a prefix gives what training computes.

    Training reads embeddings and leaves mask and positions to the model; PEFT gives it token ids
    and a mask that begins with the prefix. Some families then count positions otherwise.
    """
    ids = torch.arange(1, 8, device=model.device) % model.get_input_embeddings().weight.shape[0]
    before, behind = ids[None, :3], ids[3:]
    prefix = 0.9 * prefix_from_tokens(model, before, shape=shape).to(model.dtype)
    pairs = pack(
        [EncodedPair.of_ids(behind[:1].tolist(), behind[1:].tolist())], device=model.device
    )
    embeddings = model.get_input_embeddings()(pairs.input_ids)
    trained = prefixed_logits(model, prefix, embeddings, pairs, shape=shape)[0]
    given = pairs.input_ids[None]
    replayed = model(
        input_ids=given,
        attention_mask=torch.ones(1, 3 + given.shape[1], dtype=torch.long, device=model.device),
        past_key_values=_cache(model, prefix, 1, shape),
        use_cache=True,
    ).logits[0]
    return alike(replayed, trained, dtype=model.dtype)


def _cache(
    model: PreTrainedModel, prefixes: Tensor, count: int, shape: PrefixShape
) -> DynamicCache:
    """A cache with a copy of the prefixes for each of `count` pairs."""
    # Of the model's configuration, so that a layer with a sliding window keeps no more.
    cache = DynamicCache(config=model.config)
    for layer, cached in enumerate(shape.to_layers(prefixes)):
        keys, values = (one.repeat_interleave(count, dim=0) for one in cached)
        cache.update(keys, values, layer)
    return cache
