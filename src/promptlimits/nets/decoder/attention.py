"""Attention in which all pairs of a problem share one copy of the prompt, forward and back.

A pair's token attends to the prompt's keys and to the earlier tokens of its own pair, with one
softmax over both. Its product with the prompt's keys is one matrix product for all pairs of a
problem and all query heads of a key head, so a prompt key is never copied. Shapes of a group
(`layout.Group`), with H_kv key heads and G query heads to each:

    query           (H_kv, B, K, G, L_q, width)   prompt query          (H_kv, B, 1, G, P, width)
    key with value  (H_kv, B, K, 2, L, width)     prompt's with value   (H_kv, B, 1, 2, P, width)

Queries come scaled. The softmax goes one of three ways (`way_of`), over queries (pairs, rows,
width), pairs of all problems and key heads, the rows of a group; keys and values of the prompt
(problems, P, width) and of the pairs (pairs, L, width).

Short pairs keep their weights: scores on the prompt and on the own pair stand side by side. Not
behind a long prompt where nothing goes back: there the kernel takes less time than the scores.

Of long ones torch's blocked kernel keeps none: it gives each part's output and the logarithm of its
sum of exponentials. With l_p and l_o these logarithms and l = log(e^l_p + e^l_o), the output is
e^(l_p - l) o_p + e^(l_o - l) o_o. The kernel's reverse pass forms weights as e^(score - l) and
needs of the rest of the row only its inner product with the gradient; so, given the joined
output and l, it gives each part its share of the joined gradient.

For pairs of a few tokens the kernel's overhead costs more than the scores: `WORTH_IT` was found
by measurement, 2 key heads, 2,048 rows (forward and backward together): 8 tokens a pair 0.7
times as fast as scores kept whole, 128 tokens 3 times.

That kernel is the CPU's. Elsewhere long pairs go through `fused`, which keeps no weights either.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from promptlimits.nets.decoder.fused import fuse, fuse_back
from promptlimits.nets.decoder.linear import SavedTensors

NARROW: Final = 16
"""Columns below which torch's softmax on a CPU leaves its fast path."""
LANES: Final = 8
"""Columns in a multiple of which it has no rest to do one by one."""
WORTH_IT: Final = 32
"""Tokens of a pair from which on no scores are kept."""
WORTH_IT_ONE_WAY: Final = 256
"""Tokens of a prompt from which on none are kept where nothing goes back, however short the pairs.

Measured on SmolLM2-135M, 246 pairs behind 1,840 tokens: 16.2 seconds of one core, 26.3 with scores
kept whole; behind 60 tokens both take as long."""

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

    @cached_property
    def both(self) -> Tensor:
        """(1 or B K, 1, L_q, P + L): what is not seen of the prompt and of the pair behind it."""
        prompt = self.prompt
        if prompt is None:
            prompt = self.own.new_zeros(1, 1, self.own.shape[2], len(self.within))
        several = max(len(prompt), len(self.own))
        return torch.cat([one.expand(several, -1, -1, -1) for one in (prompt, self.own)], dim=3)


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """What attention is given beside queries and the pairs' own keys and values."""

    prompt: KeyValue
    masks: Masks
    shape: torch.Size  # (H_kv, B, K, G, L_q, width)


