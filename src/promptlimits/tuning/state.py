"""Everything a training run needs to go on after it was cut off, as bytes.

The bytes are a safetensors file: nothing in a store is ever unpickled.
"""

from __future__ import annotations

from dataclasses import dataclass

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from promptlimits.errors import RunFailed

_TENSORS = ("prompts", "first_moment", "second_moment", "best_prompts", "best_exact", "best_loss")


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingState:
    """State after a number of steps.

    Attributes:
        step: Steps done.
        best_step: Step at which the best of all problems last became better.
        prompts: (B, P, D) current prompts.
        first_moment: (B, P, D) Adam's running mean of the gradient.
        second_moment: (B, P, D) Adam's running mean of its square.
        best_prompts: (B, P, D) the prompts that were themselves scored best; never a prompt
            from one step with the score of another.
        best_exact: (B, K) the pairs that those answer exactly.
        best_loss: (B,) their losses.
    """

    step: int
    best_step: int
    prompts: Tensor
    first_moment: Tensor
    second_moment: Tensor
    best_prompts: Tensor
    best_exact: Tensor
    best_loss: Tensor

    @classmethod
    def start(cls, prompts: Tensor, num_pairs: int) -> TrainingState:
        """State before the first step, from prompts (B, P, D)."""
        batch = prompts.shape[0]
        return cls(
            step=0,
            best_step=0,
            prompts=prompts.detach().clone(),
            first_moment=torch.zeros_like(prompts),
            second_moment=torch.zeros_like(prompts),
            best_prompts=prompts.detach().clone(),
            best_exact=torch.zeros(batch, num_pairs, dtype=torch.bool, device=prompts.device),
            best_loss=torch.full((batch,), torch.inf, device=prompts.device),
        )

    def to_bytes(self) -> bytes:
        """The state as a safetensors file."""
        tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in _TENSORS}
        tensors["counters"] = torch.tensor([self.step, self.best_step])
        return safetensors.torch.save(tensors)

    @classmethod
    def from_bytes(cls, data: bytes, *, device: torch.device) -> TrainingState:
        """Read what `to_bytes` wrote.

        Raises:
            RunFailed: The bytes are damaged.
        """
        try:
            tensors = safetensors.torch.load(data)
            step, best_step = tensors.pop("counters").tolist()
            moved = {name: tensors[name].to(device) for name in _TENSORS}
        except (SafetensorError, KeyError, ValueError) as error:
            raise RunFailed(
                f"a stored training state cannot be read ({error})",
                remedy="start over with a new --out folder",
            ) from error
        return cls(step=step, best_step=best_step, **moved)
