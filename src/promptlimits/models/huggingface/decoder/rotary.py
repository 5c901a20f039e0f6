"""From rows of a product to heads, and back: the turn of positions on the way.

Attention wants (heads, problems, rows, width) and products give (rows, heads width). The
rearranging copy is where the rotary embedding is applied, so it costs no pass of its own; with
it the factor on the scores, which is put into the queries' tables.

The turn of a pair (a, b) by angle t is (a cos t - b sin t, b cos t + a sin t), where a and b
stand half a rotary width apart; back goes the transposed map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Turn:
    """Cosines and sines of some positions, scaled; or a scale alone.

    Attributes:
        cosine: (..., rotary / 2), broadcast against the heads' leading axes; None without a
            rotary embedding.
        sine: The same for the sines.
        scale: Factor on what is not turned.
    """

    cosine: Tensor | None = None
    sine: Tensor | None = None
    scale: float = 1.0

    def scaled(self, scale: float) -> Turn:
        """This turn and a factor."""
        if self.cosine is None or self.sine is None:
            return Turn(scale=scale * self.scale)
        return Turn(cosine=self.cosine * scale, sine=self.sine * scale, scale=scale * self.scale)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Turn `source` into `target`; same shape (..., width), any strides."""
        return self._apply(source, target, 1)

    def backward(self, source: Tensor, target: Tensor) -> Tensor:
        """The transposed map: from the gradient in what was turned to that before."""
        return self._apply(source, target, -1)

    def _apply(self, source: Tensor, target: Tensor, sign: int) -> Tensor:
        if self.cosine is None or self.sine is None:
            return target.copy_(source) if self.scale == 1 else self._scaled_copy(source, target)
        half = self.cosine.shape[-1]
        first, second = source[..., :half], source[..., half : 2 * half]
        turned, across = target[..., :half], target[..., half : 2 * half]
        torch.mul(first, self.cosine, out=turned)
        turned.addcmul_(second, self.sine, value=-sign)
        torch.mul(second, self.cosine, out=across)
        across.addcmul_(first, self.sine, value=sign)
        if 2 * half < source.shape[-1]:
            self._scaled_copy(source[..., 2 * half :], target[..., 2 * half :])
        return target

    def _scaled_copy(self, source: Tensor, target: Tensor) -> Tensor:
        return torch.mul(source, self.scale, out=target)