class Way(Protocol):
    """How a group's attention is computed: forward, and back from what that kept."""

    kept: int  # tensors for the way back

    def forward(
        self, query: Tensor, own: KeyValue, given: Given, *, keeps: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Outputs of all queries, and `kept` tensors, or none of them where nothing `keeps`."""
        ...

    def backward(
        self, gradient: Tensor, kept: list[Tensor], given: Given, *, fixed: bool
    ) -> Gradients:
        """Gradients from that in the outputs, by what was kept, which may be overwritten.

        `fixed`: nothing is asked of the pairs' own heads.
        """
        ...


def way_of(device: torch.device, own_rows: int, *, hidden: bool) -> Way:
    """The way of pairs of so many tokens; `hidden`: whether prompt tokens are masked."""
    if own_rows < WORTH_IT or (hidden and device.type == "cpu"):
        return Whole()
    return Streamed() if device.type == "cpu" else Fused()


# --- scores kept whole --------------------------------------------------------------------


class Whole:
    """Scores kept whole."""

    kept = 4

    def forward(
        self, query: Tensor, own: KeyValue, given: Given, *, keeps: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Outputs, and the queries, own keys and values and weights."""
        (prompt_key, prompt_value), (key, value) = given.prompt, own
        masks, shape = given.masks, given.shape
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
        return out.baddbmm_(on_own, value), (query, key, value, weights) if keeps else ()

    def backward(
        self, gradient: Tensor, kept: list[Tensor], given: Given, *, fixed: bool
    ) -> Gradients:
        """From the weights, which are overwritten."""
        # Handed over: nothing holds on to the weights while the prompt's own rows go back.
        weights, value, key, query = (kept.pop() for _ in range(self.kept))
        prompt_key, prompt_value = given.prompt
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
    """Over the last axis of scores, which may be overwritten; torch works in float32 at least."""
    # In place where that is known to be safe: the CPU's kernels read all of a row before they
    # write any of it. Torch promises it nowhere.
    in_place = scores.device.type == "cpu"
    return torch.softmax(scores, dim=-1, out=scores if in_place else None)


def softmax_back(gradient: Tensor, weights: Tensor) -> Tensor:
    """Gradient in scores from that in their softmax, over the last axis; it may be overwritten."""
    axis, dtype = weights.dim() - 1, weights.dtype
    found: Tensor
    if weights.device.type != "cpu":
        found = torch._softmax_backward_data(gradient, weights, axis, dtype)
    else:
        found = torch._softmax_backward_data(gradient, weights, axis, dtype, grad_input=gradient)
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


class Streamed:
    """The blocked kernel, part by part."""

    kept = 5

    def forward(
        self, query: Tensor, own: KeyValue, given: Given, *, keeps: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Outputs; kept with queries, own keys and values, and logarithms of sums."""
        prompt = given.prompt
        out, log_sum = _forward(query, own, _mask_of_rows(given.masks.own, given.shape))
        if prompt[0].shape[1]:
            problems, width = prompt[0].shape[0], query.shape[-1]
            front, log_front = _forward(query.view(problems, -1, width), prompt, None)
            front, log_front = front.view(out.shape), log_front.view(log_sum.shape)
            joined = torch.logaddexp(log_sum, log_front)
            out.mul_((log_sum - joined).exp_()[..., None])
            out.addcmul_(front, (log_front - joined).exp_()[..., None])
            log_sum = joined
        return out, (query, *own, out, log_sum) if keeps else ()

    def backward(
        self, gradient: Tensor, kept: list[Tensor], given: Given, *, fixed: bool
    ) -> Gradients:
        """Each part's share of the gradient in what was joined."""
        query, key, value, out, log_sum = kept
        prompt, mask = given.prompt, _mask_of_rows(given.masks.own, given.shape)
        d_query, *d_own = _backward(gradient, query, (key, value), out, log_sum, mask)
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


# --- the fused kernels of any device --------------------------------------------------------


class Fused:
    """Prompt and pair as one sequence, and no scores."""

    kept = 4

    def forward(
        self, query: Tensor, own: KeyValue, given: Given, *, keeps: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Outputs, and what `fuse` keeps."""
        # What autograd keeps must be made outside of inference mode.
        with torch.inference_mode(mode=False):
            mask = given.masks.both.expand(-1, given.shape[3], -1, -1).flatten(1, 2)
        return fuse(query, given.prompt, own, mask, keeps=keeps)

    def backward(
        self, gradient: Tensor, kept: list[Tensor], given: Given, *, fixed: bool
    ) -> Gradients:
        """By autograd."""
        problems, prompt_tokens, _ = given.prompt[0].shape
        return fuse_back(gradient, kept, problems, prompt_tokens, fixed=fixed)


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
    longest = heads.own.shape[4]
    if not saved.keeps and prompt[0].shape[1] >= WORTH_IT_ONE_WAY:
        longest = max(longest, WORTH_IT)
    way = way_of(query.device, longest, hidden=masks.prompt is not None)
    given = Given(prompt=prompt, masks=masks, shape=shape)
    out, kept = way.forward(rows, own, given, keeps=saved.keeps)
    saved.save((*kept, *prompt))
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
    key, value = saved.take(2)
    prompt, shape = (key, value), gradient.shape
    given = Given(prompt=prompt, masks=masks, shape=shape)
    way = way_of(gradient.device, masks.own.shape[-1], hidden=masks.prompt is not None)
    back = gradient.view(shape[0] * shape[1] * shape[2], -1, shape[5])
    d_query, d_prompt, d_pair = way.backward(back, saved.take(way.kept), given, fixed=fixed)
    d_prompt_key, d_prompt_value = d_prompt
    d_prompt_query = None
    if within is not None and prompt_gradient is not None:
        d_prompt_query = _within_back(prompt_gradient, within, prompt, d_prompt)
    each_prompt = (*shape[:2], 1, 1, *prompt[0].shape[1:])
    d_own = None
    if not fixed and d_query is not None and d_pair is not None:
        each = (*shape[:3], 1, *d_pair[0].shape[1:])
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
