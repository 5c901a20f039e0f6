"""What training minimises, and what counts as an exact answer.

The aim is exactness: at every scored position the right token must win, because greedy
decoding then reproduces the answer (by induction over its tokens). Mean cross-entropy is
only a way there, and sharpening the logits turns its pressure on tokens that do not win yet.

With l the logits of a row, t its target, s the sharpening and j over the other tokens, both
losses are softplus(g) of a gap g:

    cross-entropy   g = log sum_j exp(s l_j) - s l_t     (the loss of the softmax of s l)
    margin          g = s (max_j l_j - l_t)              (the logistic loss of the strongest alone)

so their gradient is sigmoid(g) times that of g. Neither loses digits where the target wins
by far, as `1 - p_t` would. The gap and its gradient are found in `margins`, where one block of
logits, some rows of some tokens, is alive at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import torch
from torch import Tensor

from promptlimits.capacity.train.config import Objective, TrainingConfig
from promptlimits.capacity.train.margins import Margins, margins
from promptlimits.nets.device import sent
from promptlimits.nets.protocol import Memory, PackedPairs, ReadHead

_TOKENS: Final = 2**11
"""Tokens of a block on a CPU, where one of some hundred rows stays in the cache until it is pulled
back. Elsewhere the fewest: below, a product leaves the machine's rate."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """Neighbouring rows that are scored alike."""

    rows: int  # how many
    objective: Objective  # what is minimised


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """R read positions and how each is scored."""

    targets: Tensor  # (R, 1) the token that must win
    weights: Tensor  # (R, 1) the row's share in its problem's mean loss
    sharpenings: Tensor  # (R, 1) factor on the row's logits inside the loss
    runs: tuple[Run, ...]  # rows that are scored alike, in order

    @classmethod
    def of(
        cls,
        parts: Sequence[tuple[PackedPairs, TrainingConfig, int]],
        *,
        dtype: torch.dtype,
        logit_deviation: float,
    ) -> Rows:
        """Rows of parts, each with its settings and the reads of its whole problem."""
        numbers = torch.tensor(
            [(1 / reads, config.sharpening_for(logit_deviation)) for _, config, reads in parts],
            dtype=dtype,
        )
        counts = [pairs.targets.numel() for pairs, _, _ in parts]
        targets = torch.cat([pairs.targets for pairs, _, _ in parts])
        spread = numbers.repeat_interleave(torch.tensor(counts), dim=0)
        spread = sent(spread, targets.device)
        alike = groupby(parts, key=lambda one: one[1].objective)
        return cls(
            targets=targets[:, None],
            weights=spread[:, :1],
            sharpenings=spread[:, 1:],
            runs=tuple(
                Run(rows=sum(pairs.targets.numel() for pairs, _, _ in group), objective=objective)
                for objective, group in alike
            ),
        )

    @classmethod
    def plain(cls, pairs: PackedPairs) -> Rows:
        """Rows of pairs whose plain cross-entropy is asked for."""
        targets = pairs.targets[:, None]
        ones = torch.ones(targets.shape, device=targets.device)
        return cls(
            targets=targets,
            weights=ones,
            sharpenings=ones,
            runs=(Run(rows=len(targets), objective=Objective.CROSS_ENTROPY),),
        )

    def sharpened(self, factors: Tensor) -> Rows:
        """The same rows with their sharpenings multiplied by factors (R, 1)."""
        return replace(self, sharpenings=self.sharpenings * factors)


@dataclass(frozen=True, kw_only=True, eq=False)
class RowScores:
    """What one pass says about R read positions."""

    loss_nats: Tensor  # (R,) loss of each row
    # (R,) how far each target's logit stands above the best other one, in units of the row's
    # largest absolute logit, so that it can be compared with rounding: two float32 implementations
    # of one model differ by about 1e-5 there. NaN where a logit is.
    lead: Tensor
    gradient: Tensor  # (R, S) gradient in the states of the weighted sum of the losses

    @classmethod
    def joined(cls, parts: Sequence[RowScores]) -> RowScores:
        """The rows of several, one after the other."""
        return cls(
            loss_nats=torch.cat([part.loss_nats for part in parts]),
            lead=torch.cat([part.lead for part in parts]),
            gradient=torch.cat([part.gradient for part in parts]),
        )

    def without_gradient(self) -> RowScores:
        """The same without what is as large as the states."""
        return replace(self, gradient=self.gradient.new_empty(0))


