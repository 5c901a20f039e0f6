"""Attention over short pairs: scores on the prompt and on the own pair side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from promptlimits.nets.decoder.tape import Tape

NARROW: Final = 16
"""Columns below which torch's softmax on a CPU leaves its fast path."""
LANES: Final = 8
"""Columns in a multiple of which it has no rest to do one by one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Masks:
    """What a group's queries do not see, as numbers added to scores: 0 or -inf.

    Attributes:
        own: (1 or B K, 1, L_q, L) within a pair, for every query head.
        prompt: (B K or 1, 1, L_q, P) pair to prompt, None where all is seen.
        within: (P, P) prompt to prompt.
    """

    own: Tensor
    prompt: Tensor | None
    within: Tensor


def score(
    query: Tensor,
    prompt: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    masks: Masks,
    shape: torch.Size,
    tape: Tape,
) -> Tensor:
    """Outputs (pairs, rows, width) of all queries.

    Args:
        query: (pairs, rows, width), pairs of all problems and key heads, rows of a group.
        prompt: Keys and values (problems, P, width).
        own: Keys and values (pairs, L, width).
        masks: What is not seen.
        shape: (H_kv, B, K, G, L_q, width) of the queries.
        tape: The weights are put here.

    Returns:
        The outputs.
    """
    (prompt_key, prompt_value), (key, value) = prompt, own
    problems, prompt_tokens, width = prompt_key.shape
    pairs, rows, _ = query.shape
    to_prompt = torch.bmm(query.view(problems, -1, width), prompt_key.transpose(1, 2))
    if masks.prompt is not None:
        to_prompt.view(shape[0], -1, *shape[3:5], prompt_tokens).add_(masks.prompt)
    to_own = torch.bmm(query, key.transpose(1, 2))
    to_own.view(shape[0], -1, *shape[3:5], key.shape[1]).add_(masks.own)
    both = [to_prompt.view(pairs, rows, prompt_tokens), to_own]
    weights = softmax_of(_side_by_side(both, float("-inf")))
    on_prompt, on_own = _parts(weights, problems, prompt_tokens, key.shape[1])
    out = torch.bmm(on_prompt, prompt_value).view(query.shape)
    tape.push(weights)
    return out.baddbmm_(on_own, value)


def score_back(
    gradient: Tensor,
    query: Tensor,
    prompt: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    tape: Tape,
    *,
    fixed: bool,
) -> tuple[Tensor | None, tuple[Tensor, Tensor], tuple[Tensor, Tensor] | None]:
    """Gradients in the queries, the prompt's keys and values, and the pairs' own."""
    (prompt_key, prompt_value), (key, value) = prompt, own
    problems, prompt_tokens, width = prompt_key.shape
    (weights,) = tape.pop(1)
    longest = key.shape[1]
    by_problem, back = query.view(problems, -1, width), gradient.view(problems, -1, width)
    on_prompt, on_own = _parts(weights, problems, prompt_tokens, longest)
    d_prompt_value = torch.bmm(on_prompt.transpose(1, 2), back)
    d_on_prompt = torch.bmm(back, prompt_value.transpose(1, 2))
    d_on_own = torch.bmm(gradient, value.transpose(1, 2))
    d_both = [d_on_prompt.view(*d_on_own.shape[:2], prompt_tokens), d_on_own]
    d_weights = _side_by_side(d_both, 0.0)
    d_scores = softmax_back(d_weights, weights)
    to_prompt, to_own = _parts(d_scores, problems, prompt_tokens, longest)
    d_prompt = torch.bmm(to_prompt.transpose(1, 2), by_problem), d_prompt_value
    if fixed:
        return None, d_prompt, None
    d_query = torch.bmm(to_prompt, prompt_key).view(query.shape).baddbmm_(to_own, key)
    d_key = torch.bmm(to_own.transpose(1, 2), query)
    return d_query, d_prompt, (d_key, torch.bmm(on_own.transpose(1, 2), gradient))


def softmax_of(scores: Tensor) -> Tensor:
    """Over the last axis of scores, which are overwritten; torch works in float32 at least."""
    # In place: a row's numbers are read before any of them is written.
    return torch.softmax(scores, dim=-1, out=scores)


def softmax_back(gradient: Tensor, weights: Tensor) -> Tensor:
    """Gradient in scores from that in their softmax over the last axis, which is overwritten."""
    found: Tensor = torch._softmax_backward_data(
        gradient, weights, weights.dim() - 1, weights.dtype, grad_input=gradient
    )
    return found


def _side_by_side(parts: list[Tensor], filler: float) -> Tensor:
    """Columns joined, and filled up to what the softmax of a CPU has a fast path for.

    Rows of 15 took 8 times as long as rows of 16, forward and back, and rows of 71 a sixth more
    than rows of 72.
    """
    columns = sum(part.shape[-1] for part in parts)
    missing = max(NARROW, -(-columns // LANES) * LANES) - columns
    if missing > 0 and parts[0].device.type == "cpu":
        parts = [*parts, parts[0].new_full((*parts[0].shape[:-1], missing), filler)]
    return torch.cat(parts, dim=-1)


def _parts(
    weights: Tensor, problems: int, prompt_tokens: int, longest: int
) -> tuple[Tensor, Tensor]:
    """Weights on the prompt, per problem, and on the own pair, per pair."""
    pairs, rows, columns = weights.shape
    filler = columns - prompt_tokens - longest
    on_prompt, on_own, _ = weights.split_with_sizes([prompt_tokens, longest, filler], dim=2)
    return on_prompt.view(problems, pairs // problems * rows, prompt_tokens), on_own
