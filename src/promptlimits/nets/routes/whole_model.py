"""Prompts through transformers' own forward pass: for families this package has no code for.

Parts run one after the other, and what is read of them are logits, so the head is the
identity. Slower than `decoder`, exact all the same, and open to every causal model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from promptlimits.nets.load.network import LOADING_ERRORS, quiet
from promptlimits.nets.prefix_shape import PrefixShape, not_replayable
from promptlimits.nets.protocol import Memory, PackedPairs, Part, PromptKind
from promptlimits.nets.routes import shared_prefix
from promptlimits.nets.routes.separate import (
    concatenated_logits,
    prefix_from_tokens,
    prefixed_logits,
    replays_prefix,
)

_KEPT_OF_WIDTH: Final = 14
_KEPT_OF_HIDDEN: Final = 5
_KEPT_OF_SCORES: Final = 8
_KEPT_OF_LOGITS: Final = 3
"""Tensors that autograd keeps in a block, or that come and go, of each shape: found by
measurement on five families."""

PartLogits: TypeAlias = Callable[[Tensor, PackedPairs], Tensor]
"""From one prompt (P, W) and K pairs to logits (R, V)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlainBatch:
    """Parts as they are: nothing is computed before the prompts are known."""

    parts: tuple[Part, ...]
    kind: PromptKind
    logits_of: PartLogits  # runs one part
    dtype: torch.dtype  # what the model computes with

    def read_states(self, prompts: Tensor) -> Tensor:
        """Logits (R, V) at the read positions of all parts, one part after the other."""
        each = prompts.to(self.dtype).split([part.prompt_tokens for part in self.parts])
        return torch.cat(
            [
                self.logits_of(prompt, part.pairs)
                for prompt, part in zip(each, self.parts, strict=True)
            ]
        )

    def kept_bytes(self, states: Tensor) -> int:
        """Nothing: autograd keeps, and sees, all of it."""
        return 0


@dataclass(frozen=True, kw_only=True, eq=False)
class IdentityHead:
    """The head of a model whose states are its logits."""

    vocabulary: int  # V

    def logits(self, states: Tensor, memory: Memory | None = None) -> Tensor:
        """The states; no memory is asked for."""
        return states

    def pull_back(self, gradient: Tensor) -> Tensor:
        """The gradient."""
        return gradient

    def pull_back_tokens(self, tokens: Tensor, factor: float, into: Tensor) -> Tensor:
        """Add `factor` at the tokens (R, 1)."""
        return into.scatter_add_(1, tokens, into.new_full(tokens.shape, factor))

    def blocks(self, most: int) -> Sequence[IdentityHead]:
        """Itself: its states are not divided."""
        return [self]


