"""Which of many pairs a prompt answers exactly, in chunks that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from promptlimits.capacity.train.objective import Rows, RowScores, score_rows
from promptlimits.capacity.train.problem import Stopper
from promptlimits.nets.protocol import (
    EncodedPair,
    FrozenModel,
    PackedPairs,
    Part,
    PromptKind,
    pack,
)

_LOGIT_BYTES = 256 * 2**20
_SCORE_ENTRIES = 2**22


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Answers of one prompt to K pairs, as greedy decoding would give them.

    Where it was stopped, those of the first pairs alone.
    """

    # For each pair, how many tokens of its answer win in a row, from the first one on.
    right: tuple[int, ...]
    lengths: tuple[int, ...]  # for each pair, the tokens of its answer, the end marker included
    loss_nats: tuple[float, ...]  # for each pair, the summed cross-entropy of its answer

    @property
    def held(self) -> tuple[int, ...]:
        """Indices of the pairs answered exactly."""
        answers = enumerate(zip(self.right, self.lengths, strict=True))
        return tuple(index for index, (right, length) in answers if right == length)

    @property
    def but_end(self) -> tuple[int, ...]:
        """Indices of the pairs whose every token wins but the last, the end marker."""
        answers = enumerate(zip(self.right, self.lengths, strict=True))
        return tuple(index for index, (right, length) in answers if right == length - 1)


@torch.no_grad()
def evaluate(
    model: FrozenModel,
    prompt: Tensor,
    pairs: Sequence[EncodedPair],
    *,
    relative_lead: float = 0.0,
    kind: PromptKind = PromptKind.SOFT,
    on_chunk: Callable[[int], None] | None = None,
    should_stop: Stopper | None = None,
) -> Evaluation:
    """Run pairs behind one prompt and compare every answer.

    A pair is exact if at each position of its answer, given the right tokens before, the
    right token wins, by the relative lead of `objective`. Greedy decoding then gives that answer,
    by induction over its tokens. The prompt (P, W) may have no rows, or be the embedded tokens of
    a context. What is left is not run where `should_stop` says so, asked before every chunk but
    the first; `on_chunk` is told how many pairs are done.
    """
    right: list[int] = []
    losses: list[float] = []
    for chunk in _chunks(pairs, model.card.vocabulary, prompt.shape[0]):
        if right and should_stop is not None and should_stop() is not None:
            break
        packed = pack(chunk, device=model.device)
        rows = _scores(model, prompt, packed, kind)
        right += _right_in_a_row(rows.lead > relative_lead, packed).tolist()
        sums = torch.zeros(len(chunk), device=model.device)
        losses += sums.index_add(0, packed.pair_of_read, rows.loss_nats.float()).tolist()
        if on_chunk is not None:
            on_chunk(len(right))
    return Evaluation(
        right=tuple(right),
        lengths=tuple(len(pair.value_ids) for pair in pairs[: len(right)]),
        loss_nats=tuple(losses),
    )


def _right_in_a_row(right: Tensor, packed: PackedPairs) -> Tensor:
    """(K,) tokens before each pair's first wrong one, from which of the reads (R,) are right."""
    owner = packed.pair_of_read
    lengths = owner.bincount()
    place = torch.arange(len(owner), device=owner.device) - (lengths.cumsum(0) - lengths)[owner]
    before = torch.where(right, lengths[owner], place)
    return lengths.scatter_reduce(0, owner, before, "amin")


def _scores(model: FrozenModel, prompt: Tensor, packed: PackedPairs, kind: PromptKind) -> RowScores:
    """Every token of the answers, scored behind the right ones before it."""
    part = Part(prompt_tokens=prompt.shape[0], pairs=packed)
    states = model.prepare([part], kind=kind).read_states(prompt)
    return score_rows(
        states, model.head, Rows.plain(packed), logit_bytes=_LOGIT_BYTES, differentiate=False
    )


def _chunks(
    pairs: Sequence[EncodedPair], vocabulary: int, prompt_tokens: int
) -> Iterator[Sequence[EncodedPair]]:
    """Split pairs so that logits and attention scores of a chunk stay small.

    Each chunk runs the prompt again, so a long prompt in front asks for few chunks: the
    bound on the scores is on a chunk's tokens times the prompt.
    """
    most_reads = max(1, _LOGIT_BYTES // (4 * vocabulary))
    most_tokens = max(256, _SCORE_ENTRIES // max(1, prompt_tokens))
    start = reads = tokens = 0
    for end, pair in enumerate(pairs):
        reads += len(pair.value_ids)
        tokens += len(pair.input_ids)
        if end > start and (reads > most_reads or tokens > most_tokens):
            yield pairs[start:end]
            start, reads, tokens = end, len(pair.value_ids), len(pair.input_ids)
    yield pairs[start:]
