"""A whole decoder over a prepared batch: from prompts to the states that are read, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from promptlimits.nets.decoder.attention import Fused, KeyValue, Whole, way_of
from promptlimits.nets.decoder.block import Block
from promptlimits.nets.decoder.layout import Layout, lay_out
from promptlimits.nets.decoder.linear import LinearHead, Norm, SavedTensors
from promptlimits.nets.decoder.plan import BlockPlan, GroupTables, TableKey, group_tables
from promptlimits.nets.decoder.rotary import fill_up
from promptlimits.nets.protocol import Part, PromptKind

Angles: TypeAlias = Callable[[int], tuple[Tensor, Tensor]]
"""Cosines and sines (positions, rotary / 2) of the first positions."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoder:
    """A decoder, taken apart."""

    embed: Callable[[Tensor], Tensor]  # from token ids to embeddings, scaled as the model does
    places: Tensor | None  # (positions, D) learned positions added to embeddings
    angles: Mapping[str, Angles]  # the rotary embeddings, by name
    blocks: tuple[Block, ...]
    final_norm: Norm
    head: LinearHead
    dim: int  # D
    dtype: torch.dtype  # of what stands between the products

    def narrowed(self, dtype: torch.dtype) -> Decoder:
        """A copy whose products, and what is between those of a feed-forward layer, are of `dtype`.

        What is added up, normalised, or goes through a softmax stays as wide as it is.
        """
        return replace(
            self,
            blocks=tuple(block.narrowed(dtype) for block in self.blocks),
            head=LinearHead(linear=self.head.linear.narrowed(dtype)),
        )

    def prepare(self, parts: Sequence[Part], kind: PromptKind) -> DecoderBatch:
        """Lay parts out and compute what no prompt changes."""
        with torch.no_grad():
            layout = lay_out(parts)
            fixed_rows = self.embed(layout.token_ids)
            if self.places is not None:
                fixed_rows = fixed_rows + self.places[layout.positions]
            tables = self._tables(layout)
            prompt_rows = layout.prompt_rows if kind is PromptKind.SOFT else 0
            read_rows = prompt_rows + layout.read_rows
            plans = [
                BlockPlan(
                    layout=layout,
                    tables=tables,
                    prompt_rows=prompt_rows,
                    read_rows=read_rows,
                    last=index == len(self.blocks) - 1,
                )
                for index in range(len(self.blocks))
            ]
            fixed = self.blocks[0].fix(fixed_rows, plans[0])
            plans[0] = replace(plans[0], fixed=fixed)
        return DecoderBatch(
            decoder=self,
            parts=tuple(parts),
            kind=kind,
            layout=layout,
            plans=tuple(plans),
            fixed_rows=fixed_rows,
        )

    def step_bytes(self, part: Part, kind: PromptKind) -> int:
        """Memory of a forward and a backward pass of a part, logits aside.

        Counted from what is saved, with the attention's scores once more for the gradient
        in them, and half of it again for what comes and goes. Attention that keeps no scores
        has those of one block at a time.
        """
        prompt, longest = part.prompt_tokens, part.pairs.longest
        tokens = part.pairs.input_ids.numel()
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
            way = way_of(self.head.linear.weight.device, longest, hidden=hidden_prompt)
            whole = isinstance(way, Whole)
            most_passing = max(most_passing, 0 if whole else scores)
            total += (own_rows + tokens) * self._row_bytes(block)
            total += self.dtype.itemsize * (within + (scores if whole else 0))
            if isinstance(way, Fused):  # the prompt's keys once for each pair
                keys = 2 * attention.kv_heads * attention.width
                total += self.dtype.itemsize * part.pairs.num_pairs * prompt * keys
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

    def _tables(self, layout: Layout) -> dict[TableKey, tuple[GroupTables, ...]]:
        found: dict[TableKey, tuple[GroupTables, ...]] = {}
        for key in dict.fromkeys(block.attention.table_key for block in self.blocks):
            rotary, scaling, window = key
            angles = None
            if rotary is not None:
                width = self.blocks[0].attention.width
                angles = fill_up(*self.angles[rotary](layout.longest_sequence), width)
            found[key] = tuple(
                group_tables(
                    group,
                    angles=angles,
                    scaling=scaling,
                    window=window,
                    dtype=self.dtype,
                    device=layout.token_ids.device,
                )
                for group in layout.groups
            )
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class DecoderBatch:
    """Parts laid out for a decoder: a `promptlimits.nets.protocol.PreparedBatch`."""

    decoder: Decoder
    parts: tuple[Part, ...]
    kind: PromptKind
    layout: Layout
    plans: tuple[BlockPlan, ...]
    fixed_rows: Tensor  # (T, D) the pairs' rows in front of the first block

    def read_states(self, prompts: Tensor) -> Tensor:
        """States (R, D) at the read positions of all parts, behind prompts (sum of P_b, W)."""
        states: Tensor = _ReadStates.apply(prompts, self)  # type: ignore[no-untyped-call]
        return states

    def kept_bytes(self, states: Tensor) -> int:
        """Memory kept for the reverse pass of what `read_states` gave."""
        saved = getattr(states.grad_fn, "saved", None)
        return saved.kept_bytes if isinstance(saved, SavedTensors) else 0

    @torch.inference_mode()
    def cached(self, prompts: Tensor) -> Tensor:
        """What soft prompts (sum of P_b, D) leave in the cache: prefixes (sum of P_b, W)."""
        plans = tuple(replace(plan, caught=[]) for plan in self.plans)
        replace(self, plans=plans).forward(prompts, SavedTensors(keeps=False))
        both = [
            [(one[..., :1, :, :], one[..., 1:, :, :]) for one in plan.caught or ()]
            for plan in plans
        ]
        return _spread(
            self._prefix_rows([tuple(groups) for groups in both]), self.layout.prompt_source
        )

    def forward(self, prompts: Tensor, saved: SavedTensors) -> Tensor:
        """`read_states` without autograd."""
        layout, source = self.layout, self.layout.prompt_source
        rows = prompts.to(self.decoder.dtype)
        rows = rows if source is None else rows.index_select(0, source)
        plans = self.plans
        # Rows of this pass's own either way: the blocks overwrite them.
        if self.kind is PromptKind.PREFIX:
            plans, x = self._with_prefixes(rows), self.fixed_rows.clone()
        else:
            x = torch.cat([self._placed(rows), self.fixed_rows])
        for block, plan in zip(self.decoder.blocks, plans, strict=True):
            x = block.forward(x, plan, saved)
        states = self.decoder.final_norm.forward(x, saved)
        return _spread(states, layout.read_target)

    def backward(self, gradient: Tensor, saved: SavedTensors) -> Tensor:
        """Gradient (sum of P_b, W) in the prompts from that (R, D) in the states."""
        if self.layout.read_target is not None:
            gradient = gradient.index_select(0, self.layout.read_target)
        gradient = self.decoder.final_norm.backward(gradient, saved)
        prefixes: list[tuple[KeyValue, ...]] = []
        plans = self.plans
        if self.kind is PromptKind.PREFIX:  # the way back needs to know only that there are some
            plans = tuple(replace(plan, prefix=()) for plan in plans)
        for block, plan in zip(reversed(self.decoder.blocks), reversed(plans), strict=True):
            gradient, found = block.backward(gradient, plan, saved)
            prefixes.append(found)
        if self.kind is PromptKind.PREFIX:
            gradient = self._prefix_rows(prefixes[::-1])
        return _spread(gradient, self.layout.prompt_source)

    def _placed(self, rows: Tensor) -> Tensor:
        """Prompts with learned positions 0 to P - 1 added."""
        places = self.decoder.places
        if places is None:
            return rows
        counts = [(group.tokens.parts, group.prompt_tokens) for group in self.layout.groups]
        added = [places[:length].repeat(count, 1) for count, length in counts]
        return rows + torch.cat(added)

    def _with_prefixes(self, rows: Tensor) -> tuple[BlockPlan, ...]:
        """The plans, each with its keys and values."""
        found, start = [], 0
        for block, plan in zip(self.decoder.blocks, self.plans, strict=True):
            heads, width = block.attention.kv_heads, block.attention.width
            stop = start + 2 * heads * width
            keys, values = rows[:, start:stop].unflatten(1, (2, heads, width)).unbind(1)
            own = torch.stack([keys[..., block.attention.order], values])
            prefix = []
            for group in self.layout.groups:
                few = own[:, group.prompt_start : group.prompt_stop]
                several = few.unflatten(1, (group.tokens.parts, group.prompt_tokens))
                prefix.append(several.permute(3, 1, 0, 2, 4).contiguous().unsqueeze(2))
            found.append(replace(plan, prefix=tuple(prefix)))
            start = stop
        return tuple(found)

    def _prefix_rows(self, gradients: Sequence[tuple[KeyValue, ...]]) -> Tensor:
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


def _spread(rows: Tensor, places: Tensor | None) -> Tensor:
    """Rows put where they belong; None for where they stand."""
    return rows if places is None else torch.empty_like(rows).index_copy_(0, places, rows)


class _ReadStates(torch.autograd.Function):
    """Autograd's view of a batch: one operation from prompts to states.

    Inside, autograd neither records nor guards anything (inference mode): on small models its
    bookkeeping took 8% of a step. So what is saved is kept here, and serves one reverse pass.
    """

    @staticmethod
    def forward(ctx: Any, prompts: Tensor, batch: DecoderBatch) -> Tensor:
        saved = SavedTensors(keeps=ctx.needs_input_grad[0])
        with torch.inference_mode():
            states = batch.forward(prompts, saved)
        ctx.saved, ctx.batch, ctx.dtype = saved, batch, prompts.dtype
        # A copy made out here is a tensor that autograd may use.
        return states.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        saved, ctx.saved = ctx.saved, None
        if saved is None:
            raise RuntimeError("read states can be differentiated once: read them again")
        with torch.inference_mode():
            found = ctx.batch.backward(gradient.contiguous(), saved)
        return torch.clone(found.to(ctx.dtype)), None
