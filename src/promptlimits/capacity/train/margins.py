"""Each row's target logit against those of all other tokens, the vocabulary block by block.

With l the logits of a row, s its sharpening and m the largest logit of the others so far, a block
adds its exp(s l_j - s m) to a sum, and what its softmax pulls back to enters a mean with their
share of it. A block that raises m shrinks the sum first (the streaming softmax, `milakov2018`). So
one block is alive at a time: it is written, read and pulled back while it is in the processor's
cache, and the head's weights are passed once for all rows, however large the
vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from promptlimits.capacity.train.config import Objective
from promptlimits.nets.decoder.attention import softmax_of
from promptlimits.nets.protocol import Memory, ReadHead

_LOWEST: Final = -1e30
"""Far below any logit, sharpened or not, and finite when it is sharpened up to 1e8 times."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Margins:
    """Target logits against those of the other tokens (the competitors), n rows."""

    own: Tensor  # (n, 1) the target's logit
    low: Tensor  # (n, 1) the smallest logit of another token
    others: Tensor  # (n, 1) the largest
    gap: Tensor  # (n, 1) g, of which softplus(g) is the loss (`objective`)
    # (n, S) of g over the sharpening, in the states, in float32 at least; empty where none was
    # asked for.
    gradient: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class _Block:
    """A block of logits whose targets are taken out: a neighbour's logit stands in for each."""

    head: ReadHead  # the block's head
    logits: Tensor  # (n, tokens)
    place: Tensor  # (n, 1) the target's column, or any column
    # (n, 1) whether it is the target's; None for a block that has all targets.
    inside: Tensor | None
    own: Tensor  # (n, 1) the target's logit, 0 outside
    low: Tensor  # (n, 1) the smallest logit that is left
    high: Tensor  # (n, 1) the largest

    def put(self, number: float) -> Tensor:
        """The logits, a number in place of each target's stand-in.

        In a row whose target is elsewhere, the column that stands for it is not left below that.
        """
        if self.inside is None:
            return self.logits.scatter_(1, self.place, number)
        stands_in = self.logits.gather(1, self.place).masked_fill_(self.inside, number)
        return self.logits.scatter_(1, self.place, stands_in.clamp_min_(number))


def margins(
    states: Tensor,
    head: ReadHead,
    targets: Tensor,
    sharpenings: Tensor,
    objective: Objective,
    *,
    blocks: Sequence[ReadHead],
    differentiate: bool = True,
    memory: Memory | None = None,
) -> Margins:
    """Compare every row's target with all other tokens."""
    sharpening = sharpenings.to(torch.promote_types(states.dtype, torch.float32))
    compare = _strongest if objective is Objective.MARGIN else _all_competitors
    written = _blocks(states, blocks, targets, memory)
    return compare(states, head, targets, sharpening, written, differentiate=differentiate)


def _all_competitors(
    states: Tensor,
    head: ReadHead,
    targets: Tensor,
    sharpening: Tensor,
    blocks: Iterator[_Block],
    *,
    differentiate: bool,
) -> Margins:
    """The gap is log sum_j exp(s l_j) - s l_t over the other tokens j."""

    def weigh(block: _Block) -> tuple[Tensor, Tensor]:
        """Sum of the exponentials, below the largest, and what their shares pull back to."""
        block.logits.mul_(sharpening)
        shares = softmax_of(block.put(_LOWEST))
        # The largest share is one over the sum.
        total = shares.amax(dim=1, keepdim=True).reciprocal_()
        if not differentiate:
            return total, total[:0]
        return total, block.head.pull_back(shares.to(states.dtype)).to(total.dtype)

    first = next(blocks)
    own, low, others = first.own, first.low, first.high
    total, gradient = weigh(first)
    del first
    for block in blocks:
        own, low, before = own + block.own, torch.minimum(low, block.low), others
        others = torch.maximum(before, block.high)
        fresh, pulled = weigh(block)
        # The very products that the softmax subtracts: their rounding cancels.
        highest = sharpening * others
        fresh.mul_((sharpening * block.high).sub_(highest).exp_())
        total = fresh.addcmul(total, (sharpening * before).sub_(highest).exp_())
        gradient = torch.lerp(gradient, pulled, fresh / total) if differentiate else gradient
        del block
    if differentiate:
        gradient = head.pull_back_tokens(targets, -1.0, gradient)
    gap = total.log() + sharpening * (others - own)
    return Margins(own=own, low=low, others=others, gap=gap, gradient=gradient)


def _strongest(
    states: Tensor,
    head: ReadHead,
    targets: Tensor,
    sharpening: Tensor,
    blocks: Iterator[_Block],
    *,
    differentiate: bool,
) -> Margins:
    """The gap is s (max_j l_j - l_t), the hinge over the strongest other token j."""
    first = next(blocks)
    own, low, others = first.own, first.low, first.high
    strongest, start = first.put(-torch.inf).argmax(dim=1, keepdim=True), first.head.vocabulary
    del first
    for block in blocks:
        best = start + block.put(-torch.inf).argmax(dim=1, keepdim=True)
        strongest = torch.where(block.high > others, best, strongest)
        own, low = own + block.own, torch.minimum(low, block.low)
        others, start = torch.maximum(others, block.high), start + block.head.vocabulary
        del block
    gradient = own[:0]
    if differentiate:
        nothing = torch.zeros_like(states, dtype=own.dtype)
        gradient = head.pull_back_tokens(strongest, 1.0, nothing)
        gradient = head.pull_back_tokens(targets, -1.0, gradient)
    gap = sharpening * (others - own)
    return Margins(own=own, low=low, others=others, gap=gap, gradient=gradient)


def _blocks(
    states: Tensor, heads: Sequence[ReadHead], targets: Tensor, memory: Memory | None
) -> Iterator[_Block]:
    """The blocks of the vocabulary, each good until the next is asked for."""
    start = 0
    for head in heads:
        logits = _writable(head.logits(states, memory), states)
        place, inside = targets, None
        if len(heads) > 1:
            place = (targets - start).clamp_(0, head.vocabulary - 1)
            inside = place + start == targets
        own = logits.gather(1, place)
        # A neighbour's logit in place of the target's: extremes of the others, without a copy.
        neighbour = logits.gather(1, (place == 0).to(place.dtype))
        stand_in = neighbour if inside is None else torch.where(inside, neighbour, own)
        logits.scatter_(1, place, stand_in)
        high = logits.amax(dim=1, keepdim=True)
        block = _Block(
            head=head,
            logits=logits,
            place=place,
            inside=inside,
            own=own if inside is None else own.masked_fill_(~inside, 0.0),
            # Not aminmax: on a CPU it is 17 times as slow as these two.
            low=logits.amin(dim=1, keepdim=True),
            # Finite, so that where all of a block are -inf none is subtracted from itself.
            high=high if inside is None else high.clamp_min_(_LOWEST),
        )
        # Nobody holds on to a block while the next one is made.
        del logits
        yield block
        del block
        start += head.vocabulary


def _writable(logits: Tensor, states: Tensor) -> Tensor:
    """Logits in at least single precision and in memory that nobody else reads."""
    if logits.dtype.itemsize < torch.float32.itemsize:
        return logits.float()
    # Compared by storage: a head may hand its states back as they are.
    shared = logits.untyped_storage().data_ptr() == states.untyped_storage().data_ptr()
    return logits.clone() if shared else logits
