"""One pass over many problems: their scores and the gradient of each one's own loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from promptlimits.capacity.train.adam import Segments
from promptlimits.capacity.train.memory import (
    ActivationMeter,
    LogitBuffer,
    MemoryBudget,
    Piece,
    divide,
)
from promptlimits.capacity.train.objective import Rows, RowScores, score_rows
from promptlimits.capacity.train.problem import Problem
from promptlimits.capacity.train.state import BatchScores
from promptlimits.nets.protocol import FrozenModel, Part, PreparedBatch, ReadHead


@dataclass(frozen=True, kw_only=True, eq=False)
class _MicroBatch:
    """Neighbouring problems that run in one pass of the model."""

    prepared: PreparedBatch  # their parts, laid out by the model
    rows: Rows  # how their read positions are scored, at full sharpening
    owners: Tensor  # (R, 1) whose each read position is, by its place in the batch
    first_row: int  # where their prompts begin among those of the batch
    last_row: int  # where they end


class Batch:
    """Problems of one layout that run side by side, with everything that no step changes."""

    def __init__(
        self, model: FrozenModel, problems: Sequence[Problem], budget: MemoryBudget
    ) -> None:
        self._head: ReadHead = model.head
        self._logit_bytes, self._memory = budget.logit_bytes, LogitBuffer().matrix
        division = divide(model, problems, budget)
        self.largest_bytes = max(sum(one.part_bytes for one in pieces) for pieces in division)
        self.activation_bytes: int | None = None
        self._micro = [_prepared(model, problems, pieces) for pieces in division]
        device = problems[0].state.prompt.device
        self.on_cpu = device.type == "cpu"
        reads = [problem.pairs.targets.numel() for problem in problems]
        self._reads = Segments.of(reads, device=device)
        each = [problem.pairs.pair_of_read.bincount().tolist() for problem in problems]
        self._reads_of_pair = Segments.of([count for one in each for count in one], device=device)
        counts = [problem.pairs.num_pairs for problem in problems]
        self._pairs = Segments.of(counts, device=device)
        self._single = (self._pairs.lengths == 1).to(torch.float32)
        leads = torch.tensor([problem.config.relative_lead for problem in problems])
        self._required_lead = self._reads.spread(leads.to(device))
        shares = torch.tensor([problem.config.first_sharpening_share for problem in problems])
        self._sharpening_range = shares.to(device), torch.ones_like(shares, device=device)

    def run(self, prompts: Tensor, most_right: Tensor) -> tuple[BatchScores, Tensor]:
        """Score prompts (sum of P_b, W), and differentiate each problem's loss in them.

        The largest share of right tokens so far (B,) sharpens.
        """
        sharpening = torch.lerp(*self._sharpening_range, most_right)
        meter = ActivationMeter() if self.activation_bytes is None else None
        scored: list[RowScores] = []
        gradient: Tensor | None = None
        for micro in self._micro:
            rows, part = self._differentiate(micro, prompts, sharpening, meter)
            scored.append(rows)
            if micro.last_row - micro.first_row == len(prompts):
                gradient = part if gradient is None else gradient + part
            else:
                gradient = torch.zeros_like(prompts) if gradient is None else gradient
                gradient[micro.first_row : micro.last_row] += part
        if gradient is None:
            raise AssertionError("a batch has at least one micro-batch")
        return self._summed_up(scored, sharpening), gradient

    def _differentiate(
        self,
        micro: _MicroBatch,
        prompts: Tensor,
        sharpening: Tensor,
        meter: ActivationMeter | None,
    ) -> tuple[RowScores, Tensor]:
        leaf = prompts[micro.first_row : micro.last_row].detach().requires_grad_(True)
        kept = 0
        with torch.enable_grad():
            if meter is None:
                states = micro.prepared.read_states(leaf)
            else:
                with meter.watching():
                    states = micro.prepared.read_states(leaf)
                kept = micro.prepared.kept_bytes(states)
        scores = score_rows(
            states,
            self._head,
            micro.rows.sharpened(sharpening[micro.owners]),
            logit_bytes=self._logit_bytes,
            memory=self._memory,
        )
        # Problems do not mix, so the gradient of the sum is each problem's own gradient.
        (gradient,) = torch.autograd.grad(states, leaf, scores.gradient)
        del states
        if meter is not None:
            self.activation_bytes = max(self.activation_bytes or 0, kept + meter.freed_bytes())
        return scores.without_gradient(), gradient

    def _summed_up(self, scored: Sequence[RowScores], sharpening: Tensor) -> BatchScores:
        nats = torch.cat([one.loss_nats for one in scored])
        right = torch.cat([one.lead for one in scored]) > self._required_lead
        wrong = self._reads_of_pair.sum((~right).to(torch.float32))
        exact = wrong == 0
        return BatchScores(
            # Over the share of the sharpening: about what all of it would give, a little more.
            loss_nats=self._reads.mean(nats) / sharpening,
            exact=exact,
            exact_pairs=self._pairs.sum(exact.to(torch.float32)),
            in_a_row=self._in_a_row(right) * self._single,
            tokens_right=self._reads.mean(right.to(torch.float32)),
        )

    def _in_a_row(self, right: Tensor) -> Tensor:
        """(B,) how many of each problem's reads are right before its first wrong one."""
        wrong = (~right).long()
        before = torch.cat([wrong.new_zeros(1), wrong.cumsum(0)])
        starts = self._reads.lengths.cumsum(0) - self._reads.lengths
        since = before[1:] - self._reads.spread(before[starts])
        return self._reads.sum((since == 0).to(torch.float32))


def _prepared(
    model: FrozenModel, problems: Sequence[Problem], pieces: Sequence[Piece]
) -> _MicroBatch:
    owners = [problems[piece.index] for piece in pieces]
    lengths = [problem.part.prompt_tokens for problem in problems]
    parts = [
        Part(prompt_tokens=problem.part.prompt_tokens, pairs=piece.pairs)
        for problem, piece in zip(owners, pieces, strict=True)
    ]
    rows = Rows.of(
        [
            (piece.pairs, problem.config, problem.pairs.targets.numel())
            for problem, piece in zip(owners, pieces, strict=True)
        ],
        dtype=owners[0].state.prompt.dtype,
        logit_deviation=model.logit_deviation,
    )
    places = torch.tensor([piece.index for piece in pieces])
    counts = torch.tensor([piece.pairs.targets.numel() for piece in pieces])
    return _MicroBatch(
        prepared=model.prepare(parts, kind=owners[0].kind),
        rows=rows,
        owners=places.repeat_interleave(counts)[:, None].to(rows.targets.device),
        first_row=sum(lengths[: pieces[0].index]),
        last_row=sum(lengths[: pieces[-1].index + 1]),
    )
