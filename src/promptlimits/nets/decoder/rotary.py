"""The turn of positions, applied while rows of a product are rearranged into heads.

Attention wants (heads, problems, rows, width) and products give (rows, heads width). The
rearranging copy is where the rotary embedding is applied, so it costs no pass of its own; with
it the factor on the scores, which is put into the queries' table.

Stock code turns the pairs (x_i, x_{i + rotary / 2}). Here the two stand side by side, so that a
turn is one product of complex numbers: the rows of the frozen query and key weights are put
into that order once (`interleaving`), which no score can tell, for both are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Turn:
    """A table of turns, or a factor alone.

    Attributes:
        table: (..., width / 2) complex, broadcast against the heads' leading axes; (...,
            width / 2, 2) real, cosines and sines, for dtypes without complex numbers; None
            for no turn.
        back: The conjugates, for the way back.
        scale: Factor, where there is no table.
    """

    table: Tensor | None = None
    back: Tensor | None = None
    scale: float = 1.0

    @classmethod
    def of(cls, cosine: Tensor, sine: Tensor, *, scale: float, dtype: torch.dtype) -> Turn:
        """The turn by angles of given cosines and sines, scaled.

        Args:
            cosine: (..., width / 2).
            sine: Of the same shape.
            scale: Factor on everything.
            dtype: Of what is turned.

        Returns:
            The turn.
        """
        # As stock code does, and before any factor: a product in float32 would round twice.
        real, imaginary = cosine.to(dtype) * scale, sine.to(dtype) * scale
        if dtype.itemsize < 4:
            return cls(
                table=torch.stack([real, imaginary], dim=-1),
                back=torch.stack([real, -imaginary], dim=-1),
            )
        return cls(table=torch.complex(real, imaginary), back=torch.complex(real, -imaginary))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Turn `source` into `target`; same shape (..., width), any strides but the last."""
        return self._apply(self.table, source, target)

    def backward(self, source: Tensor, target: Tensor) -> Tensor:
        """The transposed map: from the gradient in what was turned to that before."""
        return self._apply(self.back, source, target)

    def _apply(self, table: Tensor | None, source: Tensor, target: Tensor) -> Tensor:
        if table is None:
            if self.scale == 1:
                return target.copy_(source)
            return torch.mul(source, self.scale, out=target)
        if table.is_complex():
            torch.mul(source.view(table.dtype), table, out=target.view(table.dtype))
            return target
        pairs, turned = source.unflatten(-1, (-1, 2)), target.unflatten(-1, (-1, 2))
        (real, imaginary), (cosine, sine) = pairs.unbind(-1), table.unbind(-1)
        turned[..., 0] = real * cosine - imaginary * sine
        turned[..., 1] = imaginary * cosine + real * sine
        return target


def interleaving(width: int, rotary: int) -> list[int]:
    """Where each number of a head comes from: halves of the turned part side by side."""
    half = rotary // 2
    turned = [place for first in range(half) for place in (first, first + half)]
    return turned + list(range(rotary, width))


def table_angles(cosine: Tensor, sine: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Angles (positions, rotary / 2) filled up to (positions, width / 2) with no turn."""
    rest = width // 2 - cosine.shape[-1]
    shape = (*cosine.shape[:-1], rest)
    return (
        torch.cat([cosine, cosine.new_ones(shape)], dim=-1),
        torch.cat([sine, sine.new_zeros(shape)], dim=-1),
    )
