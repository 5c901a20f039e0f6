"""In which order the pairs of a list are to be held.

A prompt that may choose which pairs of a list to hold should begin with the easy ones. How
easy a pair is, the frozen model tells: the loss of its answer behind a few other pairs given
in context. The order is found before any prompt is trained, and recorded.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from enum import StrEnum

from promptlimits.capacity.search.baselines import OnChunk, answers_behind, written_out_within
from promptlimits.capacity.train.problem import Stopper
from promptlimits.nets.protocol import EncodedPair, FrozenModel

SHOTS = 8


class Order(StrEnum):
    """How a list is ordered before prompts are trained for its first pairs."""

    EASIEST = "easiest"
    GIVEN = "given"
    SHUFFLED = "shuffled"

    @property
    def in_words(self) -> str:
        """The order for a report."""
        return _WORDS[self]


_WORDS = {
    Order.EASIEST: (
        f"easiest first, by the model's loss behind up to {SHOTS} other pairs in context; "
        "the prompt may choose which pairs it holds"
    ),
    Order.GIVEN: "as given",
    Order.SHUFFLED: "shuffled with the seed",
}


def ordered(
    model: FrozenModel,
    pairs: Sequence[EncodedPair],
    order: Order,
    *,
    seed: int,
    on_chunk: OnChunk | None = None,
    should_stop: Stopper | None = None,
) -> tuple[int, ...]:
    """Indices of the pairs in the order in which they are to be held."""
    indices = list(range(len(pairs)))
    shuffled = random.Random(seed).sample(indices, len(indices))
    if order is Order.GIVEN:
        return tuple(indices)
    if order is Order.SHUFFLED:
        return tuple(shuffled)
    losses = _losses_in_context(model, pairs, shuffled, on_chunk, should_stop)
    # Ties, losses that are not numbers, and pairs that were not asked keep the order of the list.
    return tuple(sorted(indices, key=lambda index: (_finite(losses.get(index)), index)))


def _losses_in_context(
    model: FrozenModel,
    pairs: Sequence[EncodedPair],
    shuffled: Sequence[int],
    on_chunk: OnChunk | None,
    should_stop: Stopper | None,
) -> dict[int, float]:
    """Loss of each pair that was asked, behind shots that do not contain it."""
    shown = min(SHOTS, len(pairs) // 2)
    # Pairs that are long for the model's context leave room for fewer of them, or for none.
    room = model.card.context_length - max(len(pair.input_ids) for pair in pairs)
    first, second = shuffled[:shown], shuffled[shown : 2 * shown]
    losses: dict[int, float] = {}
    for shots, asked in ((first, shuffled[shown:]), (second, first)):
        if asked:
            context, _ = written_out_within([pairs[index] for index in shots], room)
            found = answers_behind(
                model,
                context,
                [pairs[index] for index in asked],
                on_chunk=on_chunk,
                should_stop=should_stop,
            )
            losses.update(zip(asked, found.loss_nats, strict=False))
    return losses


def _finite(loss: float | None) -> float:
    """A loss to sort by; infinite where it is unknown or no number."""
    return loss if loss is not None and loss < float("inf") else float("inf")
