"""Attention in which all pairs of a problem share one copy of the prompt, forward and back.

A pair's token attends to the prompt's keys and to the earlier tokens of its own pair, with one
softmax over both. Its product with the prompt's keys is one matrix product for all pairs of a
problem and all query heads of a key head, so a prompt key is never copied. Shapes of a group
(`layout.Group`), with H_kv key heads and G query heads to each:

    query           (H_kv, B, K, G, L_q, width)   prompt query          (H_kv, B, G, P, width)
    key with value  (H_kv, B, K, 2, L, width)     prompt's with value   (H_kv, B, 2, P, width)

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
    """Queries, keys and values of a group.

    Attributes:
        query: (H_kv, B, K, G, L_q, width).
        own: (H_kv, B, K, 2, L, width) keys and values of the pairs' tokens.
        prompt: (H_kv, B, 2, P, width) keys and values of the prompt.
        prompt_query: (H_kv, B, G, P, width), None where nothing asks for the prompt's own rows.
    """

    query: Tensor
    own: Tensor
    prompt: Tensor
    prompt_query: Tensor | None


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadGradients:
    """Gradients in what `Heads` holds, keys apart from values.

    Attributes:
        own: In the pairs' queries, keys and values, (H_kv, B, K, G, L_q, width) and (H_kv, B,
            K, 1, L, width) twice; None where they are fixed.
        prompt_key: (H_kv, B, P, width).
        prompt_value: Of the same shape.
        prompt_query: (H_kv, B, G, P, width) or None.
    """

    own: tuple[Tensor, Tensor, Tensor] | None
    prompt_key: Tensor
    prompt_value: Tensor
    prompt_query: Tensor | None


def attend(heads: Heads, masks: Masks, tape: Tape) -> tuple[Tensor, Tensor | None]:
    """Outputs of the pairs' rows and of the prompt's rows, in the shapes of their queries."""
    query, shape = heads.query, heads.query.shape
    kv_heads, problems, every_pair, width = _counts(query)
    per_problem, per_pair = query.view(problems, -1, width), query.view(every_pair, -1, width)
    key, value = _keys_and_values(heads.own, every_pair)
    prompt_key, prompt_value = _keys_and_values(heads.prompt, problems)
    prompt_tokens, longest = prompt_key.shape[1], key.shape[1]
    to_prompt = torch.bmm(per_problem, prompt_key.transpose(1, 2))
    if masks.prompt is not None:
        to_prompt.view(kv_heads, -1, *shape[3:5], prompt_tokens).add_(masks.prompt[:, None])
    to_own = torch.bmm(per_pair, key.transpose(1, 2))
    to_own.view(kv_heads, -1, *shape[3:5], longest).add_(masks.own[:, None])
    rows = query.numel() // width
    scores = torch.cat([to_prompt.view(rows, prompt_tokens), to_own.view(rows, longest)], dim=1)
    weights = _softmax(scores).to(query.dtype)
    on_prompt, on_own = _parts(weights, problems, every_pair, prompt_tokens)
    out = torch.bmm(on_prompt, prompt_value)
    out.view(per_pair.shape).baddbmm_(on_own, value)
    tape.push(query, heads.own, heads.prompt, weights)
    prompt_out = None
    if heads.prompt_query is not None:
        prompt_out = _attend_within(heads.prompt_query, prompt_key, prompt_value, masks, tape)
    return out.view(shape), prompt_out


def attend_back(
    gradient: Tensor, prompt_gradient: Tensor | None, tape: Tape, *, fixed: bool
) -> HeadGradients:
    """Gradients in queries, keys and values.

    Args:
        gradient: In the pairs' outputs.
        prompt_gradient: In the prompt's outputs, None where there were none.
        tape: As `attend` left it.
        fixed: Whether no prompt changes the pairs' queries, keys and values.

    Returns:
        The gradients.
    """
    within = None if prompt_gradient is None else tape.pop(2)
    query, own, prompt, weights = tape.pop(4)
    kv_heads, problems, every_pair, width = _counts(query)
    per_problem, per_pair = query.view(problems, -1, width), query.view(every_pair, -1, width)
    key, value = _keys_and_values(own, every_pair)
    prompt_key, prompt_value = _keys_and_values(prompt, problems)
    prompt_tokens, rows = prompt_key.shape[1], len(weights)
    back, pair_back = gradient.view(problems, -1, width), gradient.view(every_pair, -1, width)
    on_prompt, on_own = _parts(weights, problems, every_pair, prompt_tokens)
    d_prompt_value = torch.bmm(on_prompt.transpose(1, 2), back)
    d_on_prompt = torch.bmm(back, prompt_value.transpose(1, 2))
    d_on_own = torch.bmm(pair_back, value.transpose(1, 2))
    d_weights = torch.cat([d_on_prompt.view(rows, prompt_tokens), d_on_own.view(rows, -1)], dim=1)
    d_scores = torch._softmax_backward_data(d_weights, weights, 1, weights.dtype)
    to_prompt, to_own = _parts(d_scores, problems, every_pair, prompt_tokens)
    d_prompt_key = torch.bmm(to_prompt.transpose(1, 2), per_problem)
    d_own = None
    if not fixed:
        d_query = torch.bmm(to_prompt, prompt_key)
        d_query.view(per_pair.shape).baddbmm_(to_own, key)
        d_key = torch.bmm(to_own.transpose(1, 2), per_pair)
        d_value = torch.bmm(on_own.transpose(1, 2), pair_back)
        each = (*own.shape[:3], 1, *own.shape[4:])
        d_own = (d_query.view(query.shape), d_key.view(each), d_value.view(each))
    d_prompt_query = None
    if within is not None and prompt_gradient is not None:
        d_prompt_query = _within_back(
            prompt_gradient, within, prompt_key, prompt_value, d_prompt_key, d_prompt_value
        )
    each_prompt = (kv_heads, -1, prompt_tokens, width)
    return HeadGradients(
        own=d_own,
        prompt_key=d_prompt_key.view(each_prompt) if prompt_tokens else d_prompt_key,
        prompt_value=d_prompt_value.view(each_prompt) if prompt_tokens else d_prompt_value,
        prompt_query=d_prompt_query,
    )


def _counts(query: Tensor) -> tuple[int, int, int, int]:
    """H_kv, H_kv B, H_kv B K and the width of a head."""
    kv_heads, batch, pairs = query.shape[:3]
    return kv_heads, kv_heads * batch, kv_heads * batch * pairs, query.shape[-1]


def _keys_and_values(both: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Keys and values, each (count, rows, width), views of (..., 2, rows, width)."""
    key, value = both.view(count, 2, *both.shape[-2:]).unbind(1)
    return key, value


