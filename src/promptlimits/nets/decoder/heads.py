"""Rows of products to the heads of a group, and back."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from promptlimits.nets.decoder.layout import Rectangle
from promptlimits.nets.decoder.rotary import Turn


def to_heads(
    rows: Tensor, where: Rectangle, turn: Turn, *, kv_heads: int, width: int, behind: int = 0
) -> Tensor:
    """Rows of a product to heads, turned by their positions.

    Args:
        rows: (N, H_kv G width) all rows of the product.
        where: The rows wanted, a rectangle (B, K, L).
        turn: Of their positions; its table broadcasts to (H_kv, B, K, G, L, width / 2).
        kv_heads: H_kv.
        width: Of a head.
        behind: Rows in front of those that the rectangle counts from.

    Returns:
        (H_kv, B, K, G, L, width), contiguous.
    """
    if where.slots is None:
        source = _as_heads(rows, behind + where.start, where, kv_heads, width)
    else:
        spread = where.spread(rows[behind + where.start : behind + where.stop]).flatten(0, 2)
        source = _as_heads(spread, 0, where, kv_heads, width)
    return turn.forward(source, source.new_empty(source.shape))


def from_heads(
    parts: Sequence[tuple[Tensor, Turn]], where: Rectangle, rows: Tensor, *, behind: int = 0
) -> None:
    """Write gradients in what `to_heads` gave into its rows.

    Args:
        parts: Gradients (H_kv, B, K, G_i, L, width) in G_1 heads, the next G_2 and so on, each
            with the turn that was given to `to_heads` for it.
        where: The rows.
        rows: (N, H_kv G width), G the sum of the G_i; written in place at `where`.
        behind: Rows in front of those that the rectangle counts from.
    """
    kv_heads, width = parts[0][0].shape[0], parts[0][0].shape[-1]
    full, target, first = where.slots is None, rows, behind + where.start
    if not full:
        target = rows.new_empty(where.parts * where.pairs * where.longest, rows.shape[1])
        first = 0
    seen, start = _as_heads(target, first, where, kv_heads, width), 0
    for heads, turn in parts:
        stop = start + heads.shape[3]
        turn.backward(heads, seen if len(parts) == 1 else seen[:, :, :, start:stop])
        start = stop
    if not full:
        where.collect(target, rows[behind:])


def _as_heads(rows: Tensor, start: int, where: Rectangle, kv_heads: int, width: int) -> Tensor:
    """The slots of a rectangle (B, K, L), rows from `start` on, as (H_kv, B, K, G, L, width)."""
    row, group = rows.stride(0), rows.shape[1] // (kv_heads * width)
    # One view in place of a slice, two views and a permutation: a small step is half overhead.
    return rows.as_strided(
        (kv_heads, where.parts, where.pairs, group, where.longest, width),
        (group * width, where.pairs * where.longest * row, where.longest * row, width, row, 1),
        rows.storage_offset() + start * row,
    )