class WholeModel:
    """A stock network, run with the attention that transformers chose, or with that replaced."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._stock_attention_name = model.config._attn_implementation
        self._shares_prefix = False  # whether the attention is replaced

    @cached_property
    def prefix_shape(self) -> PrefixShape:
        """How its prefixes are laid out; UserError if stock tools cannot replay one."""
        family = str(self._model.config.model_type)
        with quiet(), self._stock_attention():
            try:
                shape = PrefixShape.of(self._model)
                same = replays_prefix(self._model, shape)
            except LOADING_ERRORS as error:
                words = " ".join(str(error).split())[:120].rstrip(".")
                raise not_replayable(family, f"{type(error).__name__}: {words}") from error
        if not same:
            raise not_replayable(family, "token ids behind a prefix read otherwise than embeddings")
        return shape

    def prefix_from_tokens(self, ids: Tensor) -> Tensor:
        """(B, P, W) in float32: what tokens (B, P) at the start of a sequence leave cached."""
        shape = self.prefix_shape
        with self._stock_attention():
            return prefix_from_tokens(self._model, ids, shape=shape)

    def share_prefix(
        self, agrees: Callable[[Tensor], bool], probe: PackedPairs, prompts: Tensor
    ) -> str | None:
        """Replace the attention if that gives the right logits."""
        AttentionInterface.register(shared_prefix.ATTENTION_NAME, shared_prefix.attend)
        try:
            self._set_attention(shared_prefix.ATTENTION_NAME)
            if agrees(self._shared_logits(prompts, probe)):
                self._shares_prefix = True
                return None
            reason = "its attention differs from plain softmax attention"
        except LOADING_ERRORS as error:
            reason = f"its attention cannot be replaced ({type(error).__name__})"
        self._set_attention(self._stock_attention_name)
        return reason

    def soft_logits(self, prompts: Tensor, pairs: PackedPairs) -> Tensor:
        """Logits (B, R, V) behind soft prompts (B, P, D)."""
        if self._shares_prefix:
            return self._shared_logits(prompts, pairs)
        return concatenated_logits(self._model, prompts, self.embed(pairs.input_ids), pairs)

    def prefix_logits(self, prefixes: Tensor, pairs: PackedPairs) -> Tensor:
        """Logits (B, R, V) behind KV prefixes (B, P, W)."""
        tokens, shape = self.embed(pairs.input_ids), self.prefix_shape
        with self._stock_attention():
            return prefixed_logits(self._model, prefixes, tokens, pairs, shape=shape)

    def prepare(self, parts: tuple[Part, ...], kind: PromptKind) -> PlainBatch:
        """A batch that runs part by part."""
        run = self.soft_logits if kind is PromptKind.SOFT else self.prefix_logits

        def logits(prompt: Tensor, pairs: PackedPairs) -> Tensor:
            return run(prompt[None], pairs)[0]

        return PlainBatch(parts=parts, kind=kind, logits_of=logits, dtype=self._model.dtype)

    def step_bytes(self, part: Part, kind: PromptKind) -> int:
        """About how much memory a forward and a backward pass of a part takes.

        With its logits: they are what is read of a stock network, so all of them are alive at
        once, and where each pair runs on its own so are those that nobody reads.
        """
        config = self._model.config.get_text_config()
        prompt, longest = part.prompt_tokens, part.pairs.longest
        seen, count = prompt + longest, part.pairs.num_pairs
        kept = 0
        if kind is PromptKind.SOFT and self._shares_prefix:
            tokens = part.pairs.input_ids.numel()
            rows, logits = prompt + tokens, part.pairs.read.numel()
            scores = tokens * seen + prompt * prompt
        elif kind is PromptKind.SOFT:
            rows = logits = count * seen
            scores = rows * seen
        else:
            rows = logits = count * longest
            scores = rows * seen
            # Each pair's copy in its cache, and the same again with its own tokens behind.
            kept = 2 * count * seen * self.prefix_shape.width
        layers, heads = config.num_hidden_layers, _heads(config)
        inner = _widest(config)
        fused = self._stock_attention_name == "sdpa" and not (
            kind is PromptKind.SOFT and self._shares_prefix
        )
        kept += layers * rows * _KEPT_OF_HIDDEN * inner
        kept += layers * (2 if fused else _KEPT_OF_SCORES) * heads * scores
        kept += _KEPT_OF_LOGITS * logits * self._model.get_input_embeddings().weight.shape[0]
        # Norms compute in float32 at least.
        wide = max(self._model.dtype.itemsize, torch.float32.itemsize)
        widths = layers * rows * _KEPT_OF_WIDTH * config.hidden_size
        return int(self._model.dtype.itemsize * kept + wide * widths)

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings (..., D) of token ids (...), with the model's own scaling."""
        # Called, not indexed: Gemma scales inside the module.
        embeddings: Tensor = self._model.get_input_embeddings()(ids)
        return embeddings

    def _shared_logits(self, prompts: Tensor, pairs: PackedPairs) -> Tensor:
        batch, prompt_tokens, _ = prompts.shape
        layout = shared_prefix.PrefixLayout.of(pairs, prompt_tokens)
        tokens = self.embed(pairs.input_ids).expand(batch, -1, -1)
        output = self._model(
            inputs_embeds=torch.cat([prompts, tokens], dim=1),
            position_ids=layout.positions.expand(batch, -1),
            logits_to_keep=prompt_tokens + pairs.read,
            shared_prefix=layout,
            use_cache=False,
        )
        logits: Tensor = output.logits
        return logits

    @contextmanager
    def _stock_attention(self) -> Iterator[None]:
        """The attention that transformers chose, for as long as the block runs."""
        now = self._model.config._attn_implementation
        if now == self._stock_attention_name:
            yield
            return
        self._set_attention(self._stock_attention_name)
        try:
            yield
        finally:
            self._set_attention(now)

    def _set_attention(self, name: str) -> None:
        with quiet():
            self._model.set_attn_implementation(name)


def _heads(config: Any) -> int:
    """Attention heads, the most of any layer; 1 in a model without attention."""
    return _most(getattr(config, "num_attention_heads", None)) or 1


def _widest(config: Any) -> int:
    """Width inside the feed-forward layers, the most of any layer."""
    return _most(getattr(config, "intermediate_size", None)) or 4 * int(config.hidden_size)


def _most(setting: Any) -> int:
    """A setting that some families give for each layer; 0 if there is none."""
    return max(setting) if isinstance(setting, list | tuple) and setting else int(setting or 0)
