"""One block of a decoder: attention and feed-forward with their norms, forward and back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from promptlimits.nets.decoder.attention import HeadGradients, Heads, KeyValue, attend, attend_back
from promptlimits.nets.decoder.layout import Rectangle
from promptlimits.nets.decoder.linear import FeedForward, Linear, Norm, SavedTensors
from promptlimits.nets.decoder.plan import BlockPlan, FixedHeads, GroupTables, TableKey
from promptlimits.nets.decoder.rotary import NO_ROTATION, Rotation, from_heads, to_heads


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionLayer:
    """Products and shape of an attention layer."""

    query: Linear  # queries of one key head side by side
    key_value: Linear  # each key head's keys and values, side by side
    output: Linear
    query_norm: Norm | None  # of each query head
    key_norm: Norm | None  # of each key head
    kv_heads: int  # H_kv
    width: int  # of a head
    scaling: float  # factor on the scores
    window: int | None  # a key is seen only from fewer than this many positions away
    rotary: str | None  # name of the rotary embedding
    order: Tensor  # (width,) stock place of each number of a query or key head (`rotary`)

    @property
    def table_key(self) -> TableKey:
        """What decides its rotations and masks."""
        return self.rotary, self.scaling, self.window

    def narrowed(self, dtype: torch.dtype) -> AttentionLayer:
        """A copy whose products are of `dtype`; scores and softmax stay as they are."""
        return replace(
            self,
            query=self.query.narrowed(dtype),
            key_value=self.key_value.narrowed(dtype),
            output=self.output.narrowed(dtype),
        )

    def forward(self, rows: Tensor, plan: BlockPlan, saved: SavedTensors) -> Tensor:
        """What the heads give (asked rows, H width), before the output product.

        Of normalised rows (N, D), or (prompt rows, D) where the rest is fixed.
        """
        query = self._queries(self._asking(rows, plan), saved)
        key_value = self._keys_and_values(rows, saved)
        front = plan.prompt_rows_asked
        mixed = rows.new_empty(front + plan.pair_rows_asked, self.output.weight.shape[1])
        for index, tables in enumerate(plan.tables[self.table_key]):
            asking = plan.queries(tables)
            heads = self._assemble(index, query, key_value, plan)
            out, prompt_out = attend(heads, asking.masks, saved)
            from_heads([(out, NO_ROTATION)], asking.where, mixed, behind=front)
            if prompt_out is not None:
                from_heads([(prompt_out, NO_ROTATION)], tables.group.prompts, mixed)
        return mixed

    def backward(
        self, gradient: Tensor, plan: BlockPlan, saved: SavedTensors
    ) -> tuple[Tensor, tuple[KeyValue, ...]]:
        """Gradient in the rows of the forward pass, and in each group's prompt keys and values."""
        front, fixed = plan.prompt_rows_asked, plan.fixed is not None
        pairs = 0 if fixed else plan.layout.token_ids.numel()
        asked = front if fixed else front + plan.pair_rows_asked
        d_query = gradient.new_empty(asked, self.query.weight.shape[0])
        d_key_value = gradient.new_empty(plan.prompt_rows + pairs, self.key_value.weight.shape[0])
        prompts: list[KeyValue] = []
        for tables in reversed(plan.tables[self.table_key]):
            asking, group = plan.queries(tables), tables.group
            out = self._heads(gradient, asking.where, NO_ROTATION, behind=front)
            prompt_out = None
            if front and group.prompt_tokens:
                prompt_out = self._heads(gradient, group.prompts, NO_ROTATION)
            found = attend_back(out, prompt_out, asking.masks, saved, fixed=fixed)
            self._scatter(found, tables, plan, d_query, d_key_value)
            prompts.append((found.prompt_key, found.prompt_value))
        self._norms_back(d_query, d_key_value, saved)
        d_rows = self.key_value.backward(d_key_value)
        if not plan.last:
            d_rows = self.query.backward(d_query, d_rows)
        elif asked:
            d_rows.index_add_(0, plan.read_rows, self.query.backward(d_query))
        return d_rows, tuple(reversed(prompts))

    def fix(self, rows: Tensor, plan: BlockPlan) -> tuple[tuple[Tensor, Tensor], ...]:
        """Queries, and keys with values, of the pairs' normalised rows (T, D), by group."""
        nothing = SavedTensors(keeps=False)
        asking = rows[plan.layout.read_rows] if plan.last else rows
        query, key_value = self._queries(asking, nothing), self._keys_and_values(rows, nothing)
        return tuple(
            (
                self._heads(query, plan.queries(tables).where, plan.queries(tables).rotation),
                self._heads(key_value, tables.group.tokens, tables.token_key_value),
            )
            for tables in plan.tables[self.table_key]
        )

    def _queries(self, rows: Tensor, saved: SavedTensors) -> Tensor:
        """(N, H width) before the rotation."""
        query, norm = self.query.forward(rows), self.query_norm
        if norm is None:
            return query
        return norm.forward(query.view(-1, self.width), saved).view(query.shape)

    def _keys_and_values(self, rows: Tensor, saved: SavedTensors) -> Tensor:
        """(N, H_kv 2 width) before the rotation; a norm acts on the keys alone."""
        both, norm = self.key_value.forward(rows), self.key_norm
        if norm is not None:
            keys = self._keys_of(both)
            keys.copy_(norm.forward(keys, saved))
        return both

    def _norms_back(self, d_query: Tensor, d_key_value: Tensor, saved: SavedTensors) -> None:
        """Gradients before the heads' norms, in place of those behind them."""
        if self.key_norm is not None:
            d_keys = self._keys_of(d_key_value)
            d_keys.copy_(self.key_norm.backward(d_keys, saved))
        if self.query_norm is not None:
            by_head = d_query.view(-1, self.width)
            by_head.copy_(self.query_norm.backward(by_head, saved))

    def _keys_of(self, both: Tensor) -> Tensor:
        """The keys (N, H_kv, width), a view."""
        return both.view(-1, self.kv_heads, 2, self.width)[:, :, 0]

    def _heads(self, rows: Tensor, where: Rectangle, rotation: Rotation, behind: int = 0) -> Tensor:
        heads, width = self.kv_heads, self.width
        return to_heads(rows, where, rotation, kv_heads=heads, width=width, behind=behind)

    def _asking(self, rows: Tensor, plan: BlockPlan) -> Tensor:
        """The rows whose queries are computed here; fixed ones are already there."""
        if plan.fixed is not None:
            return rows[: plan.prompt_rows_asked]
        return plan.asked(rows)

    def _assemble(self, index: int, query: Tensor, key_value: Tensor, plan: BlockPlan) -> Heads:
        tables = plan.tables[self.table_key][index]
        group, asking = tables.group, plan.queries(tables)
        split, front = plan.prompt_rows, plan.prompt_rows_asked
        if plan.fixed is not None:
            own_query, own = plan.fixed.heads[index]
        else:
            own_query = self._heads(query, asking.where, asking.rotation, behind=front)
            own = self._heads(key_value, group.tokens, tables.token_key_value, behind=split)
        if plan.prefix is not None:
            return Heads(query=own_query, own=own, prompt=plan.prefix[index], prompt_query=None)
        prompt_query = None
        if front and group.prompt_tokens:
            prompt_query = self._heads(query, group.prompts, tables.prompt_query)
        prompt = self._heads(key_value, group.prompts, tables.prompt_key_value)
        if plan.caught is not None:
            plan.caught.append(prompt)
        return Heads(query=own_query, own=own, prompt=prompt, prompt_query=prompt_query)

    def _scatter(
        self,
        found: HeadGradients,
        tables: GroupTables,
        plan: BlockPlan,
        d_query: Tensor,
        d_key_value: Tensor,
    ) -> None:
        """Write a group's gradients into the rows of the products."""
        group, asking = tables.group, plan.queries(tables)
        if found.own is not None:
            query, key, value = found.own
            front, split = plan.prompt_rows_asked, plan.prompt_rows
            from_heads([(query, asking.rotation)], asking.where, d_query, behind=front)
            both = [(key, tables.token_key), (value, NO_ROTATION)]
            from_heads(both, group.tokens, d_key_value, behind=split)
        if plan.prefix is not None or not group.prompt_tokens:
            return
        both = [(found.prompt_key, tables.prompt_key), (found.prompt_value, NO_ROTATION)]
        from_heads(both, group.prompts, d_key_value)
        if found.prompt_query is not None:
            from_heads([(found.prompt_query, tables.prompt_query)], group.prompts, d_query)


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """One block; its norms stand in front of a layer, or behind it before the residual (post)."""

    attention_norm: Norm
    attention: AttentionLayer
    feed_norm: Norm
    feed: FeedForward
    attention_post: Norm | None = None
    feed_post: Norm | None = None
    parallel: bool = False
    """Whether the feed-forward layer reads the block's input, not the attention's residual; such a
    block has no norms behind."""

    def narrowed(self, dtype: torch.dtype) -> Block:
        """A copy whose products are of `dtype`."""
        return replace(
            self, attention=self.attention.narrowed(dtype), feed=self.feed.narrowed(dtype)
        )

    def forward(self, x: Tensor, plan: BlockPlan, saved: SavedTensors) -> Tensor:
        """The rows that the plan asks for, of x (N, D), prompt rows first, which is overwritten."""
        rows = self.attention_norm.forward(plan.variable(x), saved)
        mixed = self.attention.forward(rows, plan, saved)
        kept = plan.asked(x)
        if self.attention_post is None:
            keeps = self.parallel or self.attention_norm.keeps_input
            middle = self.attention.output.forward(mixed, kept.clone() if keeps else kept)
        else:
            out = self.attention.output.forward(mixed)
            middle = self.attention_post.forward(out, saved).add_(kept)
        if self.parallel:
            return self._feed_beside(kept, middle, plan, saved)
        normed = self.feed_norm.forward(middle, saved)
        if self.feed_post is None:
            keeps = self.feed_norm.keeps_input
            return self.feed.forward(normed, saved, middle.clone() if keeps else middle)
        return self.feed_post.forward(self.feed.forward(normed, saved, None), saved).add_(middle)

    def backward(
        self, gradient: Tensor, plan: BlockPlan, saved: SavedTensors
    ) -> tuple[Tensor, tuple[KeyValue, ...]]:
        """Gradient in the rows of x that vary, and in each group's prefix keys and values.

        From that in the output, which may be overwritten.
        """
        if self.parallel:
            # First, for the gradient is overwritten on its way through the feed-forward layer.
            mixed = self.attention.output.backward(gradient)
            through = self._feed_beside_back(gradient, plan, saved)
        else:
            out = gradient if self.feed_post is None else self.feed_post.backward(gradient, saved)
            through = self.feed_norm.backward(self.feed.backward(out, saved), saved, gradient)
            post = self.attention_post
            mixed = self.attention.output.backward(
                through if post is None else post.backward(through, saved)
            )
        rows, prefixes = self.attention.backward(mixed, plan, saved)
        beside = plan.unasked(through, len(rows))
        return self.attention_norm.backward(rows, saved, beside), prefixes

    def fix(self, x: Tensor, plan: BlockPlan) -> FixedHeads:
        """What of this block, the first, no prompt changes, from the pairs' rows (T, D)."""
        nothing = SavedTensors(keeps=False)
        heads = self.attention.fix(self.attention_norm.forward(x, nothing), plan)
        if not self.parallel:
            return FixedHeads(heads=heads, feed=None)
        kept = x[plan.layout.read_rows] if plan.last else x
        feed = self.feed.forward(self.feed_norm.forward(kept, nothing), nothing, None)
        return FixedHeads(heads=heads, feed=feed)

    def _feed_beside(
        self, kept: Tensor, middle: Tensor, plan: BlockPlan, saved: SavedTensors
    ) -> Tensor:
        """The parallel block's feed-forward layer, which reads the block's own input."""
        front = plan.prompt_rows_asked
        if plan.fixed is None or plan.fixed.feed is None:
            return self.feed.forward(self.feed_norm.forward(kept, saved), saved, middle)
        middle[front:].add_(plan.fixed.feed)
        normed = self.feed_norm.forward(kept[:front], saved)
        middle[:front].add_(self.feed.forward(normed, saved, None))
        return middle

    def _feed_beside_back(self, gradient: Tensor, plan: BlockPlan, saved: SavedTensors) -> Tensor:
        """Gradient in the block's input past the attention."""
        front = gradient if plan.fixed is None else gradient[: plan.prompt_rows_asked]
        return self.feed_norm.backward(self.feed.backward(front, saved), saved, front)
