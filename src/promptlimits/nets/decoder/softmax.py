"""One softmax over [prompt | own pair], two ways: scores kept whole, or torch's blocked kernel.

Shapes: queries (pairs, rows, width), pairs of all problems and key heads, the rows of a group;
keys and values of the prompt (problems, P, width) and of the pairs (pairs, L, width).

Scores on the prompt and on the own pair stand side by side, so that their weights are kept.

The blocked kernel keeps none: it gives each part's output and the logarithm of its sum of
exponentials. With l_p and l_o these logarithms and l = log(e^l_p + e^l_o), the output is
e^(l_p - l) o_p + e^(l_o - l) o_o. The kernel's reverse pass forms weights as e^(score - l) and
needs of the rest of the row only its inner product with the gradient; so, given the joined
output and l, it gives each part its share of the joined gradient.

For pairs of a few tokens the kernel's overhead costs more than the scores: `WORTH_IT` was found
by measurement, 2 key heads, 2,048 rows (forward and backward together): 8 tokens a pair 0.7
times as fast as scores kept whole, 128 tokens 3 times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import torch
from torch import Tensor

NARROW: Final = 16
"""Columns below which torch's softmax on a CPU leaves its fast path."""
LANES: Final = 8
"""Columns in a multiple of which it has no rest to do one by one."""
WORTH_IT: Final = 32
"""Tokens of a pair from which on the blocked kernel is used."""

KeyValue: TypeAlias = tuple[Tensor, Tensor]
"""Keys and values."""
Gradients: TypeAlias = tuple[Tensor | None, KeyValue, KeyValue | None]
"""In the queries, the prompt's keys and values, and the pairs' own: None where these are fixed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Masks:
    """What a group's queries do not see, as numbers added to scores: 0 or -inf."""

    own: Tensor  # (1 or B K, 1, L_q, L) within a pair, for every query head
    prompt: Tensor | None  # (B K or 1, 1, L_q, P) pair to prompt, None where all is seen
    within: Tensor  # (P, P) prompt to prompt


# --- scores kept whole --------------------------------------------------------------------


def score(
    query: Tensor, prompt: KeyValue, own: KeyValue, masks: Masks, shape: torch.Size
) -> tuple[Tensor, Tensor]:
    """Outputs of all queries, given as `shape` (H_kv, B, K, G, L_q, width), and their weights."""
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
    return out.baddbmm_(on_own, value), weights


def score_back(
    gradient: Tensor,
    query: Tensor,
    prompt: KeyValue,
    own: KeyValue,
    weights: Tensor,
    *,
    fixed: bool,
) -> Gradients:
    """The way back from `score`; `weights` are overwritten."""
    (prompt_key, prompt_value), (key, value) = prompt, own
    problems, prompt_tokens, width = prompt_key.shape
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


# --- torch's blocked kernel ---------------------------------------------------------------


def is_streamed(beside: Tensor, own_rows: int, *, hidden: bool) -> bool:
    """Whether a group's attention goes this way; `hidden`: whether prompt tokens are masked."""
    return beside.device.type == "cpu" and own_rows >= WORTH_IT and not hidden


def stream(query: Tensor, prompt: KeyValue, own: KeyValue, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs of all queries, and the logarithms of their sums of exponentials."""
    out, log_sum = _forward(query, own, mask)
    if prompt[0].shape[1]:
        problems, width = prompt[0].shape[0], query.shape[-1]
        front, log_front = _forward(query.view(problems, -1, width), prompt, None)
        front, log_front = front.view(out.shape), log_front.view(log_sum.shape)
        joined = torch.logaddexp(log_sum, log_front)
        out.mul_((log_sum - joined).exp_()[..., None])
        out.addcmul_(front, (log_front - joined).exp_()[..., None])
        log_sum = joined
    return out, log_sum


def stream_back(
    gradient: Tensor,
    query: Tensor,
    prompt: KeyValue,
    own: KeyValue,
    mask: Tensor,
    out: Tensor,
    log_sum: Tensor,
) -> Gradients:
    """The way back from `stream`."""
    d_query, *d_own = _backward(gradient, query, own, out, log_sum, mask)
    if not prompt[0].shape[1]:
        nothing = torch.zeros_like(prompt[0])
        return d_query, (nothing, nothing), (d_own[0], d_own[1])
    rows = (prompt[0].shape[0], -1, query.shape[-1])
    d_front, *d_prompt = _backward(
        gradient.view(rows), query.view(rows), prompt, out.view(rows), log_sum.view(rows[:2]), None
    )
    d_query.add_(d_front.view(query.shape))
    return d_query, (d_prompt[0], d_prompt[1]), (d_own[0], d_own[1])


def _forward(query: Tensor, own: KeyValue, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    out, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *(tensor[:, None] for tensor in (query, *own)),
        dropout_p=0.0,
        is_causal=False,
        attn_mask=None if mask is None else mask[:, None],
        scale=1.0,
    )
    return out[:, 0].contiguous(), log_sum[:, 0].contiguous()


def _backward(
    gradient: Tensor,
    query: Tensor,
    own: KeyValue,
    out: Tensor,
    log_sum: Tensor,
    mask: Tensor | None,
) -> list[Tensor]:
    found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        *(tensor[:, None] for tensor in (gradient, query, *own, out, log_sum)),
        dropout_p=0.0,
        is_causal=False,
        attn_mask=None if mask is None else mask[:, None],
        scale=1.0,
    )
    return [one[:, 0] for one in found]
