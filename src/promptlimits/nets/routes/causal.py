"""A frozen causal language model from transformers, read through prompts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from copy import copy
from enum import StrEnum
from functools import cached_property
from typing import Final

import torch
from torch import Tensor
from transformers import PreTrainedModel

from promptlimits.base.errors import PromptLimitsWarning, UserError
from promptlimits.nets.decoder.families import decoder_of
from promptlimits.nets.load.network import alike, dtype_name, quiet, readable
from promptlimits.nets.prefix_shape import PrefixShape
from promptlimits.nets.protocol import (
    EncodedPair,
    ModelCard,
    PackedPairs,
    Part,
    PreparedBatch,
    PromptKind,
    ReadHead,
    TextCodec,
    pack,
)
from promptlimits.nets.routes.separate import concatenated_logits
from promptlimits.nets.routes.whole_model import IdentityHead, WholeModel

_SAMPLED_TOKENS: Final = 64
"""Positions whose logits give their deviation."""
_LONGEST_PROBE: Final = 40
"""Tokens of a pair that is long enough for blocked attention and for small windows."""


class Route(StrEnum):
    """How prompts are run through a model."""

    DECODER = "decoder"
    SHARED_PREFIX = "shared prefix"
    CONCATENATION = "concatenation"


class HuggingFaceCausalLM:
    """A frozen model behind `promptlimits.nets.protocol.FrozenModel`.

    Three routes lead from prompts to logits. The first that gives what stock code gives for
    each pair in a sequence of its own, compared on three pairs when the model is made, is taken:

    1. decoder: own code, for the families it has a table for; many prompts at once.
    2. shared prefix: transformers' code with its attention replaced; prompts run one after
       the other, each once for all its pairs.
    3. concatenation: stock code, the prompt run once for each pair. A warning says so.

    Args:
        model: The network; its weights are frozen and it is put in evaluation mode.
        card: What records say about it.
        codec: Its text codec.

    Attributes:
        card: What a record says about it.
        codec: Its text codec.
        device: Where it runs.
        dtype: What it computes with.
        route: How prompts are run.

    Raises:
        UserError: Its embeddings have another dtype than the rest, stock code does not run it
            from input embeddings or passes nothing back to them, or tokens see later ones.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        card: ModelCard,
        codec: TextCodec,
    ) -> None:
        self._model = model.eval().requires_grad_(False)
        self.card: Final = card
        self.codec: Final = codec
        self.device: Final[torch.device] = model.device
        self.dtype: Final[torch.dtype] = model.dtype
        self._whole = WholeModel(self._model)
        self._require_one_dtype()
        with quiet(), self._running():
            self._decoder = decoder_of(self._model)
            single, prompts = self._probe()
            probe = pack(single, device=self.device)
            self.route, reason = self._choose_route(single, probe, prompts)
            if self.route is not Route.DECODER:
                self._require_gradient(probe, prompts)
        if self.route is Route.CONCATENATION:
            warnings.warn(
                f"{card.name}: the prompt is run once for every pair, because {reason}; "
                "results are the same, slower",
                PromptLimitsWarning,
                stacklevel=2,
            )

    @property
    def head(self) -> ReadHead:
        """What turns read states into logits."""
        if self._decoder is None:
            return IdentityHead(vocabulary=self.card.vocabulary)
        return self._decoder.head

    @cached_property
    def logit_deviation(self) -> float:
        """Deviation of a position's logits over the vocabulary, to two digits.

        Averaged over `_SAMPLED_TOKENS` single tokens, spread evenly over the vocabulary. Two
        digits, so that a setting derived from it does not depend on rounding.
        """
        count = min(_SAMPLED_TOKENS, self.card.vocabulary)
        one = [(place * (self.card.vocabulary // count),) for place in range(count)]
        pairs = pack([EncodedPair.of_ids(token, token) for token in one], device=self.device)
        with torch.no_grad():
            nothing = torch.zeros(1, 0, self.card.dim, dtype=self.dtype, device=self.device)
            logits = self.next_token_logits(nothing, pairs)
        deviation = float(logits[0].float().std(dim=-1).mean())
        return float(f"{deviation:.1e}") if deviation > 0 else 1.0

    @property
    def can_narrow(self) -> bool:
        """Whether there is a `narrow`, which is not made here."""
        return self._decoder is not None and self.dtype is torch.float32

    @cached_property
    def narrow(self) -> HuggingFaceCausalLM | None:
        """This model with products in bfloat16; None where own code does not run it in float32.

        Its weights lie beside those of the model, half as large.
        """
        if self._decoder is None or not self.can_narrow:
            return None
        _ = self.logit_deviation  # of the model itself: no setting may change with the twin
        twin = copy(self)
        twin._decoder = self._decoder.narrowed(torch.bfloat16)
        return twin

    @property
    def prefix_shape(self) -> PrefixShape:
        """How its prefixes are laid out; UserError if stock tools cannot replay one."""
        return self._whole.prefix_shape

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings (..., D) of token ids (...), with the model's own scaling."""
        return self._whole.embed(ids)

    def prompt_width(self, kind: PromptKind) -> int:
        """W, numbers in one row of a prompt of that kind."""
        return self.card.dim if kind is PromptKind.SOFT else self.prefix_shape.width

    def prefix_from_tokens(self, ids: Tensor) -> Tensor:
        """(B, P, W) in float32: what tokens (B, P) at the start of a sequence leave cached."""
        if self._decoder is None:
            return self._whole.prefix_from_tokens(ids)
        shape, (count, tokens) = self.prefix_shape, ids.shape
        nothing = pack([EncodedPair.of_ids((0,), (0,))], device=self.device)
        batch = self._decoder.prepare(
            [Part(prompt_tokens=tokens, pairs=nothing)] * count, PromptKind.SOFT
        )
        rows = batch.cached(self.embed(ids.to(self.device)).flatten(0, 1))
        # A copy made out here is a tensor that autograd may use.
        return rows.float().clone().view(count, tokens, shape.width)

    def prepare(
        self, parts: Sequence[Part], *, kind: PromptKind = PromptKind.SOFT
    ) -> PreparedBatch:
        """Lay parts out side by side and compute what no prompt changes."""
        if self._decoder is None:
            return self._whole.prepare(tuple(parts), kind)
        return self._decoder.prepare(parts, kind)

    def step_bytes(self, part: Part, *, kind: PromptKind = PromptKind.SOFT) -> int:
        """About how much memory a forward and a backward pass of a part takes, logits aside."""
        if self._decoder is None:
            return self._whole.step_bytes(part, kind)
        return self._decoder.step_bytes(part, kind)

    def next_token_logits(self, prompts: Tensor, pairs: PackedPairs) -> Tensor:
        """Logits (B, R, V) at the read positions, behind prompts (B, P, D); P may be 0."""
        batch, prompt_tokens, _ = prompts.shape
        parts = [Part(prompt_tokens=prompt_tokens, pairs=pairs)] * batch
        states = self.prepare(parts).read_states(prompts.flatten(0, 1))
        return self.head.logits(states).view(batch, -1, self.card.vocabulary)

    def _require_one_dtype(self) -> None:
        """Refuse a model whose prompts would be wider numbers than its card says."""
        embedded = self.embed(torch.zeros(1, dtype=torch.long, device=self.device))
        found = dtype_name(embedded.dtype)
        if found != self.card.compute_dtype:
            raise UserError(
                f"model {self.card.name}",
                f"have embeddings of the dtype it computes with ({self.card.compute_dtype})",
                got=found,
                remedy="load it with --dtype float32",
            )

    def _running(self) -> AbstractContextManager[None]:
        """Have what stock code raises over this model said in one line."""
        return readable(
            f"model {self.card.name}",
            "run in transformers on a prompt in place of input embeddings",
            remedy="use another model: stock prompt tuning does not run this one either",
        )

    @torch.no_grad()
    def _probe(self) -> tuple[list[EncodedPair], Tensor]:
        """Three pairs, and a prompt (1, 3, D) between embeddings, as a trained one is."""
        longest = max(4, min(_LONGEST_PROBE, self.card.context_length - 3))
        ids = [place % self.card.vocabulary for place in range(longest + 1)]
        # Every position is read, and a pair stands behind a long one: recurrent layers would carry
        # the end of one pair into the beginning of the next.
        lengths = ((0, 1, 3), (0, 1, longest + 1), (1, 2, 4))
        single = [EncodedPair.of_ids(ids[a:b], ids[b:c]) for a, b, c in lengths]
        embedded = self.embed(torch.tensor(ids[:4], device=self.device))[None]
        # Far from the middle: where two embeddings nearly cancel, norms magnify rounding.
        return single, 0.75 * embedded[:, :3] + 0.25 * embedded[:, 1:]

    @torch.no_grad()
    def _choose_route(
        self, single: Sequence[EncodedPair], probe: PackedPairs, prompts: Tensor
    ) -> tuple[Route, str]:
        """The fastest route that gives what separate sequences give, and why none is faster."""
        expected = torch.cat(
            [self._concatenated(prompts, pack([pair], device=self.device)) for pair in single],
            dim=1,
        )
        self._require_logits(expected)

        def agrees(found: Tensor) -> bool:
            return alike(found, expected, dtype=self.dtype)

        if not agrees(self._concatenated(prompts, probe)):
            raise UserError(
                f"model {self.card.name}",
                "be causal: no token may change what stands before it",
                got="one whose answers change with what follows them",
                remedy="use another model",
            )
        if self._decoder is not None:
            if agrees(self.next_token_logits(prompts, probe)):
                return Route.DECODER, ""
            self._decoder = None
        reason = self._whole.share_prefix(agrees, probe, prompts)
        return (Route.SHARED_PREFIX, "") if reason is None else (Route.CONCATENATION, reason)

    def _concatenated(self, prompts: Tensor, pairs: PackedPairs) -> Tensor:
        return concatenated_logits(self._model, prompts, self.embed(pairs.input_ids), pairs)

    def _require_logits(self, logits: Tensor) -> None:
        """Refuse a model that scores other tokens than it embeds, or scores with no numbers."""
        name = f"model {self.card.name}"
        if logits.shape[-1] != self.card.vocabulary:
            raise UserError(
                name,
                f"score each of the {self.card.vocabulary} tokens that it embeds",
                got=f"{logits.shape[-1]} scores",
                remedy="use another model",
            )
        if not torch.isfinite(logits).all():
            raise UserError(
                name,
                "give finite scores",
                got="NaN or infinity",
                remedy="load it with a wider --dtype, or download it again",
            )

    def _require_gradient(self, probe: PackedPairs, prompts: Tensor) -> None:
        """Refuse a model whose stock code passes nothing back to a prompt: nothing can train it."""
        given = prompts.detach().clone().requires_grad_()
        with torch.enable_grad():
            logits = self.next_token_logits(given, probe)
            (gradient,) = torch.autograd.grad(logits.float().square().mean(), given)
        if not torch.isfinite(gradient).all() or not gradient.any():
            raise UserError(
                f"model {self.card.name}",
                "pass a gradient back to a prompt",
                got="none, or one that is not finite",
                remedy="use another model",
            )
