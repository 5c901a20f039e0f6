"""Attention in which all pairs of a problem share one copy of the prompt, forward and back.

A pair's token attends to the prompt's keys and to the earlier tokens of its own pair, with one
softmax over both. Its product with the prompt's keys is one matrix product for all pairs of a
problem and all query heads of a key head, so a prompt key is never copied. Shapes of a group
(`layout.Group`), with H_kv key heads and G query heads to each:

    query  (H_kv, B, K, G, L_q, width)      prompt query          (H_kv, B, G, P, width)
    key    (H_kv, B, K, L, width)           prompt key and value  (H_kv, B, P, width)

Queries come scaled. Weights of the forward pass are kept, scores are not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from promptlimits.models.huggingface.decoder.tape import Tape


@dataclass(frozen=True, kw_only=True, eq=False)
class Masks:
    """What a group's queries do not see, as numbers added to scores: 0 or -inf.

    Attributes:
        own: (1 or B K, L_q, L) within a pair.
        prompt: (B K or 1, L_q, P) pair to prompt, None where all is seen.
        within: (P, P) prompt to prompt.
    """

    own: Tensor
    prompt: Tensor | None
    within: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Heads:
    """Queries, keys and values of a group, or the gradients in them.

    Attributes:
        query: (H_kv, B, K, G, L_q, width).
        key: (H_kv, B, K, L, width).
        value: Of the same shape.
        prompt_key: (H_kv, B, P, width).
        prompt_value: Of the same shape.
        prompt_query: (H_kv, B, G, P, width), None where nothing asks for the prompt's own rows.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    prompt_key: Tensor
    prompt_value: Tensor
    prompt_query: Tensor | None


def attend(heads: Heads, masks: Masks, tape: Tape) -> tuple[Tensor, Tensor | None]:
    """Outputs of the pairs' rows and of the prompt's rows, in the shapes of their queries."""
    query = heads.query
    kv_heads, batch, pairs, group, asked, width = query.shape
    prompt_tokens, longest = heads.prompt_key.shape[2], heads.key.shape[3]
    per_problem = query.reshape(kv_heads * batch, -1, width)
    per_pair = query.view(kv_heads * batch * pairs, -1, width)
    key, value = heads.key.flatten(0, 2), heads.value.flatten(0, 2)
    prompt_key, prompt_value = heads.prompt_key.flatten(0, 1), heads.prompt_value.flatten(0, 1)
    to_prompt = per_problem @ prompt_key.transpose(1, 2)
    if masks.prompt is not None:
        to_prompt.view(kv_heads, -1, group, asked, prompt_tokens).add_(masks.prompt[:, None])
    to_own = per_pair @ key.transpose(1, 2)
    to_own.view(kv_heads, -1, group, asked, longest).add_(masks.own[:, None])
    rows = query.numel() // width
    scores = torch.cat([to_prompt.view(rows, prompt_tokens), to_own.view(rows, longest)], dim=1)
    weights = _softmax(scores).to(query.dtype)
    from_prompt, from_own = _parts(
        weights, kv_heads * batch, kv_heads * batch * pairs, prompt_tokens
    )
    out = from_prompt @ prompt_value
    out.view(per_pair.shape).baddbmm_(from_own, value)
    tape.push(query, heads.key, heads.value, heads.prompt_key, heads.prompt_value, weights)
    prompt_out = None
    if heads.prompt_query is not None:
        prompt_out = _attend_within(heads.prompt_query, prompt_key, prompt_value, masks, tape)
    return out.view(query.shape), prompt_out


