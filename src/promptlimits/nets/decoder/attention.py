"""Attention in which all pairs of a problem share one copy of the prompt, forward and back.

A pair's token attends to the prompt's keys and to the earlier tokens of its own pair, with one
softmax over both. Its product with the prompt's keys is one matrix product for all pairs of a
problem and all query heads of a key head, so a prompt key is never copied. Shapes of a group
(`layout.Group`), with H_kv key heads and G query heads to each:

    query           (H_kv, B, K, G, L_q, width)   prompt query          (H_kv, B, 1, G, P, width)
    key with value  (H_kv, B, K, 2, L, width)     prompt's with value   (H_kv, B, 1, 2, P, width)

Queries come scaled. Short pairs keep their weights, long ones not even these (`softmax`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from promptlimits.nets.decoder.pointwise import SavedTensors
from promptlimits.nets.decoder.softmax import (
    KeyValue,
    Masks,
    is_streamed,
    score,
    score_back,
    softmax_back,
    softmax_of,
    stream,
    stream_back,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Heads:
    """Queries, keys and values of a group, in the shapes above."""

    query: Tensor
    own: Tensor  # keys and values of the pairs' tokens
    prompt: Tensor  # keys and values of the prompt
    prompt_query: Tensor | None  # None where nothing asks for the prompt's own rows


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadGradients:
    """Gradients in what `Heads` holds, keys apart from values: 1 in place of their 2."""

    own: tuple[Tensor, Tensor, Tensor] | None  # in the pairs' queries, keys, values if not fixed
    prompt_key: Tensor
    prompt_value: Tensor
    prompt_query: Tensor | None


def attend(heads: Heads, masks: Masks, saved: SavedTensors) -> tuple[Tensor, Tensor | None]:
    """Outputs of the pairs' rows and of the prompt's rows, in the shapes of their queries."""
    query, shape = heads.query, heads.query.shape
    problems = shape[0] * shape[1]
    rows = query.view(problems * shape[2], -1, shape[5])
    own, prompt = _keys_and_values(heads.own, len(rows)), _keys_and_values(heads.prompt, problems)
    if is_streamed(query, heads.own.shape[4], hidden=masks.prompt is not None):
        out, log_sum = stream(rows, prompt, own, _mask_of_rows(masks.own, shape))
        saved.save((rows, *own, *prompt, out, log_sum))
    else:
        out, weights = score(rows, prompt, own, masks, shape)
        saved.save((rows, *own, *prompt, weights))
    prompt_out = None
    if heads.prompt_query is not None:
        prompt_out = _attend_within(heads.prompt_query, *prompt, masks, saved)
    return out.view(shape), prompt_out


def attend_back(
    gradient: Tensor,
    prompt_gradient: Tensor | None,
    masks: Masks,
    saved: SavedTensors,
    *,
    fixed: bool,
) -> HeadGradients:
    """Gradients in queries, keys and values."""
    within = None if prompt_gradient is None else saved.take(2)
    streamed = is_streamed(gradient, masks.own.shape[-1], hidden=masks.prompt is not None)
    kept = saved.take(2 if streamed else 1)
    rows, *both = saved.take(5)
    own, prompt = (both[0], both[1]), (both[2], both[3])
    shape, back = gradient.shape, gradient.view(rows.shape)
    if streamed:
        mask = _mask_of_rows(masks.own, shape)
        d_query, d_prompt, d_pair = stream_back(back, rows, prompt, own, mask, *kept)
    else:
        # Handed over: nothing holds on to the weights while the prompt's own rows go back.
        d_query, d_prompt, d_pair = score_back(back, rows, prompt, own, kept.pop(), fixed=fixed)
    d_prompt_key, d_prompt_value = d_prompt
    d_prompt_query = None
    if within is not None and prompt_gradient is not None:
        d_prompt_query = _within_back(prompt_gradient, within, prompt, d_prompt)
    each_prompt = (*shape[:2], 1, 1, *prompt[0].shape[1:])
    d_own = None
    if not fixed and d_query is not None and d_pair is not None:
        each = (*shape[:3], 1, *own[0].shape[1:])
        d_own = (d_query.view(shape), d_pair[0].view(each), d_pair[1].view(each))
    return HeadGradients(
        own=d_own,
        prompt_key=d_prompt_key.view(each_prompt),
        prompt_value=d_prompt_value.view(each_prompt),
        prompt_query=d_prompt_query,
    )


def _mask_of_rows(mask: Tensor, shape: torch.Size) -> Tensor:
    """(pairs or 1, G L_q, L) from (pairs of one key head or 1, 1, L_q, L)."""
    rows = mask.expand(-1, shape[3], -1, -1).flatten(1, 2)
    return rows if len(rows) == 1 else rows.repeat(shape[0], 1, 1)


def _keys_and_values(both: Tensor, count: int) -> KeyValue:
    """Keys and values, each (count, rows, width), views of (..., 2, rows, width)."""
    key, value = both.view(count, 2, *both.shape[-2:]).unbind(1)
    return key, value


def _attend_within(
    query: Tensor, key: Tensor, value: Tensor, masks: Masks, saved: SavedTensors
) -> Tensor:
    """Causal attention of the prompt to itself; no scores are formed where none are kept."""
    if not saved.keeps:
        each = query.flatten(0, 2)
        keys, values = key[:, None].expand_as(each), value[:, None].expand_as(each)
        seen = masks.within
        return scaled_dot_product_attention(each, keys, values, seen, scale=1.0).view(query.shape)
    prompt_tokens, width = key.shape[1:]
    rows = query.view(-1, query.shape[3] * prompt_tokens, width)
    scores = torch.bmm(rows, key.transpose(1, 2))
    scores.view(-1, prompt_tokens, prompt_tokens).add_(masks.within)
    weights = softmax_of(scores)
    saved.save((rows, weights))
    return torch.bmm(weights, value).view(query.shape)


def _within_back(
    gradient: Tensor, kept: list[Tensor], prompt: KeyValue, d_prompt: KeyValue
) -> Tensor:
    """Gradient in the prompt's queries; those in its keys and values are added in place."""
    rows, weights = kept
    back = gradient.view(rows.shape)
    d_prompt[1].baddbmm_(weights.transpose(1, 2), back)
    d_scores = softmax_back(torch.bmm(back, prompt[1].transpose(1, 2)), weights)
    d_prompt[0].baddbmm_(d_scores.transpose(1, 2), rows)
    return torch.bmm(d_scores, prompt[0]).view(gradient.shape)
