"""Where the training of prompts starts.

Vocabulary initialisation: each token of a soft prompt starts at the embedding of a random token.
Random normal vectors learn far worse (Lester et al. 2021; PEFT's issue 2816). A prefix starts at
the keys and values that random tokens leave in the cache.
"""

from __future__ import annotations

import torch
from torch import Tensor

from promptlimits.nets.prefix_shape import reader_of_prefixes
from promptlimits.nets.protocol import FrozenModel, PromptKind


def from_vocabulary(
    model: FrozenModel,
    *,
    count: int,
    prompt_tokens: int,
    generator: torch.Generator,
    kind: PromptKind = PromptKind.SOFT,
) -> Tensor:
    """Prompts made of random ordinary tokens: their embeddings, or what they leave cached.

    Args:
        model: The frozen model.
        count: B, how many prompts.
        prompt_tokens: P, tokens in each.
        generator: Source of randomness, on the CPU so that every device draws the same.
        kind: What the prompts are.

    Returns:
        (B, P, W) on the model's device, in float32: the prompt is stored and trained in
        float32 whatever the weights are.
    """
    choices = torch.tensor(model.codec.plain_token_ids(), dtype=torch.long)
    drawn = torch.randint(len(choices), (count, prompt_tokens), generator=generator)
    ids = choices[drawn].to(model.device)
    if kind is PromptKind.PREFIX:
        return reader_of_prefixes(model).prefix_from_tokens(ids)
    with torch.no_grad():
        vectors = model.embed(ids)
    return vectors.to(torch.float32)


def lengthened(prompt: Tensor, *, start: Tensor) -> Tensor:
    """A fresh prompt (P, W) whose last tokens are a shorter one (Q, W)."""
    warm = start.clone()
    warm[start.shape[0] - prompt.shape[0] :] = prompt.to(warm)
    return warm
