"""A budget in bytes: which problems run in one pass, and what a pass really kept.

What a pass takes is the model's own estimate (`FrozenModel.step_bytes`) and one block of
logits. Problems that do not fit together run one micro-batch after the other; one that does
not fit alone is cut between pairs, its prompt runs once for each piece, and the gradients
add up to those of one pass.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from promptlimits.base.errors import UserError
from promptlimits.capacity.train.objective import fewest_logits
from promptlimits.capacity.train.problem import Problem
from promptlimits.nets.protocol import FrozenModel, PackedPairs, Part

_SHARE_OF_FREE = 0.5
_UNKNOWN_FREE_BYTES = 2**31
# Of 2,048 tokens at a time, 8,192 rows.
_CPU_LOGIT_BYTES = 64 * 2**20
_DEVICE_LOGIT_BYTES = 256 * 2**20
_LOGIT_SHARE = 0.25
_REMEDY = "allow more (--memory), or use shorter pairs or fewer prompt tokens"


def default_budget(device: torch.device) -> int:
    """Half of the free memory of a device, rounded down to a power of two.

    A power of two, so that the same command on the same machine nearly always divides its
    work in the same way, and then ends in the same bits.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    else:
        try:
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError, AttributeError):
            # No such question on this system.
            free = _UNKNOWN_FREE_BYTES
    return 1 << max(int(_SHARE_OF_FREE * free), 1).bit_length() - 1


@dataclass(frozen=True, kw_only=True)
class MemoryBudget:
    """Memory that one pass may take."""

    total_bytes: int  # all of it
    chunk_bytes: int = _CPU_LOGIT_BYTES  # most of it for one block of logits

    @classmethod
    def on(cls, device: torch.device, total_bytes: int | None) -> MemoryBudget:
        """The budget asked for, or a share of what is free."""
        chunk = _CPU_LOGIT_BYTES if device.type == "cpu" else _DEVICE_LOGIT_BYTES
        total = default_budget(device) if total_bytes is None else total_bytes
        return cls(total_bytes=total, chunk_bytes=chunk)

    @property
    def logit_bytes(self) -> int:
        """For one block of logits."""
        return min(self.chunk_bytes, int(_LOGIT_SHARE * self.total_bytes))

    @property
    def part_bytes(self) -> int:
        """For everything else."""
        return self.total_bytes - self.logit_bytes

    def halved(self, used_bytes: int) -> MemoryBudget:
        """Half of this budget, or of what the largest pass was thought to take if less."""
        total = min(self.total_bytes, used_bytes) // 2
        return MemoryBudget(total_bytes=total, chunk_bytes=self.chunk_bytes)


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """A problem, or some of its pairs, in a micro-batch."""

    index: int  # place of the problem in the batch
    pairs: PackedPairs
    part_bytes: int  # what the model thinks that a pass of them takes


def bytes_of(model: FrozenModel, problem: Problem, pairs: PackedPairs) -> int:
    """What a pass over pairs of a problem takes, logits aside."""
    part = Part(prompt_tokens=problem.part.prompt_tokens, pairs=pairs)
    return model.step_bytes(part, kind=problem.kind)


def pairs_between(pairs: PackedPairs, first: int, last: int) -> PackedPairs:
    """Pairs `first` up to and without `last`, packed on their own; on the host if not all."""
    if (first, last) == (0, pairs.num_pairs):
        return pairs
    pairs = pairs.on_host
    begin = int(pairs.lengths[:first].sum())
    end = begin + int(pairs.lengths[first:last].sum())
    reads = (pairs.pair_of_read >= first) & (pairs.pair_of_read < last)
    return PackedPairs(
        input_ids=pairs.input_ids[begin:end],
        lengths=pairs.lengths[first:last],
        read=pairs.read[reads] - begin,
        targets=pairs.targets[reads],
        pair_of_read=pairs.pair_of_read[reads] - first,
    )


