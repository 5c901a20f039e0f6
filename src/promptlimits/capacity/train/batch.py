"""One pass over many problems: their scores and the gradient of each one's own loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from promptlimits.base.errors import UserError
from promptlimits.capacity.train.adam import Segments
from promptlimits.capacity.train.config import SEARCH_DTYPE
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
from promptlimits.nets.device import sent
from promptlimits.nets.protocol import FrozenModel, Part, PreparedBatch, ReadHead


@dataclass(frozen=True, kw_only=True, eq=False)
class _MicroBatch:
    """Neighbouring problems that run in one pass of the model."""

    prepared: PreparedBatch  # their parts, laid out by the model
    head: ReadHead  # the same model's head
    rows: Rows  # how their read positions are scored, at full sharpening
    owners: Tensor  # (R, 1) whose each read position is, by its place in the batch
    first_row: int  # where their prompts begin among those of the batch
    last_row: int  # where they end


class Batch:
    """Problems of one layout that run side by side, with everything that no step changes.

    Those that search run in the model's faster twin (`Problem.searching`).
    """

    def __init__(
        self, model: FrozenModel, problems: Sequence[Problem], budget: MemoryBudget
    ) -> None:
        self._logit_bytes, self._memory = budget.logit_bytes, LogitBuffer().matrix
        division = list(_division(model, problems, budget))
        self.largest_bytes = max(sum(one.part_bytes for one in pieces) for _, pieces in division)
        self.activation_bytes: int | None = None
        self._micro = [_prepared(model, problems, pieces) for model, pieces in division]
        device = problems[0].state.prompt.device
        self.on_cpu = device.type == "cpu"
        reads = [problem.pairs.targets.numel() for problem in problems]
        self._reads = Segments.of(reads, device=device)
        each = [problem.pairs.reads_of_pair.tolist() for problem in problems]
        self._reads_of_pair = Segments.of([count for one in each for count in one], device=device)
        self._pairs = Segments.of([problem.pairs.num_pairs for problem in problems], device=device)
        leads = torch.tensor([problem.config.relative_lead for problem in problems])
        self._required_lead = self._reads.spread(sent(leads, device))
        shares = torch.tensor([problem.config.first_sharpening_share for problem in problems])
        self._sharpening_range = sent(shares, device), torch.ones_like(shares, device=device)

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

    @torch.no_grad()
    def score(self, prompts: Tensor) -> BatchScores:
        """Score prompts (sum of P_b, W) alone, the loss at full sharpening."""
        scored = [
            score_rows(
                micro.prepared.read_states(prompts[micro.first_row : micro.last_row]),
                micro.head,
                micro.rows,
                logit_bytes=self._logit_bytes,
                differentiate=False,
                memory=self._memory,
            )
            for micro in self._micro
        ]
        return self._summed_up(scored, self._sharpening_range[1])

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
            micro.head,
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
            tokens_right=self._reads.mean(right.to(torch.float32)),
        )


def _division(
    model: FrozenModel, problems: Sequence[Problem], budget: MemoryBudget
) -> Iterator[tuple[FrozenModel, tuple[Piece, ...]]]:
    """Micro-batches in the problems' order, each with the model that it runs in."""
    first = 0
    for searching, group in groupby(problems, key=lambda problem: problem.searching):
        members = list(group)
        runs_in = require_narrow(model) if searching else model
        for pieces in divide(runs_in, members, budget):
            yield runs_in, tuple(replace(one, index=first + one.index) for one in pieces)
        first += len(members)


def require_narrow(model: FrozenModel) -> FrozenModel:
    """The model in which searching problems run.

    Raises:
        UserError: It has none.
    """
    if model.narrow is not None:
        return model.narrow
    raise UserError(
        "search_dtype",
        f"be left out for model {model.card.name}",
        got=f"{SEARCH_DTYPE}, and it has no faster twin",
        remedy="search in what the model computes with",
    )


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
        head=model.head,
        rows=rows,
        owners=sent(places.repeat_interleave(counts)[:, None], rows.targets.device),
        first_row=sum(lengths[: pieces[0].index]),
        last_row=sum(lengths[: pieces[-1].index + 1]),
    )
