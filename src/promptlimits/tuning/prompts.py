"""Where the training of soft prompts starts.

Vocabulary initialisation: each prompt token starts at the embedding of a random token. Random
normal vectors learn far worse (Lester et al. 2021; PEFT's issue 2816).
"""

from __future__ import annotations

import torch
from torch import Tensor

from promptlimits.models.protocol import FrozenModel


def from_vocabulary(
    model: FrozenModel, *, count: int, prompt_tokens: int, generator: torch.Generator
) -> Tensor:
    """Prompts made of the embeddings of random ordinary tokens.

    Args:
        model: The frozen model.
        count: B, how many prompts.
        prompt_tokens: P, tokens in each.
        generator: Source of randomness, on the CPU so that every device draws the same.

    Returns:
        (B, P, D) on the model's device, in float32: the prompt is stored and trained in
        float32 whatever the weights are.
    """
    choices = torch.tensor(model.codec.plain_token_ids(), dtype=torch.long)
    drawn = torch.randint(len(choices), (count, prompt_tokens), generator=generator)
    with torch.no_grad():
        vectors = model.embed(choices[drawn].to(model.device))
    return vectors.to(torch.float32)


def lengthened(prompt: Tensor, *, start: Tensor) -> Tensor:
    """Put a prompt found at a smaller length behind fresh tokens of a longer one.

    Args:
        prompt: (Q, W), the shorter prompt.
        start: (P, W), a fresh prompt, P >= Q.

    Returns:
        (P, W): `start` with its last Q tokens replaced.
    """
    warm = start.clone()
    warm[start.shape[0] - prompt.shape[0] :] = prompt.to(warm)
    return warm
