"""Everything one problem needs to go on after it was cut off, as bytes.

The bytes are a safetensors file: nothing in a store is ever unpickled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from promptlimits.base.errors import RunFailed

_TENSORS = (
    "prompt",
    "first_moment",
    "second_moment",
    "best_prompt",
    "best_exact",
    "best_loss",
    "most_right",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingState:
    """State of one problem after a number of steps.

    Attributes:
        step: Steps done.
        best_step: Step at which it last had more exact pairs or right tokens than ever before.
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
    prompt: Tensor
    first_moment: Tensor
    second_moment: Tensor
    best_prompt: Tensor
    best_exact: Tensor
    best_loss: Tensor
    most_right: Tensor

    @classmethod
    def start(cls, prompt: Tensor, num_pairs: int) -> TrainingState:
        """State before the first step, from a prompt (P, W)."""
        return cls(
            step=0,
            best_step=0,
            prompt=prompt.detach().clone(),
            first_moment=torch.zeros_like(prompt),
            second_moment=torch.zeros_like(prompt),
            best_prompt=prompt.detach().clone(),
            best_exact=torch.zeros(num_pairs, dtype=torch.bool, device=prompt.device),
            best_loss=torch.full((), torch.inf, dtype=prompt.dtype, device=prompt.device),
            most_right=torch.zeros((), dtype=torch.float32, device=prompt.device),
        )

    def clone(self) -> TrainingState:
        """The same state in memory of its own."""
        return replace(self, **{name: getattr(self, name).clone() for name in _TENSORS})

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