def _attend_within(query: Tensor, key: Tensor, value: Tensor, masks: Masks, tape: Tape) -> Tensor:
    """Causal attention of the prompt to itself."""
    rows = query.flatten(0, 1).flatten(1, 2)
    scores = torch.bmm(rows, key.transpose(1, 2))
    scores.view(len(rows), -1, *masks.within.shape).add_(masks.within)
    weights = _softmax(scores).to(query.dtype)
    tape.push(query, weights)
    return torch.bmm(weights, value).view(query.shape)


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
    d_weights = torch.bmm(back, prompt_value.transpose(1, 2))
    d_scores = torch._softmax_backward_data(d_weights, weights, 2, weights.dtype)
    d_key.baddbmm_(d_scores.transpose(1, 2), rows)
    return torch.bmm(d_scores, prompt_key).view(query.shape)


def _softmax(scores: Tensor) -> Tensor:
    """Over the last axis, in float32 at least."""
    return torch.softmax(scores, dim=-1, dtype=None if scores.itemsize >= 4 else torch.float32)


def _parts(weights: Tensor, problems: int, pairs: int, prompt_tokens: int) -> tuple[Tensor, Tensor]:
    """Weights (rows, P + L) on the prompt, per problem, and on the own pair, per pair."""
    on_prompt = weights[:, :prompt_tokens].unflatten(0, (problems, len(weights) // problems))
    on_own = weights[:, prompt_tokens:].contiguous()
    return on_prompt, on_own.view(pairs, -1, on_own.shape[1])
