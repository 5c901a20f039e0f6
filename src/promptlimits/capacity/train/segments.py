"""Rows of many problems end to end, and what belongs to each.

A sum over segments never mixes them, not even a NaN, and its order is fixed: `index_add` on
CUDA adds in whatever order its threads arrive, so the same run would end in other bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Segments:
    """N rows cut into S segments.

    Attributes:
        sizes: Rows of each segment, as numbers.
        lengths: (S,) the same as a tensor.
        owner: (N,) the segment of each row.
    """

    sizes: tuple[int, ...]
    lengths: Tensor
    owner: Tensor

    @classmethod
    def of(cls, sizes: Sequence[int], *, device: torch.device) -> Segments:
        """Segments of given sizes, each at least 1."""
        lengths = torch.tensor(sizes, dtype=torch.long)
        owner = torch.repeat_interleave(torch.arange(len(sizes)), lengths)
        return cls(sizes=tuple(sizes), lengths=lengths.to(device), owner=owner.to(device))

    def sum(self, values: Tensor) -> Tensor:
        """(S,) sums of values (N,) of a float dtype."""
        if values.device.type in {"cpu", "cuda"}:
            sums: Tensor = torch.segment_reduce(values, "sum", lengths=self.lengths, unsafe=True)
            return sums
        return values.new_zeros(len(self.sizes)).index_add(0, self.owner, values)

    def mean(self, values: Tensor) -> Tensor:
        """(S,) means of values (N,) of a float dtype."""
        return self.sum(values) / self.lengths

    def spread(self, values: Tensor) -> Tensor:
        """(N, ...) each row's own of values (S, ...)."""
        return values.index_select(0, self.owner)

    def split(self, values: Tensor) -> tuple[Tensor, ...]:
        """Views of values (N, ...), one for each segment."""
        views: tuple[Tensor, ...] = values.split(self.sizes)
        return views