@torch.no_grad()
def score_rows(
    states: Tensor,
    head: ReadHead,
    rows: Rows,
    *,
    logit_bytes: int,
    differentiate: bool = True,
    memory: Memory | None = None,
) -> RowScores:
    """Loss, lead and gradient of every row of read states (R, S), whose graph is left alone.

    At most `logit_bytes` are taken for one block of logits, in `memory` or anew each time; where
    no gradient is asked for it is empty.
    """
    states = states.detach()
    blocks = head.blocks(_tokens_of_a_block(states, logit_bytes))
    parts = []
    for start, end, run in _chunks(rows.runs, _widest(blocks), logit_bytes):
        targets, sharpenings = rows.targets[start:end], rows.sharpenings[start:end]
        found = margins(
            states[start:end],
            head,
            targets,
            sharpenings,
            run.objective,
            blocks=blocks,
            differentiate=differentiate,
            memory=memory,
        )
        factor = rows.weights[start:end] * sharpenings if differentiate else None
        parts.append(_row_scores(found, factor, states.dtype))
        del found
    return parts[0] if len(parts) == 1 else RowScores.joined(parts)


def _row_scores(found: Margins, factor: Tensor | None, dtype: torch.dtype) -> RowScores:
    """Scores of rows, whose gradient is overwritten; factor (n, 1) or None for none."""
    gap, gradient = found.gap, found.gradient
    if factor is not None:
        gradient = gradient.mul_(factor.to(gap.dtype) * gap.sigmoid())
    largest = torch.maximum(torch.maximum(found.own.abs(), found.low.abs()), found.others.abs())
    largest = largest.clamp_min(torch.finfo(largest.dtype).tiny)
    return RowScores(
        loss_nats=torch.logaddexp(gap, torch.zeros_like(gap)).squeeze(1),
        lead=((found.own - found.others) / largest).squeeze(1),
        gradient=gradient.to(dtype),
    )


def fewest_logits(head: ReadHead) -> int:
    """Logits that a row takes at least: those of the smallest blocks that `score_rows` makes."""
    return _widest(head.blocks(_TOKENS))


def lead(logits: Tensor, targets: Tensor) -> Tensor:
    """(..., R) how far logits (..., R, V) of targets (R,) lead, as `RowScores.lead` is."""
    index = targets.expand(logits.shape[:-1]).unsqueeze(-1)
    own = logits.gather(-1, index).squeeze(-1)
    others = logits.scatter(-1, index, float("-inf")).amax(dim=-1)
    scale = logits.abs().amax(dim=-1).clamp_min(torch.finfo(logits.dtype).tiny)
    return (own - others) / scale


def _tokens_of_a_block(states: Tensor, logit_bytes: int) -> int:
    """Most tokens of a block of logits: off a CPU as many as let all rows be in it."""
    if states.device.type == "cpu":
        return _TOKENS
    return max(logit_bytes // (torch.float32.itemsize * len(states)), _TOKENS)


def _widest(blocks: Sequence[ReadHead]) -> int:
    return max(block.vocabulary for block in blocks)


def _chunks(runs: Sequence[Run], tokens: int, logit_bytes: int) -> Iterator[tuple[int, int, Run]]:
    """Bounds of chunks of rows that are scored alike, blocks of `tokens` logits each."""
    most = max(1, logit_bytes // (torch.float32.itemsize * tokens))
    start = 0
    for run in runs:
        stop = start + run.rows
        while start < stop:
            end = min(stop, start + most)
            yield start, end, run
            start = end
