"""Where the training of prompts starts, and its state: of one problem, and of many end to end.

A soft prompt's tokens start at the embeddings of random tokens: random normal vectors learn far
worse (Lester et al. 2021; PEFT's issue 2816). A prefix starts at the keys and values that random
tokens leave in the cache. A state is stored as a safetensors file: nothing in a store is ever
unpickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from promptlimits.base.errors import RunFailed
from promptlimits.capacity.train.adam import Segments, adam_step
from promptlimits.nets.protocol import FrozenModel, PromptKind

_ROWS = ("prompt", "first_moment", "second_moment", "best_prompt")
_PAIRS = ("best_exact",)
_NUMBERS = ("best_loss", "most_right")
_TENSORS = (*_ROWS, *_PAIRS, *_NUMBERS)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingState:
    """State of one problem after a number of steps.

    Attributes:
        step: Steps done.
        best_step: Step at which it last had more exact pairs or right tokens than ever before.
        moment_steps: Steps that the moments are means over: `step`, and those of the run that it
            goes on from.
        finishing: Whether a search in the model's faster twin is over (`Problem.searching`).
        prompt: (P, W) current prompt, in the dtype that it is trained in.
        first_moment: (P, W) Adam's running mean of the gradient.
        second_moment: (P, W) Adam's running mean of its square.
        best_prompt: (P, W) the prompt that was itself scored best; never a prompt from one
            step with the score of another.
        best_exact: (K,) the pairs that it answers exactly.
        best_loss: () its loss.
        most_right: () the largest share of right tokens that any prompt so far had.
    """

    step: int
    best_step: int
    moment_steps: int
    prompt: Tensor
    first_moment: Tensor
    second_moment: Tensor
    best_prompt: Tensor
    best_exact: Tensor
    best_loss: Tensor
    most_right: Tensor
    finishing: bool = False

    @classmethod
    def start(cls, prompt: Tensor, num_pairs: int) -> TrainingState:
        """State before the first step, from a prompt (P, W)."""
        return cls(
            step=0,
            best_step=0,
            moment_steps=0,
            prompt=prompt.detach().clone(),
            first_moment=torch.zeros_like(prompt),
            second_moment=torch.zeros_like(prompt),
            best_prompt=prompt.detach().clone(),
            best_exact=torch.zeros(num_pairs, dtype=torch.bool, device=prompt.device),
            best_loss=torch.full((), torch.inf, dtype=prompt.dtype, device=prompt.device),
            most_right=torch.zeros((), dtype=torch.float32, device=prompt.device),
        )

    def for_pairs(self, num_pairs: int, *, start: Tensor) -> TrainingState:
        """State before the first step for other pairs, from the best prompt and Adam's moments.

        Where `start` (P, W) is longer than the prompt (Q, W), its tokens stand in front.
        """

        def behind(fresh: Tensor, rows: Tensor) -> Tensor:
            return torch.cat([fresh[: len(fresh) - len(rows)], rows.to(fresh)])

        return replace(
            TrainingState.start(behind(start, self.best_prompt), num_pairs),
            moment_steps=self.moment_steps,
            first_moment=behind(torch.zeros_like(start), self.first_moment),
            second_moment=behind(torch.zeros_like(start), self.second_moment),
        )

    def finish(self) -> TrainingState:
        """State from which the model itself goes on from the best prompt, which it has not scored.

        Its patience begins anew.
        """
        unscored = TrainingState.start(self.best_prompt, len(self.best_exact))
        return replace(
            self,
            best_step=self.step,
            finishing=True,
            prompt=unscored.prompt,
            best_exact=unscored.best_exact,
            best_loss=unscored.best_loss,
            most_right=unscored.most_right,
        )

    def clone(self) -> TrainingState:
        """The same state in memory of its own."""
        return replace(self, **{name: getattr(self, name).clone() for name in _TENSORS})

    def to_bytes(self) -> bytes:
        """The state as a safetensors file."""
        tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in _TENSORS}
        tensors["counters"] = torch.tensor(
            [self.step, self.best_step, self.moment_steps, self.finishing]
        )
        return safetensors.torch.save(tensors)

    @classmethod
    def from_bytes(cls, data: bytes, *, device: torch.device) -> TrainingState:
        """Read what `to_bytes` wrote.

        Raises:
            RunFailed: The bytes are damaged.
        """
        try:
            tensors = safetensors.torch.load(data)
            step, best_step, moment_steps, finishing = tensors.pop("counters").tolist()
            moved = {name: tensors[name].to(device) for name in _TENSORS}
        except (SafetensorError, KeyError, ValueError) as error:
            raise RunFailed(
                f"a stored training state cannot be read ({error})",
                remedy="start over with a new --out folder",
            ) from error
        return cls(
            step=step,
            best_step=best_step,
            moment_steps=moment_steps,
            finishing=bool(finishing),
            **moved,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchScores:
    """What one pass says about B problems."""

    # (B,) each problem's mean loss over its read positions, over the share of the sharpening that
    # is on.
    loss_nats: Tensor
    exact: Tensor  # (sum of K_b,) whether every token of a pair wins with the required lead
    exact_pairs: Tensor  # (B,) how many do
    tokens_right: Tensor  # (B,) share of read positions whose token wins with that lead


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedState:
    """States of B problems: the tensors of `TrainingState`, end to end."""

    steps: tuple[int, ...]  # steps done by each problem
    best_steps: tuple[int, ...]  # step at which each last became better, in pairs or in tokens
    moment_steps: tuple[int, ...]  # steps that each one's moments are means over
    finishing: tuple[bool, ...]  # whether each one's search is over
    prompt: Tensor  # (sum of P_b, W), as are both moments and the best prompts
    first_moment: Tensor
    second_moment: Tensor
    best_prompt: Tensor
    best_exact: Tensor  # (sum of K_b,)
    best_loss: Tensor  # (B,), as is the largest share of right tokens
    most_right: Tensor
    rows: Segments  # which rows of the prompts belong to which problem
    pairs: Segments  # which pairs do

    @classmethod
    def of(cls, states: Sequence[TrainingState]) -> PackedState:
        """Pack states of equal width and dtype."""
        device = states[0].prompt.device
        tensors = {
            name: (torch.stack if name in _NUMBERS else torch.cat)(
                [getattr(state, name) for state in states]
            )
            for name in _TENSORS
        }
        return cls(
            steps=tuple(state.step for state in states),
            best_steps=tuple(state.best_step for state in states),
            moment_steps=tuple(state.moment_steps for state in states),
            finishing=tuple(state.finishing for state in states),
            rows=Segments.of([len(state.prompt) for state in states], device=device),
            pairs=Segments.of([len(state.best_exact) for state in states], device=device),
            **tensors,
        )

    def unpacked(self) -> tuple[TrainingState, ...]:
        """Each problem's state, as views: no step ever writes into the tensors of an old one."""
        columns = (
            *(self.rows.split(getattr(self, name)) for name in _ROWS),
            *(self.pairs.split(getattr(self, name)) for name in _PAIRS),
            *(getattr(self, name).unbind() for name in _NUMBERS),
        )
        counters = self.steps, self.best_steps, self.moment_steps, self.finishing
        each = zip(*counters, *columns, strict=True)
        return tuple(
            TrainingState(
                step=step,
                best_step=best_step,
                moment_steps=moment_steps,
                finishing=finishing,
                **dict(zip(_TENSORS, tensors, strict=True)),
            )
            for step, best_step, moment_steps, finishing, *tensors in each
        )

    def on_host(self) -> PackedState:
        """The same in the host's memory: one copy for each tensor, however many problems."""
        return replace(self, **{name: getattr(self, name).cpu() for name in _TENSORS})

    def remembering(self, scores: BatchScores) -> tuple[PackedState, Tensor, Tensor]:
        """Keep the prompts that were just scored, where they beat the best so far."""
        before = self.pairs.sum(self.best_exact.to(scores.exact_pairs.dtype))
        more = scores.exact_pairs > before
        as_many = scores.exact_pairs == before
        loss = scores.loss_nats.to(self.best_loss.dtype)
        better = more | (as_many & (loss < self.best_loss))
        # A long pair shows no progress in pairs until its last token is right.
        right = torch.maximum(scores.tokens_right, self.most_right)
        gained = more | (right > self.most_right)
        kept = replace(
            self,
            best_prompt=torch.where(
                self.rows.spread(better)[:, None], self.prompt, self.best_prompt
            ),
            best_exact=torch.where(self.pairs.spread(better), scores.exact, self.best_exact),
            best_loss=torch.where(better, loss, self.best_loss),
            most_right=right,
        )
        return kept, torch.maximum(scores.exact_pairs, before), gained

    def advanced(self, gradient: Tensor, numbers: Tensor) -> PackedState:
        """Take one step of Adam in every problem, of numbers (B, 3) (`adam.step_numbers`)."""
        prompts, first, second = adam_step(
            self.prompt,
            gradient,
            self.first_moment,
            self.second_moment,
            segments=self.rows,
            numbers=numbers,
        )
        return replace(
            self,
            steps=tuple(step + 1 for step in self.steps),
            moment_steps=tuple(step + 1 for step in self.moment_steps),
            prompt=prompts,
            first_moment=first,
            second_moment=second,
        )

    def finite(self) -> Tensor:
        """(B,) whether every number of a problem's prompt is finite."""
        broken = (~torch.isfinite(self.prompt)).any(dim=1)
        return self.rows.sum(broken.to(torch.float32)) == 0


def from_vocabulary(
    model: FrozenModel,
    *,
    count: int,
    prompt_tokens: int,
    generator: torch.Generator,
    kind: PromptKind = PromptKind.SOFT,
) -> Tensor:
    """Prompts made of random ordinary tokens: their embeddings, or what they leave cached.

    Args:
        model: The frozen model.
        count: B, how many prompts.
        prompt_tokens: P, tokens in each.
        generator: Source of randomness, on the CPU so that every device draws the same.
        kind: What the prompts are.

    Returns:
        (B, P, W) on the model's device, in float32: the prompt is stored and trained in
        float32 whatever the weights are.
    """
    choices = torch.tensor(model.codec.plain_token_ids(), dtype=torch.long)
    drawn = torch.randint(len(choices), (count, prompt_tokens), generator=generator)
    ids = choices[drawn].to(model.device)
    if kind is PromptKind.PREFIX:
        return model.prefix_from_tokens(ids)
    with torch.no_grad():
        vectors = model.embed(ids)
    return vectors.to(torch.float32)
