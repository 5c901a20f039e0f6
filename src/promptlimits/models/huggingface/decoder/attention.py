"""Attention in which all pairs of a problem share one copy of the prompt, forward and back.

A pair's token attends to the prompt's keys and to the earlier tokens of its own pair, with one
softmax over both. Its product with the prompt's keys is one matrix product for all pairs of a
problem and all query heads of a key head, so a prompt key is never copied. Shapes of a group
(`layout.Group`), with H_kv key heads and G query heads to each:

    query           (H_kv, B, K, G, L_q, width)   prompt query          (H_kv, B, G, P, width)
    key with value  (H_kv, B, K, 2, L, width)     prompt's with value   (H_kv, B, 2, P, width)

Queries come scaled. Short pairs keep their weights (`scores`), long ones not even these
(`streamed`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from promptlimits.models.huggingface.decoder.scores import Masks, score, score_back, softmax_of
from promptlimits.models.huggingface.decoder.streamed import is_streamed, stream, stream_back
from promptlimits.models.huggingface.decoder.tape import Tape


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
    query = heads.query
    _, problems, every_pair, width = _counts(query)
    own, prompt = _keys_and_values(heads.own, every_pair), _keys_and_values(heads.prompt, problems)
    tape.push(query, heads.own, heads.prompt)
    rows = query.view(every_pair, -1, width)
    if is_streamed(query, heads.own.shape[4], hidden=masks.prompt is not None):
        out = stream(rows, prompt, own, _mask_of_rows(masks.own, query), tape)
    else:
        out = score(rows, prompt, own, masks, query.shape, tape)
    prompt_out = None
    if heads.prompt_query is not None:
        prompt_out = _attend_within(heads.prompt_query, *prompt, masks, tape)
    return out.view(query.shape), prompt_out


def attend_back(
    gradient: Tensor, prompt_gradient: Tensor | None, masks: Masks, tape: Tape, *, fixed: bool
) -> HeadGradients:
    """Gradients in queries, keys and values.

    Args:
        gradient: In the pairs' outputs.
        prompt_gradient: In the prompt's outputs, None where there were none.
        masks: As `attend` was given them.
        tape: As `attend` left it.
        fixed: Whether no prompt changes the pairs' queries, keys and values.

    Returns:
        The gradients.
    """
    within = None if prompt_gradient is None else tape.pop(2)
    # What the pairs' attention kept lies above the heads: two tensors when streamed, else one.
    streamed = is_streamed(gradient, masks.own.shape[-1], hidden=masks.prompt is not None)
    kept = Tape(tape.pop(2 if streamed else 1))
    query, both, prompt_both = tape.pop(3)
    _, problems, every_pair, width = _counts(query)
    own, prompt = _keys_and_values(both, every_pair), _keys_and_values(prompt_both, problems)
    rows, back = query.view(every_pair, -1, width), gradient.view(every_pair, -1, width)
    d_query: Tensor | None
    d_pair: tuple[Tensor, Tensor] | None
    if streamed:
        mask = _mask_of_rows(masks.own, query)
        d_query, d_prompt, d_pair = stream_back(back, rows, prompt, own, mask, kept)
    else:
        d_query, d_prompt, d_pair = score_back(back, rows, prompt, own, kept, fixed=fixed)
    d_prompt_key, d_prompt_value = d_prompt
    d_prompt_query = None
    if within is not None and prompt_gradient is not None:
        d_prompt_query = _within_back(
            prompt_gradient, within, *prompt, d_prompt_key, d_prompt_value
        )
    each = (*both.shape[:3], 1, *both.shape[4:])
    each_prompt = (*prompt_both.shape[:2], *prompt_both.shape[3:])
    d_own = None
    if not fixed and d_query is not None and d_pair is not None:
        d_own = (d_query.view(query.shape), d_pair[0].view(each), d_pair[1].view(each))
    return HeadGradients(
        own=d_own,
        prompt_key=d_prompt_key.view(each_prompt),
        prompt_value=d_prompt_value.view(each_prompt),
        prompt_query=d_prompt_query,
    )


def _mask_of_rows(mask: Tensor, query: Tensor) -> Tensor:
    """(pairs or 1, G L_q, L) from (pairs of one key head or 1, L_q, L)."""
    kv_heads, group = query.shape[0], query.shape[3]
    rows = mask.repeat(1, group, 1)
    return rows if len(rows) == 1 else rows.repeat(kv_heads, 1, 1)


def _counts(query: Tensor) -> tuple[int, int, int, int]:
    """H_kv, H_kv B, H_kv B K and the width of a head."""
    kv_heads, batch, pairs = query.shape[:3]
    return kv_heads, kv_heads * batch, kv_heads * batch * pairs, query.shape[-1]


def _keys_and_values(both: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Keys and values, each (count, rows, width), views of (..., 2, rows, width)."""
    key, value = both.view(count, 2, *both.shape[-2:]).unbind(1)
    return key, value


def _attend_within(query: Tensor, key: Tensor, value: Tensor, masks: Masks, tape: Tape) -> Tensor:
    """Causal attention of the prompt to itself; no scores are formed where none are kept."""
    if not tape.keeps:
        each = query.flatten(0, 1)
        keys, values = key[:, None].expand_as(each), value[:, None].expand_as(each)
        seen = masks.within
        return scaled_dot_product_attention(each, keys, values, seen, scale=1.0).view(query.shape)
    rows = query.flatten(0, 1).flatten(1, 2)
    scores = torch.bmm(rows, key.transpose(1, 2))
    scores.view(len(rows), -1, *masks.within.shape).add_(masks.within)
    weights = softmax_of(scores).to(query.dtype)
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
