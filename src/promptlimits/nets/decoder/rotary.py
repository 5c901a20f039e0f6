"""Rows of products to the heads of a group, rotated by their positions, and back.

Attention wants (heads, problems, rows, width) and products give (rows, heads width). The
rearranging copy is where the rotary embedding is applied, so it costs no pass of its own; with
it the factor on the scores, which is put into the queries' table.

Stock code rotates the pairs (x_i, x_{i + rotary / 2}). Here the two stand side by side, so that a
rotation is one product of complex numbers: the rows of the frozen query and key weights are put
into that order once (`interleaving`), which no score can tell, for both are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from promptlimits.nets.decoder.layout import Rectangle


@dataclass(frozen=True, kw_only=True, eq=False)
class Rotation:
    """A table of rotations, or a factor alone.

    A table is (..., width / 2) complex, broadcast against the heads' leading axes; (..., width /
    2, 2) real, cosines and sines, for dtypes without complex numbers; None for no rotation.
    """

    table: Tensor | None = None
    back: Tensor | None = None  # the conjugates, for the way back
    scale: float = 1.0  # where there is no table

    @classmethod
    def of(cls, cosine: Tensor, sine: Tensor, *, scale: float, dtype: torch.dtype) -> Rotation:
        """By angles of given cosines and sines (..., width / 2), scaled, of numbers of `dtype`."""
        # As stock code does, and before any factor: a product in float32 would round twice.
        real, imaginary = cosine.to(dtype) * scale, sine.to(dtype) * scale
        if dtype.itemsize < 4:
            return cls(
                table=torch.stack([real, imaginary], dim=-1),
                back=torch.stack([real, -imaginary], dim=-1),
            )
        return cls(table=torch.complex(real, imaginary), back=torch.complex(real, -imaginary))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Rotate `source` into `target`; same shape (..., width), any strides but the last."""
        return self._apply(self.table, source, target)

    def backward(self, source: Tensor, target: Tensor) -> Tensor:
        """The transposed map: from the gradient in what was rotated to that before."""
        return self._apply(self.back, source, target)

    def _apply(self, table: Tensor | None, source: Tensor, target: Tensor) -> Tensor:
        if table is None:
            if self.scale == 1:
                return target.copy_(source)
            return torch.mul(source, self.scale, out=target)
        if table.is_complex():
            torch.mul(source.view(table.dtype), table, out=target.view(table.dtype))
            return target
        pairs, rotated = source.unflatten(-1, (-1, 2)), target.unflatten(-1, (-1, 2))
        (real, imaginary), (cosine, sine) = pairs.unbind(-1), table.unbind(-1)
        rotated[..., 0] = real * cosine - imaginary * sine
        rotated[..., 1] = imaginary * cosine + real * sine
        return target


NO_ROTATION = Rotation()


def to_heads(
    rows: Tensor,
    where: Rectangle,
    rotation: Rotation,
    *,
    kv_heads: int,
    width: int,
    behind: int = 0,
) -> Tensor:
    """Rows (N, H_kv G width) of a product at a rectangle to heads (H_kv, B, K, G, L, width).

    The rectangle counts from row `behind`; the rotation's table broadcasts to the heads.
    """
    if where.slots is None:
        source = _as_heads(rows, behind + where.start, where, kv_heads, width)
    else:
        spread = where.spread(rows[behind + where.start : behind + where.stop]).flatten(0, 2)
        source = _as_heads(spread, 0, where, kv_heads, width)
    return rotation.forward(source, source.new_empty(source.shape))


def from_heads(
    parts: Sequence[tuple[Tensor, Rotation]], where: Rectangle, rows: Tensor, *, behind: int = 0
) -> None:
    """Write gradients in what `to_heads` gave into its rows.

    They come in parts (H_kv, B, K, G_i, L, width), side by side in a row, each with the rotation
    that was given to `to_heads` for it.
    """
    kv_heads, width = parts[0][0].shape[0], parts[0][0].shape[-1]
    full, target, first = where.slots is None, rows, behind + where.start
    if not full:
        target = rows.new_empty(where.parts * where.pairs * where.longest, rows.shape[1])
        first = 0
    seen, start = _as_heads(target, first, where, kv_heads, width), 0
    for heads, rotation in parts:
        stop = start + heads.shape[3]
        rotation.backward(heads, seen if len(parts) == 1 else seen[:, :, :, start:stop])
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


def interleaving(width: int, rotary: int) -> list[int]:
    """Where each number of a head comes from: halves of the rotated part side by side."""
    half = rotary // 2
    rotated = [place for first in range(half) for place in (first, first + half)]
    return rotated + list(range(rotary, width))


def fill_up(cosine: Tensor, sine: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Angles (positions, rotary / 2) filled up to (positions, width / 2) with no rotation."""
    shape = (*cosine.shape[:-1], width // 2 - cosine.shape[-1])
    return (
        torch.cat([cosine, cosine.new_ones(shape)], dim=-1),
        torch.cat([sine, sine.new_zeros(shape)], dim=-1),
    )
