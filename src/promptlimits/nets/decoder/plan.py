"""What a block is told of its batch: each group's rotations and masks, what is fixed, what asked.

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

from promptlimits.nets.decoder.attention import Masks
from promptlimits.nets.decoder.layout import Group, Layout, Rectangle
from promptlimits.nets.decoder.rotary import Rotation
from promptlimits.nets.device import sent

TableKey: TypeAlias = tuple[str | None, float, int | None]
"""Rotary embedding, factor on the scores and window of a layer: what decides its tables."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Queries:
    """Where the pairs' queries stand, their rotation and scaling, and what they do not see."""

    where: Rectangle
    rotation: Rotation
    masks: Masks


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupTables:
    """Rotations and masks of a group's rows; with keys stand their values, which do not rotate."""

    group: Group
    tokens: Queries  # where all tokens ask
    reads: Queries  # where read tokens ask
    token_key_value: Rotation
    token_key: Rotation
    prompt_key_value: Rotation
    prompt_key: Rotation
    prompt_query: Rotation


@dataclass(frozen=True, kw_only=True, eq=False)
class FixedHeads:
    """What of the first block no prompt changes.

    `heads` are each group's queries, and keys with values, of the pairs, as `attend` takes them;
    `feed` (T, D) is the pairs' feed-forward output where that reads the block's input, or None.
    """

    heads: tuple[tuple[Tensor, Tensor], ...]
    feed: Tensor | None


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockPlan:
    """What one block is told."""

    layout: Layout
    tables: Mapping[TableKey, tuple[GroupTables, ...]]
    prompt_rows: int  # rows of the prompts in front of the pairs' rows; 0 behind prefixes
    read_rows: Tensor  # (R,) the read rows, among the prompts' and the pairs'
    last: bool  # whether only read rows are asked for
    fixed: FixedHeads | None = None  # at the first block
    prefix: tuple[Tensor, ...] | None = None  # of each group (H_kv, B, 1, 2, P, width)
    # Takes each group's keys and values of the prompts, in that shape, where they are asked for.
    caught: list[Tensor] | None = None

    @property
    def prompt_rows_asked(self) -> int:
        """Rows of the prompts that the block must give."""
        return 0 if self.last else self.prompt_rows

    @property
    def pair_rows_asked(self) -> int:
        """Rows of the pairs that the block must give."""
        return (self.layout.read_rows if self.last else self.layout.token_ids).numel()

    def queries(self, tables: GroupTables) -> Queries:
        """Those of a group that ask."""
        return tables.reads if self.last else tables.tokens

    def variable(self, x: Tensor) -> Tensor:
        """The rows of the block's input that prompts change."""
        return x if self.fixed is None else x[: self.prompt_rows]

    def asked(self, x: Tensor) -> Tensor:
        """The rows of the block's input that stand where outputs are asked for."""
        return x.index_select(0, self.read_rows) if self.last else x

    def unasked(self, gradient: Tensor, rows: int) -> Tensor:
        """Gradient in the first `rows` rows of x, from that in the rows `asked` took."""
        if not self.last:
            return gradient[:rows]
        spread = gradient.new_zeros(rows, gradient.shape[1])
        if self.fixed is None:
            # Added, not copied: a position may be read more than once.
            spread.index_add_(0, self.read_rows, gradient)
        return spread


def group_tables(
    group: Group,
    *,
    angles: tuple[Tensor, Tensor] | None,
    scaling: float,
    window: int | None,
    dtype: torch.dtype,
    device: torch.device,
) -> GroupTables:
    """Rotations and masks of a group, by cosines and sines (positions, width / 2) or none.

    What is seen is found on the host, which asks whether it is the same for all.
    """
    split, reads = group.prompt_tokens, group.reads
    front, tokens = torch.arange(split), torch.arange(group.tokens.longest)
    places = group.read_slots.view(reads.parts, reads.pairs, 1, reads.longest)

    def rotation(positions: Tensor, scale: float = 1.0) -> Rotation:
        if angles is None:
            return Rotation(scale=scale)
        cosine, sine = (table[sent(positions, device)] for table in angles)
        return Rotation.of(cosine, sine, scale=scale, dtype=dtype)

    def with_values(positions: Tensor) -> Rotation:
        """(2, positions, width / 2): keys rotated, values not."""
        if angles is None:
            return Rotation()
        real, imaginary = (table[sent(positions, device)] for table in angles)
        cosine = torch.stack([real, torch.ones_like(real)])
        sine = torch.stack([imaginary, torch.zeros_like(real)])
        return Rotation.of(cosine, sine, scale=1.0, dtype=dtype)

    def queries(where: Rectangle, positions: Tensor, slots: Tensor) -> Queries:
        """At positions, and at `slots` (n, asked) within their pairs."""
        own_seen = visible(slots[..., None] - tokens, window)
        prompt_seen = visible(split + slots[..., None] - front, window)
        within = visible(front[:, None] - front, window)
        hidden = not bool(prompt_seen.all())
        masks = Masks(
            own=sent(_added(_shared(own_seen)[:, None], dtype), device),
            prompt=sent(_added(_shared(prompt_seen)[:, None], dtype), device) if hidden else None,
            within=sent(_added(within, dtype), device),
        )
        return Queries(where=where, rotation=rotation(positions, scaling), masks=masks)

    return GroupTables(
        group=group,
        tokens=queries(group.tokens, split + tokens, tokens[None]),
        reads=queries(reads, split + places, places.flatten(0, 2)),
        token_key_value=with_values(split + tokens),
        token_key=rotation(split + tokens),
        prompt_key_value=with_values(front),
        prompt_key=rotation(front),
        prompt_query=rotation(front, scaling),
    )


def visible(distance: Tensor, window: int | None) -> Tensor:
    """Whether a query sees a key that many positions before it."""
    seen = distance >= 0
    return seen if window is None else seen & (distance < window)


def _shared(seen: Tensor) -> Tensor:
    """One mask in place of many equal ones."""
    return seen[:1] if bool((seen == seen[:1]).all()) else seen


def _added(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers to add to scores: 0 where seen, -inf where not."""
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, float("-inf"))
