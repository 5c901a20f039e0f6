"""Attention in which all pairs of a batch share one copy of the prompt.

One sequence holds the prompt once and every pair after it. A pair's token attends to the
prompt's keys and to the earlier tokens of its own pair, with one softmax over both, and its
position restarts after the prompt. This computes what K separate sequences
[prompt, pair] would, in value and in gradient, while the prompt runs once instead of K times.

Only attention sees pairs as separate: the linear layers, where the time goes, run on the
packed tokens, so pairs of unequal length cost no padding there. In attention a pair's own
part is a (K, L) rectangle filled up at the end; a causal mask keeps real tokens from the
filler, and the filler's own outputs are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from promptlimits.nets.decoder.plan import visible
from promptlimits.nets.protocol import PackedPairs, owners_and_places

ATTENTION_NAME = "promptlimits_shared_prefix"


@dataclass(frozen=True, kw_only=True, eq=False)
class PrefixLayout:
    """Where each token of the sequence [prompt | pair 1 | ... | pair K] belongs."""

    prompt_tokens: int  # P
    num_pairs: int  # K
    longest: int  # L
    to_rectangle: Tensor  # (K L,) index into the T packed tokens; filler slots point at token 0
    to_packed: Tensor  # (T,) index into the K L slots
    slot: Tensor  # (T,) place of each token within its own pair
    positions: Tensor  # (P + T,) position ids, restarting after the prompt for every pair

    @classmethod
    def of(cls, pairs: PackedPairs, prompt_tokens: int) -> PrefixLayout:
        """Lay out `pairs` behind a prompt of `prompt_tokens` tokens."""
        lengths, device = pairs.lengths, pairs.lengths.device
        count, longest = pairs.num_pairs, int(lengths.max())
        owner, slot = owners_and_places(lengths)
        to_packed = owner * longest + slot
        to_rectangle = torch.zeros(count * longest, dtype=torch.long, device=device)
        to_rectangle[to_packed] = torch.arange(to_packed.numel(), device=device)
        prompt_positions = torch.arange(prompt_tokens, device=device)
        return cls(
            prompt_tokens=prompt_tokens,
            num_pairs=count,
            longest=longest,
            to_rectangle=to_rectangle,
            to_packed=to_packed,
            slot=slot,
            positions=torch.cat([prompt_positions, prompt_tokens + slot]),
        )


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    shared_prefix: PrefixLayout,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention over the sequence that `shared_prefix` lays out, which is the mask as well.

    From queries (B, H, P + T, head), keys and values (B, H_kv, P + T, head), H a multiple of H_kv,
    to outputs (B, P + T, H, head), and None in place of the weights: transformers' own interface.
    """
    batch, heads, _total, head_dim = query.shape
    layout, scale = shared_prefix, head_dim**-0.5 if scaling is None else scaling
    kv_heads, split = key.shape[1], layout.prompt_tokens
    grouped = (query * scale).view(batch, kv_heads, heads // kv_heads, -1, head_dim)
    # The group axis is not merged into the keys, so a key is stored once for its whole group.
    prompt_out = _prompt_rows(
        grouped[..., :split, :], key[:, :, :split], value[:, :, :split], sliding_window, softcap
    )
    pair_out = _pair_rows(grouped[..., split:, :], key, value, layout, sliding_window, softcap)
    merged = torch.cat([prompt_out, pair_out], dim=3).flatten(1, 2)
    return merged.transpose(1, 2).contiguous(), None


def _prompt_rows(
    query: Tensor, key: Tensor, value: Tensor, window: int | None, softcap: float | None
) -> Tensor:
    """Causal attention of the prompt to itself: (B, H_kv, G, P, head)."""
    place = torch.arange(key.shape[2], device=key.device)
    distance = place[:, None] - place[None, :]
    scores = _capped(query @ key.unsqueeze(2).transpose(-1, -2), softcap)
    scores = scores.masked_fill(~visible(distance, window), float("-inf"))
    return scores.softmax(dim=-1) @ value.unsqueeze(2)


def _pair_rows(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: PrefixLayout,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Attention of the pairs' tokens to [prompt | own pair]: (B, H_kv, G, T, head)."""
    split, longest = layout.prompt_tokens, layout.longest
    prompt_key, prompt_value = key[:, :, :split], value[:, :, :split]
    own_key = _rectangle(key[:, :, split:], layout)
    own_value = _rectangle(value[:, :, split:], layout)
    own_scores = _rectangle(query, layout) @ own_key.unsqueeze(2).transpose(-1, -2)
    own_scores = _capped(_packed(own_scores, layout), softcap)
    prompt_scores = _capped(_grouped_matmul(query, prompt_key.transpose(-1, -2)), softcap)
    place = torch.arange(max(split, longest), device=key.device)
    own_seen = visible(layout.slot[:, None] - place[None, :longest], window)
    prompt_seen = visible(split + layout.slot[:, None] - place[None, :split], window)
    scores = torch.cat([prompt_scores, own_scores], dim=-1)
    seen = torch.cat([prompt_seen, own_seen], dim=-1)
    weights = scores.masked_fill(~seen, float("-inf")).softmax(dim=-1)
    from_own = _rectangle(weights[..., split:], layout) @ own_value.unsqueeze(2)
    return _grouped_matmul(weights[..., :split], prompt_value) + _packed(from_own, layout)


def _grouped_matmul(left: Tensor, right: Tensor) -> Tensor:
    """(B, H_kv, G, T, a) times (B, H_kv, a, b), the group folded into the rows."""
    product: Tensor = (left.flatten(2, 3) @ right).unflatten(2, left.shape[2:4])
    return product


def _capped(scores: Tensor, softcap: float | None) -> Tensor:
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def _rectangle(packed: Tensor, layout: PrefixLayout) -> Tensor:
    """(..., T, a) to (..., K, L, a)."""
    rows = packed.index_select(-2, layout.to_rectangle)
    rectangle: Tensor = rows.unflatten(-2, (layout.num_pairs, layout.longest))
    return rectangle


def _packed(rectangle: Tensor, layout: PrefixLayout) -> Tensor:
    """(..., K, L, a) to (..., T, a)."""
    return rectangle.flatten(-3, -2).index_select(-2, layout.to_packed)
