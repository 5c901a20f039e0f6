"""Attention by torch's fused kernels, whichever a device has: scores are never in its memory.

`scaled_dot_product_attention` gives outputs without the logarithms by which two parts are joined,
so the prompt's keys stand in front of each pair's own, copied for each pair, and one mask hides
what is not seen. Query heads of a key head are rows of one head: in single precision the kernels
take a mask and no groups of heads, and what no kernel takes torch computes by way of its scores.

What the way back needs is known to autograd alone, which records this one operation: its inputs
are copied out of inference mode for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def fuse(
    query: Tensor,
    prompt: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    mask: Tensor,
    *,
    keeps: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Outputs of queries (pairs, rows, width), and what is kept for the way back.

    Prompt keys and values are (problems, P, width), own ones (pairs, L, width); pairs are those of
    all problems and key heads. The mask (pairs of one key head or 1, rows, P + L) is added to the
    scores.
    """
    with torch.inference_mode(mode=False), torch.set_grad_enabled(keeps):
        leaves = [query.clone(), *(_in_front(*both) for both in zip(prompt, own, strict=True))]
        each = (-1, 1 if len(mask) == 1 else len(mask))
        q, k, v = (leaf.requires_grad_(keeps).unflatten(0, each) for leaf in leaves)
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask[None], scale=1.0).flatten(0, 1)
    return out.detach(), (*leaves, out) if keeps else ()


def fuse_back(
    gradient: Tensor, kept: Sequence[Tensor], problems: int, prompt_tokens: int, *, fixed: bool
) -> tuple[Tensor | None, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Gradients in queries (None if fixed), and in keys and values of the prompt and of the pairs.

    From that in the outputs and what `fuse` kept.
    """
    query, key, value, out = kept
    asked = (key, value) if fixed else (key, value, query)
    with torch.inference_mode(mode=False):
        d_key, d_value, *d_query = torch.autograd.grad(out, asked, gradient.clone())

    def of_prompt(both: Tensor) -> Tensor:
        copies: Tensor = both[:, :prompt_tokens].unflatten(0, (problems, -1))
        return copies.sum(dim=1)

    def of_pairs(both: Tensor) -> Tensor:
        return both[:, prompt_tokens:].contiguous()

    return (
        None if fixed else d_query[0],
        (of_prompt(d_key), of_prompt(d_value)),
        (of_pairs(d_key), of_pairs(d_value)),
    )


def _in_front(prompt: Tensor, own: Tensor) -> Tensor:
    """(pairs, P + L, width): own rows behind those (problems, P, width) of each pair's prompt."""
    by_problem = own.unflatten(0, (len(prompt), -1))
    copies = prompt[:, None].expand(-1, by_problem.shape[1], -1, -1)
    return torch.cat([copies, by_problem], dim=2).flatten(0, 1)
