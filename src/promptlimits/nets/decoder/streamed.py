"""Attention over long pairs on a CPU without keeping scores: torch's own blocked kernel.

A softmax over [prompt | own pair] is put together from one over each part: with l_p and l_o the
logarithms of the parts' sums of exponentials and l = log(e^l_p + e^l_o), the output is
e^(l_p - l) o_p + e^(l_o - l) o_o. The kernel's reverse pass forms weights as e^(score - l) and
needs of the rest of the row only its inner product with the gradient; so, given the joined
output and l, it gives each part its share of the joined gradient.

For pairs of a few tokens the kernel's overhead costs more than the scores: `WORTH_IT` was found
by measurement, 2 key heads, 2,048 rows (forward and backward together): 8 tokens a pair 0.7
times as fast as scores kept whole, 128 tokens 3 times.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from promptlimits.nets.decoder.tape import Tape

WORTH_IT: Final = 32
"""Tokens of a pair from which on this is used."""


def is_streamed(beside: Tensor, own_rows: int, *, hidden: bool) -> bool:
    """Whether a group's attention goes this way."""
    return beside.device.type == "cpu" and own_rows >= WORTH_IT and not hidden


def stream(
    query: Tensor,
    prompt: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    mask: Tensor,
    tape: Tape,
) -> Tensor:
    """Outputs (pairs, rows, width) of all queries."""
    out, log_sum = _forward(query, own, mask)
    if prompt[0].shape[1]:
        problems, width = prompt[0].shape[0], query.shape[-1]
        front, log_front = _forward(query.view(problems, -1, width), prompt, None)
        front, log_front = front.view(out.shape), log_front.view(log_sum.shape)
        joined = torch.logaddexp(log_sum, log_front)
        out.mul_((log_sum - joined).exp_()[..., None])
        out.addcmul_(front, (log_front - joined).exp_()[..., None])
        log_sum = joined
    tape.push(out, log_sum)
    return out


def stream_back(
    gradient: Tensor,
    query: Tensor,
    prompt: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    mask: Tensor,
    tape: Tape,
) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Gradients in the queries, the prompt's keys and values, and the pairs' own."""
    out, log_sum = tape.pop(2)
    d_query, *d_own = _backward(gradient, query, own, out, log_sum, mask)
    if not prompt[0].shape[1]:
        nothing = torch.zeros_like(prompt[0])
        return d_query, (nothing, nothing), (d_own[0], d_own[1])
    rows = (prompt[0].shape[0], -1, query.shape[-1])
    d_front, *d_prompt = _backward(
        gradient.view(rows),
        query.view(rows),
        prompt,
        out.view(rows),
        log_sum.view(rows[:2]),
        None,
    )
    d_query.add_(d_front.view(query.shape))
    return d_query, (d_prompt[0], d_prompt[1]), (d_own[0], d_own[1])


def _forward(
    query: Tensor, keys_and_values: tuple[Tensor, Tensor], mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    key, value = keys_and_values
    out, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query[:, None],
        key[:, None],
        value[:, None],
        0.0,
        False,
        attn_mask=None if mask is None else mask[:, None],
        scale=1.0,
    )
    return out[:, 0].contiguous(), log_sum[:, 0].contiguous()


def _backward(
    gradient: Tensor,
    query: Tensor,
    keys_and_values: tuple[Tensor, Tensor],
    out: Tensor,
    log_sum: Tensor,
    mask: Tensor | None,
) -> list[Tensor]:
    key, value = keys_and_values
    found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        gradient[:, None],
        query[:, None],
        key[:, None],
        value[:, None],
        out[:, None],
        log_sum[:, None],
        0.0,
        False,
        attn_mask=None if mask is None else mask[:, None],
        scale=1.0,
    )
    return [one[:, 0] for one in found]
