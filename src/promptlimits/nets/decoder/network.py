"""A whole decoder over a prepared batch: from prompts to the states that are read, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from promptlimits.nets.decoder.block import Block
from promptlimits.nets.decoder.layout import Layout, lay_out
from promptlimits.nets.decoder.linear import Linear
from promptlimits.nets.decoder.pointwise import Norm
from promptlimits.nets.decoder.rotary import table_angles
from promptlimits.nets.decoder.stage import GroupTables, Kind, Stage, group_tables
from promptlimits.nets.decoder.streamed import is_streamed
from promptlimits.nets.decoder.tape import Tape
from promptlimits.nets.protocol import Memory, Part, PromptKind

Angles: TypeAlias = Callable[[int], tuple[Tensor, Tensor]]
"""Cosines and sines (positions, rotary / 2) of the first positions."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearHead:
    """The product that turns a state into logits.

    Attributes:
        linear: The product.
    """

    linear: Linear

    @property
    def vocabulary(self) -> int:
        """V."""
        return int(self.linear.weight.shape[0])

    def logits(self, states: Tensor, memory: Memory | None = None) -> Tensor:
        """(R, V) from states (R, D); differentiable where they get memory of their own."""
        if memory is None:
            return self.linear.forward(states)
        return self.linear.write(states, memory(states.shape[0], self.vocabulary, states))

    def pull_back(self, gradient: Tensor) -> Tensor:
        """Gradient (R, D) from that in the logits (R, V)."""
        return self.linear.backward(gradient)

    def pull_back_tokens(self, tokens: Tensor, factor: float, into: Tensor) -> Tensor:
        """Add multiples of the weights' rows `tokens` (R, 1) to `into` (R, D)."""
        return into.add_(self.linear.weight.index_select(0, tokens.squeeze(1)), alpha=factor)

    def blocks(self, most: int) -> Sequence[LinearHead]:
        """Heads of at most `most` tokens each, about equally many, on views of the weights."""
        count = -(-self.vocabulary // most)
        if count == 1:
            return [self]
        weight, bias = self.linear.weight, self.linear.bias
        biases = [None] * count if bias is None else bias.tensor_split(count)
        return [
            LinearHead(linear=Linear(weight=rows, bias=shift))
            for rows, shift in zip(weight.tensor_split(count), biases, strict=True)
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoder:
    """A decoder, taken apart.

    Attributes:
        embed: From token ids to embeddings, scaled as the model does.
        places: (positions, D) learned positions added to embeddings, or None.
        angles: The rotary embeddings, by name.
        blocks: The blocks, first to last.
        final_norm: Behind them.
        head: To logits.
        dim: D.
    """

    embed: Callable[[Tensor], Tensor]
    places: Tensor | None
    angles: Mapping[str, Angles]
    blocks: tuple[Block, ...]
    final_norm: Norm
    head: LinearHead
    dim: int

    @property
    def dtype(self) -> torch.dtype:
        """What it computes with."""
        return self.head.linear.weight.dtype

    def prepare(self, parts: Sequence[Part], kind: PromptKind) -> DecoderBatch:
        """Lay parts out and compute what no prompt changes."""
        with torch.no_grad():
            layout = lay_out(parts)
            fixed_rows = self.embed(layout.token_ids)
            if self.places is not None:
                fixed_rows = fixed_rows + self.places[layout.positions]
            tables = self._tables(layout)
            plain = Stage(
                layout=layout,
                tables=tables,
                prompt_rows=layout.prompt_rows if kind is PromptKind.SOFT else 0,
                fixed=None,
                last=False,
            )
            stages = [
                replace(plain, last=index == len(self.blocks) - 1)
                for index in range(len(self.blocks))
            ]
            fixed = self.blocks[0].fix(fixed_rows, stages[0])
            stages[0] = replace(stages[0], fixed=fixed)
        return DecoderBatch(
            decoder=self,
            parts=tuple(parts),
            kind=kind,
            layout=layout,
            stages=tuple(stages),
            fixed_rows=fixed_rows,
        )

    def step_bytes(self, part: Part, kind: PromptKind) -> int:
        """Memory of a forward and a backward pass of a part, logits aside.

        Counted from what `Tape` keeps, with the attention's scores once more for the gradient
        in them, and half of it again for what comes and goes. Attention that keeps no scores
        (`streamed`) has those of one block at a time.
        """
        lengths, prompt = part.pairs.lengths, part.prompt_tokens
        tokens, longest = int(lengths.sum()), int(lengths.max())
        own_rows = prompt if kind is PromptKind.SOFT else 0
        slots = part.pairs.num_pairs * longest
        total = most_passing = 0
        for block in self.blocks:
            attention = block.attention
            heads = attention.output.weight.shape[1] // attention.width
            scores = 2 * heads * slots * (prompt + longest)
            within = 2 * heads * own_rows * prompt
            window = attention.window
            hidden_prompt = window is not None and window < prompt + longest
            streamed = is_streamed(self.head.linear.weight, longest, hidden=hidden_prompt)
            most_passing = max(most_passing, scores if streamed else 0)
            total += (own_rows + tokens) * self._row_bytes(block)
            total += self.dtype.itemsize * (within + (0 if streamed else scores))
        return int(1.5 * total) + self.dtype.itemsize * most_passing

    def _row_bytes(self, block: Block) -> int:
        """What a block keeps of one row, scores aside."""
        attention = block.attention
        heads = attention.output.weight.shape[1]
        keys = attention.kv_heads * attention.width
        hidden = block.feed.up.weight.shape[0] * (1 if block.feed.gate is None else 2)
        norms = [block.attention_post, block.feed_post]
        normed = (2 + sum(norm is not None for norm in norms)) * self.dim
        normed += 0 if attention.query_norm is None else heads + keys
        # Norms keep float32 at least.
        wide = max(self.dtype.itemsize, torch.float32.itemsize)
        return self.dtype.itemsize * (self.dim + heads + 2 * keys + hidden) + wide * normed

    def _tables(self, layout: Layout) -> dict[Kind, tuple[GroupTables, ...]]:
        found: dict[Kind, tuple[GroupTables, ...]] = {}
        for kind in dict.fromkeys(block.attention.kind for block in self.blocks):
            rotary, scaling, window = kind
            cosine = sine = None
            if rotary is not None:
                width = self.blocks[0].attention.width
                cosine, sine = table_angles(*self.angles[rotary](layout.longest_sequence), width)
            found[kind] = tuple(
                group_tables(
                    group,
                    cosine=cosine,
                    sine=sine,
                    scaling=scaling,
                    window=window,
                    dtype=self.dtype,
                )
                for group in layout.groups
            )
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class DecoderBatch:
    """Parts laid out for a decoder.

    Attributes:
        decoder: The decoder.
        parts: The parts.
        kind: What their prompts are.
        layout: Where their rows are.
        stages: What each block is told.
        fixed_rows: (T, D) the pairs' rows in front of the first block.
    """

    decoder: Decoder
    parts: tuple[Part, ...]
    kind: PromptKind
    layout: Layout
    stages: tuple[Stage, ...]
    fixed_rows: Tensor

    def read_states(self, prompts: Tensor) -> Tensor:
        """States (R, D) at the read positions of all parts, one part after the other.

        Args:
            prompts: (sum of P_b, W), the parts' prompts end to end, of any float dtype.
        """
        states: Tensor = _ReadStates.apply(prompts, self)  # type: ignore[no-untyped-call]
        return states

    def kept_bytes(self, states: Tensor) -> int:
        """Memory kept for the reverse pass of what `read_states` gave."""
        tape = getattr(states.grad_fn, "tape", None)
        return tape.kept_bytes if isinstance(tape, Tape) else 0

    def forward(self, prompts: Tensor, tape: Tape) -> Tensor:
        """`read_states` without autograd.

        Args:
            prompts: (sum of P_b, W).
            tape: What `backward` needs is put here.

        Returns:
            (R, D).
        """
        layout, source = self.layout, self.layout.prompt_source
        rows = prompts.to(self.decoder.dtype)
        rows = rows if source is None else rows.index_select(0, source)
        stages = self.stages
        # Rows of this pass's own either way: the blocks overwrite them.
        if self.kind is PromptKind.PREFIX:
            stages, x = self._with_prefixes(rows), self.fixed_rows.clone()
        else:
            x = torch.cat([self._placed(rows), self.fixed_rows])
        for block, stage in zip(self.decoder.blocks, stages, strict=True):
            x = block.forward(x, stage, tape)
        states = self.decoder.final_norm.forward(x, tape)
        return states if layout.read_target is None else self._reordered(states)

    def backward(self, gradient: Tensor, tape: Tape) -> Tensor:
        """Gradient in the prompts from that in the states.

        Args:
            gradient: (R, D).
            tape: As `forward` left it; it is emptied.

        Returns:
            (sum of P_b, W).
        """
        if self.layout.read_target is not None:
            gradient = gradient.index_select(0, self.layout.read_target)
        gradient = self.decoder.final_norm.backward(gradient, tape)
        prefixes: list[tuple[tuple[Tensor, Tensor], ...]] = []
        stages = self.stages if self.kind is PromptKind.SOFT else self._with_prefixes(None)
        for block, stage in zip(reversed(self.decoder.blocks), reversed(stages), strict=True):
            gradient, found = block.backward(gradient, stage, tape)
            prefixes.append(found)
        if self.kind is PromptKind.PREFIX:
            gradient = self._prefix_rows(prefixes[::-1])
        source = self.layout.prompt_source
        if source is None:
            return gradient
        return torch.empty_like(gradient).index_copy_(0, source, gradient)

    def _placed(self, rows: Tensor) -> Tensor:
        """Prompts with learned positions 0 to P - 1 added."""
        places = self.decoder.places
        if places is None:
            return rows
        counts = [(group.tokens.parts, group.prompt_tokens) for group in self.layout.groups]
        added = [places[:length].repeat(count, 1) for count, length in counts]
        return rows + torch.cat(added)

    def _reordered(self, states: Tensor) -> Tensor:
        target = self.layout.read_target
        return states if target is None else torch.empty_like(states).index_copy_(0, target, states)

    def _with_prefixes(self, rows: Tensor | None) -> tuple[Stage, ...]:
        """The stages, each with its keys and values; the way back needs to know only of them."""
        if rows is None:
            return tuple(replace(stage, prefix=()) for stage in self.stages)
        found, start = [], 0
        for block, stage in zip(self.decoder.blocks, self.stages, strict=True):
            heads, width = block.attention.kv_heads, block.attention.width
            stop = start + 2 * heads * width
            keys, values = rows[:, start:stop].unflatten(1, (2, heads, width)).unbind(1)
            own = torch.stack([keys[..., block.attention.order], values])
            prefix = []
            for group in self.layout.groups:
                few = own[:, group.prompt_start : group.prompt_stop]
                several = few.unflatten(1, (group.tokens.parts, group.prompt_tokens))
                prefix.append(several.permute(3, 1, 0, 2, 4).contiguous().unsqueeze(2))
            found.append(replace(stage, prefix=tuple(prefix)))
            start = stop
        return tuple(found)

    def _prefix_rows(self, gradients: Sequence[tuple[tuple[Tensor, Tensor], ...]]) -> Tensor:
        """Rows (sum of P_b, W) of the gradients in every block's keys and values."""
        blocks = []
        for block, per_group in zip(self.decoder.blocks, gradients, strict=True):
            stock = block.attention.order.argsort()
            groups = [
                # (B, P, 2, H_kv, width) to rows.
                torch.stack([key[..., stock], value])
                .flatten(2, 4)
                .permute(2, 3, 0, 1, 4)
                .flatten(0, 1)
                for key, value in per_group
            ]
            blocks.append(torch.cat(groups).flatten(1))
        return torch.cat(blocks, dim=1)


class _ReadStates(torch.autograd.Function):
    """Autograd's view of a batch: one operation from prompts to states.

    Inside, autograd neither records nor guards anything (inference mode): on small models its
    bookkeeping took 8% of a step. So the tape is kept here, and serves one reverse pass.
    """

    @staticmethod
    def forward(ctx: Any, prompts: Tensor, batch: DecoderBatch) -> Tensor:
        tape = Tape(keep=ctx.needs_input_grad[0])
        with torch.inference_mode():
            states = batch.forward(prompts, tape)
        ctx.tape, ctx.batch, ctx.dtype = tape, batch, prompts.dtype
        # A copy made out here is a tensor that autograd may use.
        return states.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        tape, ctx.tape = ctx.tape, None
        if tape is None:
            raise RuntimeError("read states can be differentiated once: read them again")
        with torch.inference_mode():
            found = ctx.batch.backward(gradient.contiguous(), tape)
        return torch.clone(found.to(ctx.dtype)), None
