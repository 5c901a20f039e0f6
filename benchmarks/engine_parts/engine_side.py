"""This package's side: optimiser steps of B problems, made of the parts that the engine is made of.

The loop of `capacity.train` does more between steps (it keeps the best prompt, reports,
and lets problems leave); this is its step alone, so that both sides of a comparison do the same.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from promptlimits.capacity.train.adam import StepSettings, step_numbers
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.memory import LogitBuffer
from promptlimits.capacity.train.objective import Rows, RowScores, score_rows
from promptlimits.capacity.train.state import PackedState, TrainingState
from promptlimits.nets.protocol import FrozenModel, PackedPairs, Part

LOGIT_BYTES: Final = 1 << 26
"""As a budget on a CPU has it by default (`promptlimits.capacity.train.memory`)."""


class EngineSteps:
    """Optimiser steps of B problems side by side, each with the loss of its own reads.

    Args:
        model: The frozen model.
        problems: B lists of pairs.
        prompts: B prompts (P_b, D) where they start.
        config: Settings of all of them; None for the plain mean loss, as PEFT has it, at a
            small fixed learning rate.
    """

    def __init__(
        self,
        model: FrozenModel,
        problems: Sequence[PackedPairs],
        prompts: Sequence[Tensor],
        *,
        config: TrainingConfig | None = None,
    ) -> None:
        began = time.perf_counter()
        self.config = config or plain_config(prompts[0].shape[0])
        parts = [
            Part(prompt_tokens=prompt.shape[0], pairs=pairs)
            for prompt, pairs in zip(prompts, problems, strict=True)
        ]
        self._batch = model.prepare(parts)
        self.prepare_seconds = time.perf_counter() - began
        self._head, self._memory = model.head, LogitBuffer().matrix
        scored = [(pairs, self.config, pairs.targets.numel()) for pairs in problems]
        self._rows = Rows.of(scored, dtype=torch.float32, logit_deviation=model.logit_deviation)
        self.state = PackedState.of(
            [
                TrainingState.start(prompt, pairs.num_pairs)
                for prompt, pairs in zip(prompts, problems, strict=True)
            ]
        )

    @property
    def prompts(self) -> Tensor:
        """(sum of P_b, D) as they stand."""
        return self.state.prompt

    def step(self) -> Tensor:
        """Forward, backward and update; the gradient (sum of P_b, D) from before the update."""
        return self.scored_step()[1]

    def evaluate(self, prompts: Tensor) -> tuple[RowScores, Tensor]:
        """Scores of prompts (sum of P_b, D) and the gradient of each problem's own loss."""
        leaf = prompts.detach().requires_grad_(True)
        states = self._batch.read_states(leaf)
        scores = score_rows(
            states, self._head, self._rows, logit_bytes=LOGIT_BYTES, memory=self._memory
        )
        (gradient,) = torch.autograd.grad(states, leaf, scores.gradient)
        return scores, gradient

    def scored_step(self) -> tuple[RowScores, Tensor]:
        """A step, with what its forward pass said of every read position, and its gradient."""
        scores, gradient = self.evaluate(self.state.prompt)
        settings = [
            StepSettings(
                moment_steps=moment_steps,
                learning_rate=self.config.learning_rate_at(step),
                clip_norm=self.config.clip_norm,
            )
            for step, moment_steps in zip(self.state.steps, self.state.moment_steps, strict=True)
        ]
        (numbers,) = step_numbers([settings], like=gradient)
        self.state = self.state.advanced(gradient, numbers)
        return scores, gradient


def plain_config(prompt_tokens: int) -> TrainingConfig:
    """The mean cross-entropy without sharpening."""
    return TrainingConfig(prompt_tokens=prompt_tokens, sharpening=1.0, learning_rate=1e-2)
