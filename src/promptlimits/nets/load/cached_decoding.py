"""Whether stock `generate` may go on from its cache behind a soft prompt.

PEFT puts a soft prompt in front of the first step and looks in `past_key_values` for what later
steps go on from. Recurrent models keep their state elsewhere, some hybrids cannot say how long
theirs is, and layers that look tokens up a second time do so in a step from the cache but not
behind input embeddings. Without the cache PEFT puts the prompt in front of the whole text at each
step, which is what training computes, in every family.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from promptlimits.nets.load.network import LOADING_ERRORS

_TOKENS: Final = 16


@torch.no_grad()
def decodes_from_cache(model: Any) -> bool:
    """Compare one step from the cache with the whole sequence read at once."""
    embedding = model.get_input_embeddings()
    ids = torch.arange(_TOKENS, device=model.device)[None] % embedding.weight.shape[0]
    embedded = embedding(ids)
    try:
        whole = model(inputs_embeds=embedded, use_cache=False).logits[:, -1]
        begun = model(inputs_embeds=embedded[:, :-1], use_cache=True)
        cache = begun.past_key_values
        if cache.get_seq_length() != _TOKENS - 1:
            return False
        stepped = model(input_ids=ids[:, -1:], past_key_values=cache, use_cache=True).logits[:, -1]
    except LOADING_ERRORS:
        return False
    return _alike(whole.float(), stepped.float(), eps=torch.finfo(model.dtype).eps)


def _alike(whole: Tensor, stepped: Tensor, *, eps: float) -> bool:
    # Attention takes its softmax in float32 whatever the dtype.
    tolerance = max(eps, torch.finfo(torch.float32).eps) ** 0.5 * float(whole.abs().max())
    return bool((whole - stepped).abs().max() <= tolerance)
