"""Where the tokens of many prompts and their pairs stand in one batch.

Rows of the batch are all prompts, end to end, and behind them all pairs, end to end: linear
layers, where the time goes, see no padding. Attention works group by group. The parts of a
group have the same prompt length and the same number of pairs, so that their tokens form the
rectangles (B, P) and (B, K, L); pairs shorter than L are filled up in attention only.

All of it is found on the host, from what each part's pairs know of themselves, and then sent. So a
batch that some parts leave is laid out anew without waiting for the device.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from promptlimits.nets.device import sent
from promptlimits.nets.protocol import Part, owners_and_places


@dataclass(frozen=True, kw_only=True, eq=False)
class Rectangle:
    """Packed rows, from `start` to before `stop`, seen as a rectangle (B, K, L)."""

    start: int
    stop: int
    parts: int  # B
    pairs: int  # K
    longest: int  # L
    slots: Tensor | None  # (rows,) place of each among the B K L slots; None if they fill all

    def spread(self, rows: Tensor) -> Tensor:
        """Rows (rows, C) of this rectangle to (B, K, L, C); filler is zero."""
        if self.slots is not None:
            full = rows.new_zeros(self.parts * self.pairs * self.longest, rows.shape[1])
            rows = full.index_copy_(0, self.slots, rows)
        return rows.view(self.parts, self.pairs, self.longest, rows.shape[1])

    def collect(self, rectangle: Tensor, rows: Tensor) -> None:
        """Write (B K L, C) into this rectangle's rows of the batch `rows`.

        For rectangles with filler: one without is a view of its rows.
        """
        if self.slots is None:
            raise AssertionError("a rectangle without filler is written in place")
        target = rows[self.start : self.stop]
        torch.index_select(rectangle, 0, self.slots, out=target)


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Parts with one prompt length and one number of pairs."""

    prompt_tokens: int  # P
    prompt_start: int  # row of the first prompt token; the B prompts stand end to end
    tokens: Rectangle  # where the pairs' tokens are
    reads: Rectangle  # where the read tokens are, among read rows
    # (B K Lr,) place of each read token within its pair, 0 for filler; on the host.
    read_slots: Tensor

    @property
    def prompt_stop(self) -> int:
        """The row behind the last prompt token."""
        return self.prompt_start + self.tokens.parts * self.prompt_tokens

    @cached_property
    def prompts(self) -> Rectangle:
        """The rows of the prompts as a rectangle (B, 1, P)."""
        return Rectangle(
            start=self.prompt_start,
            stop=self.prompt_stop,
            parts=self.tokens.parts,
            pairs=1,
            longest=self.prompt_tokens,
            slots=None,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """All groups of a batch; their prompts and pairs stand in this order."""

    groups: tuple[Group, ...]
    order: tuple[int, ...]  # parts of the batch in the order of the groups
    prompt_rows: int  # sum of P_b
    token_ids: Tensor  # (T,) ids of all pairs' tokens
    positions: Tensor  # (T,) position of each of them, its prompt before it
    read_rows: Tensor  # (R,) rows, among all T, of the read tokens
    prompt_source: Tensor | None  # (sum of P_b,) the caller's place of each prompt row, if another
    read_target: Tensor | None  # (R,) the caller's place of each read row, if another

    @property
    def longest_sequence(self) -> int:
        """Most tokens of one prompt and one of its pairs together."""
        return max(group.prompt_tokens + group.tokens.longest for group in self.groups)


def lay_out(parts: Sequence[Part]) -> Layout:
    """Group parts and find every row's place."""
    members: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for index, part in enumerate(parts):
        members[part.prompt_tokens, part.pairs.num_pairs, part.pairs.longest].append(index)
    groups: list[Group] = []
    prompt_row = token_row = read_row = 0
    for indices in members.values():
        group = _group([parts[index] for index in indices], prompt_row, token_row, read_row)
        groups.append(group)
        prompt_row = group.prompt_stop
        token_row, read_row = group.tokens.stop, group.reads.stop
    order = tuple(index for indices in members.values() for index in indices)
    arranged = [parts[index] for index in order]
    starts = _starts([part.pairs.input_ids.numel() for part in arranged])
    device = parts[0].pairs.input_ids.device
    return Layout(
        groups=tuple(groups),
        order=order,
        prompt_rows=prompt_row,
        token_ids=sent(torch.cat([part.pairs.on_host.input_ids for part in arranged]), device),
        positions=sent(
            torch.cat([part.prompt_tokens + part.pairs.places for part in arranged]), device
        ),
        read_rows=sent(
            torch.cat([start + _reads(part) for start, part in zip(starts, arranged, strict=True)]),
            device,
        ),
        prompt_source=_if_any(_source([part.prompt_tokens for part in parts], order), device),
        read_target=_if_any(_read_target(parts, order), device),
    )


def _if_any(rows: Tensor | None, device: torch.device) -> Tensor | None:
    return None if rows is None else sent(rows, device)


def _group(parts: Sequence[Part], prompt_row: int, token_row: int, read_row: int) -> Group:
    pairs, count, device = parts[0].pairs.num_pairs, len(parts), parts[0].pairs.lengths.device
    lengths = torch.cat([part.pairs.on_host.lengths for part in parts])
    counts = torch.cat([part.pairs.reads_of_pair for part in parts])
    read_slots = torch.cat([part.pairs.places[_reads(part)] for part in parts])
    tokens = _rectangle(lengths, token_row, count, pairs)
    reads = _rectangle(counts, read_row, count, pairs)
    return Group(
        prompt_tokens=parts[0].prompt_tokens,
        prompt_start=prompt_row,
        tokens=replace(tokens, slots=_if_any(tokens.slots, device)),
        reads=replace(reads, slots=_if_any(reads.slots, device)),
        read_slots=reads.spread(read_slots[:, None]).flatten(),
    )


def _rectangle(lengths: Tensor, start: int, parts: int, pairs: int) -> Rectangle:
    longest, total = int(lengths.max()), int(lengths.sum())
    owner, within = owners_and_places(lengths)
    full = total == lengths.numel() * longest
    return Rectangle(
        start=start,
        stop=start + total,
        parts=parts,
        pairs=pairs,
        longest=longest,
        slots=None if full else owner * longest + within,
    )


def _reads(part: Part) -> Tensor:
    """Read rows of a part, pair after pair."""
    return part.pairs.on_host.read[part.pairs.reads_in_order]


def _starts(sizes: Sequence[int]) -> list[int]:
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + size)
    return starts[:-1]


def _source(sizes: Sequence[int], order: Sequence[int]) -> Tensor | None:
    """Rows of items of the given sizes when the items are put into another order."""
    if list(order) == sorted(order):
        return None
    starts = _starts(sizes)
    return torch.cat([torch.arange(starts[index], starts[index] + sizes[index]) for index in order])


def _read_target(parts: Sequence[Part], order: Sequence[int]) -> Tensor | None:
    """For each read row in the order of the groups, its place in the caller's order."""
    starts = _starts([part.pairs.read.numel() for part in parts])
    target = torch.cat([starts[index] + parts[index].pairs.reads_in_order for index in order])
    return None if torch.equal(target, torch.arange(target.numel())) else target
