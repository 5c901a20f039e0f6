"""A frozen causal language model from transformers, read through soft prompts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor
from transformers import PreTrainedModel

from promptlimits.errors import PromptLimitsWarning, UserError
from promptlimits.models.huggingface import shared_prefix
from promptlimits.models.huggingface.concatenation import concatenated_logits
from promptlimits.models.huggingface.prefix import prefix_from_tokens, prefixed_logits
from promptlimits.models.huggingface.quiet import quiet
from promptlimits.models.huggingface.whole_model import (
    IdentityHead,
    PlainBatch,
)
from promptlimits.models.prefix_shape import PrefixShape
from promptlimits.models.protocol import (
    EncodedPair,
    ModelCard,
    PackedPairs,
    Part,
    PromptKind,
    TextCodec,
    pack,
)


class HuggingFaceCausalLM:
    """A frozen model behind `promptlimits.models.protocol.FrozenModel`.

    On construction the shared prefix is compared with plain concatenation on two short
    pairs. Families whose attention cannot be replaced, or does something this package does
    not know, fail that comparison: they fall back to concatenation, with a warning.

    Args:
        model: The network; its weights are frozen and it is put in evaluation mode.
        card: What records say about it.
        codec: Its text codec.

    Raises:
        UserError: Its embeddings have another dtype than the rest.
    """

    def __init__(self, model: PreTrainedModel, *, card: ModelCard, codec: TextCodec) -> None:
        self._model = model.eval().requires_grad_(False)
        self._card = card
        self._codec = codec
        self._require_one_dtype()
        self._stock_name = self._model.config._attn_implementation
        self._shares_prefix = self._switch_to_shared_prefix()

    @property
    def card(self) -> ModelCard:
        """What a record says about it."""
        return self._card

    @property
    def codec(self) -> TextCodec:
        """Its text codec."""
        return self._codec

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        device: torch.device = self._model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes with."""
        dtype: torch.dtype = self._model.dtype
        return dtype

    @property
    def shares_prefix(self) -> bool:
        """Whether the prompt runs once for all pairs, or once for each."""
        return self._shares_prefix

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings (..., D) of token ids (...), with the model's own scaling."""
        # Called, not indexed: Gemma scales inside the module.
        embeddings: Tensor = self._model.get_input_embeddings()(ids)
        return embeddings

    @property
    def head(self) -> IdentityHead:
        """What turns read states into logits."""
        return IdentityHead(vocabulary=self._card.vocabulary)

    def prompt_width(self, kind: PromptKind) -> int:
        """W, numbers in one row of a prompt of that kind."""
        return self._card.dim if kind is PromptKind.SOFT else self.prefix_shape.width

    @cached_property
    def prefix_shape(self) -> PrefixShape:
        """How its prefixes are laid out; UserError if stock tools cannot replay one."""
        with self._stock_attention():
            return PrefixShape.of(self._model)

    def prefix_from_tokens(self, ids: Tensor) -> Tensor:
        """(B, P, W) in float32: what tokens (B, P) at the start of a sequence leave cached."""
        shape = self.prefix_shape
        with self._stock_attention():
            return prefix_from_tokens(self._model, ids, shape=shape)

    def prepare(self, parts: Sequence[Part], *, kind: PromptKind = PromptKind.SOFT) -> PlainBatch:
        """Lay parts out side by side and compute what no prompt changes."""

        def logits(prompt: Tensor, pairs: PackedPairs) -> Tensor:
            return self.next_token_logits(prompt[None], pairs)[0]

        def behind_prefix(prefix: Tensor, pairs: PackedPairs) -> Tensor:
            tokens, shape = self.embed(pairs.input_ids), self.prefix_shape
            with self._stock_attention():
                return prefixed_logits(self._model, prefix[None], tokens, pairs, shape=shape)[0]

        run = logits if kind is PromptKind.SOFT else behind_prefix
        return PlainBatch(parts=tuple(parts), kind=kind, logits_of=run, dtype=self.dtype)

    def step_bytes(self, part: Part, *, kind: PromptKind = PromptKind.SOFT) -> int:
        """About how much memory a forward and a backward pass of a part takes, logits aside."""
        tokens = part.prompt_tokens + int(part.pairs.lengths.sum())
        # Some 20 tensors of the width of a token are kept for each token in each block.
        return 4 * 20 * tokens * self._card.dim * self._card.layers

    def next_token_logits(self, prompts: Tensor, pairs: PackedPairs) -> Tensor:
        """Logits (B, R, V) at the read positions, behind prompts (B, P, D); P may be 0."""
        if not self._shares_prefix:
            return concatenated_logits(self._model, prompts, self.embed(pairs.input_ids), pairs)
        return self._shared_logits(prompts, pairs)

    def _require_one_dtype(self) -> None:
        """Refuse a model whose prompts would be wider numbers than its card says.

        Raises:
            UserError: Its embeddings have another dtype: a ceiling would count too few prompts.
        """
        embedded = self.embed(torch.zeros(1, dtype=torch.long, device=self.device))
        found = str(embedded.dtype).removeprefix("torch.")
        if found != self._card.compute_dtype:
            raise UserError(
                f"model {self._card.name}",
                f"have embeddings of the dtype it computes with ({self._card.compute_dtype})",
                got=found,
                remedy="load it with --dtype float32",
            )

    @contextmanager
    def _stock_attention(self) -> Iterator[None]:
        """The attention that transformers chose, for as long as the block runs."""
        now = self._model.config._attn_implementation
        if now == self._stock_name:
            yield
            return
        with quiet():
            self._model.set_attn_implementation(self._stock_name)
        try:
            yield
        finally:
            with quiet():
                self._model.set_attn_implementation(now)

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

    @torch.no_grad()
    def _switch_to_shared_prefix(self) -> bool:
        """Switch attention over if that gives what concatenation gives."""
        shared_prefix.register()
        ids = torch.arange(5, device=self.device) % self._card.vocabulary
        probe = pack(
            [
                _probe(ids[:1], ids[1:3]),
                _probe(ids[:4], ids[4:]),
            ],
            device=self.device,
        )
        prompts = self.embed(ids[1:4]).unsqueeze(0)
        expected = concatenated_logits(self._model, prompts, self.embed(probe.input_ids), probe)
        stock = self._model.config._attn_implementation
        try:
            with quiet():
                self._model.set_attn_implementation(shared_prefix.ATTENTION_NAME)
            found = self._shared_logits(prompts, probe)
            # Half the digits: far above rounding, far below any real difference. Stock eager
            # attention takes its softmax in float32 whatever the dtype.
            eps = max(torch.finfo(self.dtype).eps, torch.finfo(torch.float32).eps)
            tolerance = eps**0.5 * float(expected.abs().max())
            if found.shape == expected.shape and bool((found - expected).abs().max() <= tolerance):
                return True
            reason = "its attention differs from plain softmax attention"
        except (TypeError, ValueError, AttributeError, RuntimeError, NotImplementedError) as error:
            reason = f"its attention cannot be replaced ({type(error).__name__})"
        with quiet():
            self._model.set_attn_implementation(stock)
        warnings.warn(
            f"{self._card.name}: the prompt is run once for every pair, because {reason}; "
            "results are the same, slower",
            PromptLimitsWarning,
            stacklevel=3,
        )
        return False


def _probe(key: Tensor, value: Tensor) -> EncodedPair:
    return EncodedPair(
        key="", value="", key_ids=tuple(key.tolist()), value_ids=tuple(value.tolist())
    )
