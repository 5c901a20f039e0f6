"""Adam over many problems whose prompts lie end to end, as a pure function.

`torch.optim.Adam` keeps its state inside and takes one learning rate for a parameter group;
here the state is a value that goes into the store after every step, and each problem has its
own learning rate, step count and clipping by the norm of its own gradient. The number of
kernel calls does not depend on the number of problems. The update is that of Kingma and Ba
(2015), Algorithm 1, and is tested against `torch.optim.Adam`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from promptlimits.nets.device import sent

BETA_1 = 0.9
BETA_2 = 0.99
EPSILON = 1e-8


@dataclass(frozen=True, kw_only=True, eq=False)
class Segments:
    """N rows of many problems end to end, cut into S segments, one for each problem.

    A sum over segments never mixes them, not even a NaN, and its order is fixed: `index_add` on
    CUDA adds in whatever order its threads arrive, so the same run would end in other bits.
    """

    sizes: tuple[int, ...]  # rows of each segment, as numbers
    lengths: Tensor  # (S,) the same as a tensor
    owner: Tensor  # (N,) the segment of each row

    @classmethod
    def of(cls, sizes: Sequence[int], *, device: torch.device) -> Segments:
        """Segments of given sizes, each at least 1."""
        lengths = torch.tensor(sizes, dtype=torch.long)
        owner = torch.repeat_interleave(torch.arange(len(sizes)), lengths)
        return cls(
            sizes=tuple(sizes),
            lengths=sent(lengths, device),
            owner=sent(owner, device),
        )

    def sum(self, values: Tensor) -> Tensor:
        """(S,) sums of values (N,) of a float dtype."""
        if values.device.type in {"cpu", "cuda"}:
            sums: Tensor = torch.segment_reduce(values, "sum", lengths=self.lengths, unsafe=True)
            return sums
        return values.new_zeros(len(self.sizes)).index_add(0, self.owner, values)

    def mean(self, values: Tensor) -> Tensor:
        """(S,) means of values (N,) of a float dtype."""
        return self.sum(values) / self.lengths

    def spread(self, values: Tensor) -> Tensor:
        """(N, ...) each row's own of values (S, ...)."""
        return values.index_select(0, self.owner)

    def split(self, values: Tensor) -> tuple[Tensor, ...]:
        """Views of values (N, ...), one for each segment."""
        views: tuple[Tensor, ...] = values.split(self.sizes)
        return views


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """How one problem takes its next step."""

    moment_steps: int  # steps that the moments are means over, before this one
    learning_rate: float  # step size
    clip_norm: float  # largest gradient norm


def clip_each(gradient: Tensor, segments: Segments, clip_norms: Tensor) -> Tensor:
    """Scale each problem's gradient to norm at most its own of `clip_norms` (B,)."""
    squares = segments.sum((gradient * gradient).sum(dim=1))
    norms = squares.sqrt().clamp_min(torch.finfo(gradient.dtype).tiny)
    factors = (clip_norms / norms).clamp_max(1.0)
    return gradient * segments.spread(factors)[:, None]


def adam_step(
    prompts: Tensor,
    gradient: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    *,
    segments: Segments,
    numbers: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of every problem; the inputs are not changed.

    Prompts, gradient and moments are (sum of P_b, W), end to end as `segments` says, and numbers
    (B, 3) are those of a step (`step_numbers`). What comes back are the prompts and both moments
    after the step.
    """
    clipped = clip_each(gradient, segments, numbers[:, 2])
    first = first_moment.lerp(clipped, 1 - BETA_1)
    second = second_moment.lerp(clipped * clipped, 1 - BETA_2)
    rate, spread_scale, _ = segments.spread(numbers).split(1, dim=1)
    spread = (second * spread_scale).sqrt()
    return prompts - rate * first / (spread + EPSILON), first, second


def step_numbers(steps: Sequence[Sequence[StepSettings]], *, like: Tensor) -> Tensor:
    """(steps, B, 3) what `adam_step` is told of each step, worked out in double precision."""
    numbers = [[_numbers(one) for one in settings] for settings in steps]
    return sent(torch.tensor(numbers, dtype=like.dtype), like.device)


def _numbers(one: StepSettings) -> tuple[float, float, float]:
    """Learning rate over the first bias correction, 1 over the second, and the clip norm."""
    after = one.moment_steps + 1
    return one.learning_rate / (1 - BETA_1**after), 1 / (1 - BETA_2**after), one.clip_norm
