"""What the reverse pass needs of the forward pass: a stack of tensors.

Every operation pushes what its derivative needs and, going back, pops it; so memory shrinks
while the reverse pass runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


class Tape:
    """A stack of tensors, last in, first out.

    Args:
        kept: Tensors of an earlier tape, to be popped.
        keep: Whether pushed tensors are kept; without a reverse pass they are not.
    """

    def __init__(self, kept: Sequence[Tensor] = (), *, keep: bool = True) -> None:
        self._stack = list(kept)
        self._keep = keep

    @property
    def keeps(self) -> bool:
        """Whether there will be a reverse pass."""
        return self._keep

    @property
    def kept_bytes(self) -> int:
        """Memory of all that is kept, storage shared by several tensors counted once."""
        storages = {tensor.untyped_storage().data_ptr(): tensor for tensor in self._stack}
        return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())

    def push(self, *tensors: Tensor) -> None:
        """Keep tensors for the reverse pass."""
        if self._keep:
            self._stack.extend(tensors)

    def pop(self, count: int) -> list[Tensor]:
        """Take back the last `count` tensors, in the order in which they were pushed."""
        if count == 0:
            return []
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken
