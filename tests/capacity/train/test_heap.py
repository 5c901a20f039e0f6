"""Large blocks come from the heap, whose freed memory is used again, and not from new maps."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PLACE = """
import torch
from promptlimits.capacity.train.memory import keep_freed_memory

{prepare}
block = torch.empty(4 * 2**20, dtype=torch.uint8)
(heap,) = [line for line in open("/proc/self/maps") if line.rstrip().endswith("[heap]")]
first, last = (int(bound, 16) for bound in heap.split()[0].split("-"))
print(first <= block.data_ptr() < last)
"""


def is_on_the_heap(prepare: str) -> bool:
    # A process of its own: glibc's limits are the process's.
    script = PLACE.format(prepare=prepare)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout.strip() == "True"


@pytest.mark.slow  # two processes that import torch
@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="another allocator has rules of its own"
)
def test_large_blocks_come_from_the_heap() -> None:
    assert not is_on_the_heap("")
    assert is_on_the_heap("keep_freed_memory(torch.device('cpu'))")
