"""One problem: pairs, settings, and where its training stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import torch

from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.state import TrainingState
from promptlimits.nets.protocol import PackedPairs, Part, PromptKind

ProblemKey: TypeAlias = int | str

PREFIX_RATE: Final = 1.5
"""A prefix's learning rate, times the number of layers, as a multiple of a soft prompt's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """A prompt to be trained, independent of every other one.

    Attributes:
        key: By which the caller knows it again; no two problems of one call share it.
        pairs: The K pairs that the prompt must answer.
        config: Its settings; each problem has its own.
        state: Where it starts: `TrainingState.start`, or the state of an earlier run, which
            then goes on as if it had never stopped.
        kind: What the prompt is.
        race: Problems of one race seek the same thing, such as starts from several seeds:
            once one is solved, the others leave as overtaken. None for no race.
    """

    key: ProblemKey
    pairs: PackedPairs
    config: TrainingConfig
    state: TrainingState
    kind: PromptKind = PromptKind.SOFT
    race: ProblemKey | None = None

    @property
    def part(self) -> Part:
        """The whole problem as one part of a batch."""
        return Part(prompt_tokens=self.state.prompt.shape[0], pairs=self.pairs)

    def learning_rate_at(self, step: int, *, layers: int) -> float:
        """Learning rate of step number `step`, counted from 0.

        A prefix acts in all layers at once, so that the more there are, the smaller its step must
        be. Of the rates that `benchmarks/optimisers.py` tries, those that are `PREFIX_RATE` over
        the number of layers are among the best for 4 layers and for 30.

        Args:
            step: Steps done.
            layers: L of the model.

        Returns:
            The rate.
        """
        share = 1.0 if self.kind is PromptKind.SOFT else PREFIX_RATE / layers
        return share * self.config.learning_rate_at(step)

    @property
    def layout(self) -> tuple[PromptKind, int, torch.dtype]:
        """What problems must share to lie end to end in one tensor."""
        return self.kind, self.state.prompt.shape[1], self.state.prompt.dtype


def pairs_between(pairs: PackedPairs, first: int, last: int) -> PackedPairs:
    """Pairs number `first` up to and without `last`, packed on their own."""
    if (first, last) == (0, pairs.num_pairs):
        return pairs
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