def divide(
    model: FrozenModel, problems: Sequence[Problem], budget: MemoryBudget
) -> tuple[tuple[Piece, ...], ...]:
    """Divide problems into micro-batches that fit the budget, in their order."""
    done: list[tuple[Piece, ...]] = []
    current: list[Piece] = []
    left = budget.part_bytes
    for index, problem in enumerate(problems):
        for piece in _pieces(model, problem, index, budget):
            same = bool(current) and current[-1].index == index
            if current and (same or piece.part_bytes > left):
                done.append(tuple(current))
                current, left = [], budget.part_bytes
            current.append(piece)
            left -= piece.part_bytes
    return (*done, tuple(current))


def _pieces(
    model: FrozenModel, problem: Problem, index: int, budget: MemoryBudget
) -> Iterator[Piece]:
    """A problem in as few pieces as fit, each of as many pairs as fit."""
    pairs, first = problem.pairs, 0
    while first < pairs.num_pairs:
        last = _last_that_fits(model, problem, first, budget)
        piece = pairs_between(pairs, first, last)
        needed = bytes_of(model, problem, piece)
        if piece is not pairs:
            piece = piece.to(pairs.lengths.device)
        yield Piece(index=index, pairs=piece, part_bytes=needed)
        first = last


def _last_that_fits(model: FrozenModel, problem: Problem, first: int, budget: MemoryBudget) -> int:
    """The largest end of a piece that begins at `first`, by bisection."""

    def needed(last: int) -> int:
        return bytes_of(model, problem, pairs_between(problem.pairs, first, last))

    low, high = first + 1, problem.pairs.num_pairs
    row_bytes = torch.float32.itemsize * fewest_logits(model.head)
    if row_bytes <= budget.logit_bytes and needed(high) <= budget.part_bytes:
        return high
    if needed(low) > budget.part_bytes or row_bytes > budget.logit_bytes:
        raise UserError(
            "memory budget",
            f"hold one pair with its prompt (about {needed(low)} bytes) and one row of a "
            f"block of logits ({row_bytes} bytes)",
            got=f"{budget.total_bytes} bytes",
            remedy=_REMEDY,
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needed(middle) <= budget.part_bytes else (low, middle)
    return low


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


class ActivationMeter:
    """Counts the memory that autograd keeps between a forward pass and its backward pass.

    What lives on after the step, such as weights and what `prepare` computed, is not counted.
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple[StorageWeakRef, int]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note every storage that autograd saves in the block, each once."""
        with torch.autograd.graph.saved_tensors_hooks(self._note, lambda tensor: tensor):
            yield

    def freed_bytes(self) -> int:
        """Bytes of the noted storages that are gone: ask after the backward pass."""
        return sum(size for kept, size in self._seen.values() if kept.expired())

    def _note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        known = self._seen.get(storage.data_ptr())
        # An address is used again once what stood there is gone.
        if known is None or known[0].expired():
            self._seen[storage.data_ptr()] = (StorageWeakRef(storage), storage.nbytes())
        return tensor


_BLOCK_BYTES: Final = 32 * 2**20 - 2**13
"""Just below glibc's limit, room for its own header and alignment left."""


def keep_freed_memory(device: torch.device) -> None:
    """Have the steps to come use memory that a step before has freed, on Linux with glibc.

    A training step asks for the same blocks as the one before. glibc maps large blocks anew each
    time and gives back what is freed at the heap's end, and the system then clears every page
    again: up to a tenth of a step. Its limits for both follow the largest block freed so far, up to
    32 MiB (mallopt(3), M_MMAP_THRESHOLD), so one such block, freed at the start, settles the
    matter. Where the allocator is another, this is one block asked for and freed.
    """
    if device.type == "cpu":
        torch.empty(_BLOCK_BYTES, dtype=torch.uint8, device=device)


class LogitBuffer:
    """Memory for one block of logits, kept from step to step; what was in it is overwritten.

    A block of many rows' logits is tens of megabytes. Asked for anew in each step, such a block is
    mapped and cleared by the system each time, which on a CPU costs an eighth of the product that
    fills it.
    """

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
