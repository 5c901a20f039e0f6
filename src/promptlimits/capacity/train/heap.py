"""Freed memory kept for the next step, on Linux with glibc.

A training step asks for the same blocks as the one before. glibc maps large blocks anew each time
and gives back what is freed at the heap's end, and the system then clears every page again: up to
a tenth of a step. Its limits for both follow the largest block freed so far, up to 32 MiB
(mallopt(3), M_MMAP_THRESHOLD), so one such block, freed at the start, settles the matter. Where
the allocator is another, this is one block asked for and freed.
"""

from __future__ import annotations

from typing import Final

import torch

_BLOCK_BYTES: Final = 32 * 2**20 - 2**13
"""Just below glibc's limit, room for its own header and alignment left."""


def keep_freed_memory(device: torch.device) -> None:
    """Have the steps to come use memory again that a step before them has freed."""
    if device.type == "cpu":
        torch.empty(_BLOCK_BYTES, dtype=torch.uint8, device=device)
