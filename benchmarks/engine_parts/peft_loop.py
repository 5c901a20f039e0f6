"""The plain prompt-tuning loop, as a user of PEFT writes it.

One padded sequence for each pair, labels of -100 outside the values, PEFT's own model class in
front of stock attention, `loss.backward()` and torch's optimiser on the one trainable matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel

from promptlimits.nets.load.network import quiet
from promptlimits.nets.protocol import EncodedPair

IGNORED = -100


class PeftLoop:
    """A prompt, its optimiser and one batch of all pairs.

    Args:
        stock: The network; PEFT's prompt tuning wraps it and leaves it as it is.
        pairs: The pairs.
        prompt: (P, D) where the prompt starts.
        learning_rate: AdamW's step.
    """

    def __init__(
        self,
        stock: PreTrainedModel,
        pairs: Sequence[EncodedPair],
        prompt: Tensor,
        *,
        learning_rate: float = 1e-2,
    ) -> None:
        config = PromptTuningConfig(
            task_type=TaskType.CAUSAL_LM, num_virtual_tokens=prompt.shape[0]
        )
        # PEFT asks for an attribute that transformers has deprecated.
        with quiet():
            self._model = get_peft_model(stock, config)
        self._weight = self._model.prompt_encoder["default"].embedding.weight
        with torch.no_grad():
            self._weight.copy_(prompt)
        self._optimizer = torch.optim.AdamW([self._weight], lr=learning_rate, weight_decay=0.0)
        self._ids, self._mask, self._labels = padded(pairs)

    @property
    def prompt(self) -> Tensor:
        """(P, D) as it stands."""
        return self._weight.detach().clone()

    @property
    def gradient(self) -> Tensor:
        """(P, D) of the last step's loss, the mean over all value tokens."""
        if self._weight.grad is None:
            raise AssertionError("no step was done")
        return self._weight.grad.clone()

    def step(self) -> Tensor:
        """Forward, backward and update.

        Returns:
            Logits (K, P + tokens, V) of the forward pass, from before the update.
        """
        self._optimizer.zero_grad()
        output = self._model(input_ids=self._ids, attention_mask=self._mask, labels=self._labels)
        output.loss.backward()
        self._optimizer.step()
        logits: Tensor = output.logits.detach()
        return logits

    def all_exact(self, logits: Tensor) -> bool:
        """Whether every value token wins, so that greedy decoding gives every value."""
        predicted = logits[:, self.prompt.shape[0] :].argmax(dim=-1)[:, :-1]
        wanted = self._labels[:, 1:]
        return bool(((predicted == wanted) | (wanted == IGNORED)).all())

    @torch.no_grad()
    def holds(self, prompt: Tensor) -> bool:
        """Whether another prompt (P, D) gives every value through PEFT's forward pass."""
        before = self.prompt
        self._weight.copy_(prompt)
        logits = self._model(input_ids=self._ids, attention_mask=self._mask).logits
        self._weight.copy_(before)
        return self.all_exact(logits)


def padded(pairs: Sequence[EncodedPair]) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, mask and labels (K, longest), filled up at the end.

    Args:
        pairs: The pairs; key and whole value are both put in.

    Returns:
        The batch that a data collator makes.
    """
    longest = max(len(pair.key_ids) + len(pair.value_ids) for pair in pairs)
    ids = torch.zeros(len(pairs), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, IGNORED)
    for row, pair in enumerate(pairs):
        key, end = len(pair.key_ids), len(pair.key_ids) + len(pair.value_ids)
        ids[row, :end] = torch.tensor(pair.key_ids + pair.value_ids)
        mask[row, :end] = 1
        labels[row, key:end] = torch.tensor(pair.value_ids)
    return ids, mask, labels