def attend_back(
    gradient: Tensor, prompt_gradient: Tensor | None, tape: Tape, *, own: bool
) -> Heads:
    """Gradients in queries, keys and values.

    Args:
        gradient: In the pairs' outputs.
        prompt_gradient: In the prompt's outputs, None where there were none.
        tape: As `attend` left it.
        own: Whether the pairs' queries, keys and values depend on the prompt; if not, their
            gradients are empty.

    Returns:
        The gradients.
    """
    within = None if prompt_gradient is None else tape.pop(2)
    query, key, value, prompt_key, prompt_value, weights = tape.pop(6)
    kv_heads, batch, pairs, _, _, width = query.shape
    problems, every_pair, prompt_tokens = (
        kv_heads * batch,
        kv_heads * batch * pairs,
        prompt_key.shape[2],
    )
    per_problem = gradient.reshape(problems, -1, width)
    per_pair = per_problem.view(every_pair, -1, width)
    from_prompt, from_own = _parts(weights, problems, every_pair, prompt_tokens)
    d_prompt_value = from_prompt.transpose(1, 2) @ per_problem
    d_weights = torch.cat(
        [
            (per_problem @ prompt_value.flatten(0, 1).transpose(1, 2)).view(
                len(weights), prompt_tokens
            ),
            (per_pair @ value.flatten(0, 2).transpose(1, 2)).view(len(weights), -1),
        ],
        dim=1,
    )
    d_scores = torch._softmax_backward_data(d_weights, weights, 1, weights.dtype)
    to_prompt, to_own = _parts(d_scores, problems, every_pair, prompt_tokens)
    d_prompt_key = to_prompt.transpose(1, 2) @ query.view(problems, -1, width)
    empty = query.new_empty(0)
    d_query = d_key = d_value = empty
    if own:
        d_query = to_prompt @ prompt_key.flatten(0, 1)
        d_query.view(per_pair.shape).baddbmm_(to_own, key.flatten(0, 2))
        d_query = d_query.view(query.shape)
        d_key = (to_own.transpose(1, 2) @ query.view(every_pair, -1, width)).view(key.shape)
        d_value = (from_own.transpose(1, 2) @ per_pair).view(value.shape)
    d_prompt_query = None
    if within is not None and prompt_gradient is not None:
        d_prompt_query = _within_back(
            prompt_gradient, within, prompt_key, prompt_value, d_prompt_key, d_prompt_value
        )
    return Heads(
        query=d_query,
        key=d_key,
        value=d_value,
        prompt_key=d_prompt_key.view(prompt_key.shape),
        prompt_value=d_prompt_value.view(prompt_value.shape),
        prompt_query=d_prompt_query,
    )


def _attend_within(query: Tensor, key: Tensor, value: Tensor, masks: Masks, tape: Tape) -> Tensor:
    """Causal attention of the prompt to itself."""
    rows = query.flatten(0, 1).flatten(1, 2)
    scores = rows @ key.transpose(1, 2)
    scores.view(len(rows), -1, *masks.within.shape).add_(masks.within)
    weights = _softmax(scores).to(query.dtype)
    tape.push(query, weights)
    return (weights @ value).view(query.shape)


def _within_back(
    gradient: Tensor,
    kept: list[Tensor],
    prompt_key: Tensor,
    prompt_value: Tensor,
    d_key: Tensor,
    d_value: Tensor,
) -> Tensor:
    """Gradient in the prompt's queries; those in its keys and values are added in place."""
    query, weights = kept
    rows, back = query.flatten(0, 1).flatten(1, 2), gradient.flatten(0, 1).flatten(1, 2)
    d_value.baddbmm_(weights.transpose(1, 2), back)
    d_weights = back @ prompt_value.flatten(0, 1).transpose(1, 2)
    d_scores = torch._softmax_backward_data(d_weights, weights, 2, weights.dtype)
    d_key.baddbmm_(d_scores.transpose(1, 2), rows)
    return (d_scores @ prompt_key.flatten(0, 1)).view(query.shape)


def _softmax(scores: Tensor) -> Tensor:
    """Over the last axis, in float32 at least."""
    return torch.softmax(scores, dim=-1, dtype=None if scores.itemsize >= 4 else torch.float32)


def _parts(weights: Tensor, problems: int, pairs: int, prompt_tokens: int) -> tuple[Tensor, Tensor]:
    """Weights (rows, P + L) on the prompt, per problem, and on the own pair, per pair."""
    on_prompt = weights[:, :prompt_tokens].unflatten(0, (problems, len(weights) // problems))
    on_own = weights[:, prompt_tokens:].contiguous()
    return on_prompt, on_own.view(pairs, -1, on_own.shape[1])
