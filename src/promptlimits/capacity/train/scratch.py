"""Memory for one block of logits, kept from step to step.

A block of many rows' logits is tens of megabytes. Asked for anew in each step, such a
block is mapped and cleared by the system each time, which on a CPU costs an eighth of the product
that fills it.
"""

from __future__ import annotations

from torch import Tensor


class Scratch:
    """One block of memory, handed out again and again; what was in it is overwritten."""

    def __init__(self) -> None:
        self._memory: Tensor | None = None

    def matrix(self, rows: int, columns: int, like: Tensor) -> Tensor:
        """Memory to write a matrix to, valid until the next call."""
        needed, memory = rows * columns, self._memory
        known = memory is not None and (memory.dtype, memory.device) == (like.dtype, like.device)
        if memory is None or not known or memory.numel() < needed:
            # Let go of first: the two need never be there together.
            memory = self._memory = None
            memory = self._memory = like.new_empty(needed)
        return memory[:needed].view(rows, columns)
