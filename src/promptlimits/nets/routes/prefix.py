"""KV prefixes in transformers' own cache: the plain way to run them, and where they start.

Each pair runs in a padded sequence of its own behind a copy of the prefix's keys and values. It
works for every family whose prefixes PEFT can replay; it is the fallback of families this
package has no code for, and the oracle of that code.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from promptlimits.nets.prefix_shape import PrefixShape
from promptlimits.nets.protocol import EncodedPair, PackedPairs, pack
from promptlimits.nets.routes.concatenation import pair_rows

__all__ = ["PrefixShape", "prefix_from_tokens", "prefixed_logits"]


def prefixed_logits(
    model: PreTrainedModel,
    prefixes: Tensor,
    embeddings: Tensor,
    pairs: PackedPairs,
    *,
    shape: PrefixShape,
) -> Tensor:
    """Next-token logits at the read positions, each pair in a sequence of its own.

    Args:
        model: A causal language model with its stock attention.
        prefixes: (B, P, W) in the dtype of the model.
        embeddings: (T, D) input embeddings of the pairs' tokens.
        pairs: The pairs; the first token of each stands at position P.
        shape: How a row of the prefixes is laid out.

    Returns:
        Logits (B, R, V), differentiable in the prefixes.
    """
    batch = prefixes.shape[0]
    rows, starts = pair_rows(embeddings, pairs)
    count, longest, _ = rows.shape
    cache = _cache(model, prefixes, count, shape)
    # Mask and positions are left to the model: filler stands behind all tokens.
    logits: Tensor = model(
        inputs_embeds=rows.expand(batch, -1, -1, -1).reshape(batch * count, longest, -1),
        past_key_values=cache,
        use_cache=True,
    ).logits
    place = pairs.read - starts[pairs.pair_of_read]
    return logits.view(batch, count, longest, -1)[:, pairs.pair_of_read, place]


@torch.no_grad()
def prefix_from_tokens(model: PreTrainedModel, ids: Tensor, *, shape: PrefixShape) -> Tensor:
    """What tokens at the start of a sequence leave in the cache.

    Behind this prefix the model answers as behind the tokens themselves.

    Args:
        model: A causal language model with its stock attention.
        ids: (B, P) token ids, P of 1 or more.
        shape: How a row of a prefix is laid out.

    Returns:
        (B, P, W) in float32.
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
    pair = EncodedPair(
        key="", value="", key_ids=(int(behind[0]),), value_ids=tuple(behind[1:].tolist())
    )
    pairs = pack([pair], device=model.device)
    trained = prefixed_logits(
        model, prefix, model.get_input_embeddings()(pairs.input_ids), pairs, shape=shape
    )[0]
    given = pairs.input_ids[None]
    replayed = model(
        input_ids=given,
        attention_mask=torch.ones(1, 3 + given.shape[1], dtype=torch.long, device=model.device),
        past_key_values=_cache(model, prefix, 1, shape),
        use_cache=True,
    ).logits[0]
    eps = max(torch.finfo(model.dtype).eps, torch.finfo(torch.float32).eps)
    tolerance = eps**0.5 * float(trained.abs().max())
    return bool((trained - replayed).abs().max() <= tolerance)


def _cache(
    model: PreTrainedModel, prefixes: Tensor, count: int, shape: PrefixShape
) -> DynamicCache:
    """A cache with a copy of the prefixes for each of `count` pairs."""
    # Of the model's configuration, so that a layer with a sliding window keeps no more.
    cache = DynamicCache(config=model.config)
    for layer, (keys, values) in enumerate(shape.to_layers(prefixes)):
        cache.update(_per_pair(keys, count), _per_pair(values, count), layer)
    return cache


def _per_pair(cached: Tensor, count: int) -> Tensor:
    """(B, heads, P, head_dim) to (B K, heads, P, head_dim), a copy for each pair."""
    return cached[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1)
