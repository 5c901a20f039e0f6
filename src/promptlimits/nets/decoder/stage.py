"""What a block is told of its batch: turns and masks of each group, what is fixed, what is asked.

At the first block the pairs' rows are embeddings, which no prompt changes: their queries,
keys and values are computed once. At the last block only read rows are asked for. Behind a
prefix there are no prompt rows: each block is given its keys and values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from promptlimits.nets.decoder.layout import Group, Layout
from promptlimits.nets.decoder.rotary import Turn
from promptlimits.nets.decoder.scores import Masks

Kind: TypeAlias = tuple[str | None, float, int | None]
"""Rotary embedding, factor on the scores and window: what decides turns and masks."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupTables:
    """Turns and masks of a group's rows in one kind of attention layer.

    Attributes:
        token: Turn of the pairs' keys and values, side by side; values are not turned.
        token_key: Turn of their keys alone.
        token_query: Turn of their queries, with the factor on the scores.
        read_query: Turn of the read tokens' queries.
        prompt: Turn of the prompt's keys and values.
        prompt_key: Turn of its keys alone.
        prompt_query: Turn of its queries.
        token_masks: Where all tokens ask.
        read_masks: Where read tokens ask.
    """

    token: Turn
    token_key: Turn
    token_query: Turn
    read_query: Turn
    prompt: Turn
    prompt_key: Turn
    prompt_query: Turn
    token_masks: Masks
    read_masks: Masks


@dataclass(frozen=True, kw_only=True, eq=False)
class FixedHeads:
    """What of the first block no prompt changes.

    Attributes:
        heads: For each group the pairs' queries, and their keys with values, as `attend`
            takes them.
        feed: (T, D) the pairs' feed-forward output where that reads the block's input, or
            None.
    """

    heads: tuple[tuple[Tensor, Tensor], ...]
    feed: Tensor | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """What one block is told.

    Attributes:
        layout: The batch.
        tables: Turns and masks of every group, by kind of attention layer.
        prompt_rows: Rows of the prompts in front of the pairs' rows; 0 behind prefixes.
        fixed: At the first block, what no prompt changes.
        last: Whether only read rows are asked for.
        prefix: Keys with values (H_kv, B, 1, 2, P, width) of each group's prefixes, or None.
    """

    layout: Layout
    tables: Mapping[Kind, tuple[GroupTables, ...]]
    prompt_rows: int
    fixed: FixedHeads | None
    last: bool
    prefix: tuple[Tensor, ...] | None = None

    @property
    def prompt_rows_asked(self) -> int:
        """Rows of the prompts that the block must give."""
        return 0 if self.last else self.prompt_rows

    @property
    def pair_rows_asked(self) -> int:
        """Rows of the pairs that the block must give."""
        return (self.layout.read_rows if self.last else self.layout.token_ids).numel()

    def variable(self, x: Tensor) -> Tensor:
        """The rows of the block's input that prompts change."""
        return x if self.fixed is None else x[: self.prompt_rows]

    def asked(self, x: Tensor) -> Tensor:
        """The rows of the block's input that stand where outputs are asked for."""
        return x.index_select(0, self._read_rows) if self.last else x

    def unasked(self, gradient: Tensor, rows: int) -> Tensor:
        """Gradient in the first `rows` rows of x, from that in the rows `asked` took."""
        if not self.last:
            return gradient[:rows]
        spread = gradient.new_zeros(rows, gradient.shape[1])
        if self.fixed is None:
            # Added, not copied: a position may be read more than once.
            spread.index_add_(0, self._read_rows, gradient)
        return spread

    @property
    def _read_rows(self) -> Tensor:
        return self.prompt_rows + self.layout.read_rows


def group_tables(
    group: Group,
    *,
    cosine: Tensor | None,
    sine: Tensor | None,
    scaling: float,
    window: int | None,
    dtype: torch.dtype,
) -> GroupTables:
    """Turns and masks of a group."""
    split, longest, reads = group.prompt_tokens, group.tokens.longest, group.reads
    places = group.read_slots.view(reads.parts, reads.pairs, 1, reads.longest)
    device = group.read_slots.device
    tokens = torch.arange(longest, device=device)

    def turn(positions: Tensor, scale: float = 1.0) -> Turn:
        if cosine is None or sine is None:
            return Turn(scale=scale)
        return Turn.of(cosine[positions], sine[positions], scale=scale, dtype=dtype)

    def with_values(positions: Tensor) -> Turn:
        """(2, positions, width / 2): keys turned, values not."""
        if cosine is None or sine is None:
            return Turn()
        real, imaginary = cosine[positions], sine[positions]
        both = torch.stack([real, torch.ones_like(real)])
        return Turn.of(
            both, torch.stack([imaginary, torch.zeros_like(real)]), scale=1.0, dtype=dtype
        )

    def masks(slots: Tensor) -> Masks:
        """Of queries at `slots` (n, asked) within their pairs."""
        prompt = torch.arange(split, device=device)
        own_seen = _seen(slots[..., None] - tokens, window)
        prompt_seen = _seen(split + slots[..., None] - prompt, window)
        within = _seen(prompt[:, None] - prompt, window)
        return Masks(
            own=_added(_shared(own_seen)[:, None], dtype),
            prompt=None
            if bool(prompt_seen.all())
            else _added(_shared(prompt_seen)[:, None], dtype),
            within=_added(within, dtype),
        )

    behind, front = split + tokens, torch.arange(split, device=device)
    return GroupTables(
        token=with_values(behind),
        token_key=turn(behind),
        token_query=turn(behind, scaling),
        read_query=turn(split + places, scaling),
        prompt=with_values(front),
        prompt_key=turn(front),
        prompt_query=turn(front, scaling),
        token_masks=masks(tokens[None]),
        read_masks=masks(places.flatten(0, 2)),
    )


def _seen(distance: Tensor, window: int | None) -> Tensor:
    seen = distance >= 0
    return seen if window is None else seen & (distance < window)


def _shared(seen: Tensor) -> Tensor:
    """One mask in place of many equal ones."""
    return seen[:1] if bool((seen == seen[:1]).all()) else seen


def _added(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers to add to scores: 0 where seen, -inf where not."""
    nothing = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return nothing.masked_fill_(~seen, float("-inf"))
