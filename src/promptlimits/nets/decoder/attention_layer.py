"""An attention layer: products, heads, `attend`, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from promptlimits.nets.decoder.attention import (
    HeadGradients,
    Heads,
    attend,
    attend_back,
)
from promptlimits.nets.decoder.heads import from_heads, to_heads
from promptlimits.nets.decoder.layout import Group, Rectangle
from promptlimits.nets.decoder.linear import Linear
from promptlimits.nets.decoder.pointwise import Norm
from promptlimits.nets.decoder.rotary import Turn
from promptlimits.nets.decoder.stage import GroupTables, Kind, Stage
from promptlimits.nets.decoder.tape import Tape

_PLAIN = Turn()


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionLayer:
    """Products and shape of an attention layer.

    Attributes:
        query: Product for the queries, those of one key head side by side.
        key_value: Product for each key head's keys and values, side by side.
        output: Product of what the heads give.
        query_norm: Norm of each query head, or None.
        key_norm: Norm of each key head, or None.
        kv_heads: H_kv.
        width: Of a head.
        scaling: Factor on the scores.
        window: A key is seen only from fewer than this many positions away; None for all.
        rotary: Name of the rotary embedding, None for none.
        order: (width,) stock place of each number of a query or key head (`rotary`).
    """

    query: Linear
    key_value: Linear
    output: Linear
    query_norm: Norm | None
    key_norm: Norm | None
    kv_heads: int
    width: int
    scaling: float
    window: int | None
    rotary: str | None
    order: Tensor

    @property
    def kind(self) -> Kind:
        """What decides its turns and masks."""
        return self.rotary, self.scaling, self.window

    def forward(self, rows: Tensor, stage: Stage, tape: Tape) -> Tensor:
        """What the heads give, before the output product.

        Args:
            rows: (N, D), or (prompt rows, D) where the rest is fixed, normalised.
            stage: What is fixed and what is asked for.
            tape: What the reverse pass needs is put here.

        Returns:
            (asked rows, H width).
        """
        query = self._queries(self._asking(rows, stage), tape)
        key_value = self._keys_and_values(rows, tape)
        front = stage.prompt_rows_asked
        mixed = rows.new_empty(front + stage.pair_rows_asked, self.output.weight.shape[1])
        for index, (group, tables) in enumerate(self._groups(stage)):
            heads = self._assemble(index, query, key_value, stage)
            masks = tables.read_masks if stage.last else tables.token_masks
            out, prompt_out = attend(heads, masks, tape)
            from_heads([(out, _PLAIN)], _asked(group, stage), mixed, behind=front)
            if prompt_out is not None:
                from_heads([(prompt_out, _PLAIN)], group.prompts, mixed)
        return mixed

    def backward(
        self, gradient: Tensor, stage: Stage, tape: Tape
    ) -> tuple[Tensor, tuple[tuple[Tensor, Tensor], ...]]:
        """Gradient in the rows of the forward pass, from that in what it gave."""
        front = stage.prompt_rows_asked
        pairs = 0 if stage.fixed is not None else stage.layout.token_ids.numel()
        asked = front if stage.fixed is not None else front + stage.pair_rows_asked
        count = stage.prompt_rows + pairs
        d_query = gradient.new_empty(asked, self.query.weight.shape[0])
        d_key_value = gradient.new_empty(count, self.key_value.weight.shape[0])
        prompts: list[tuple[Tensor, Tensor]] = []
        for group, tables in reversed(self._groups(stage)):
            out = self._heads(gradient, _asked(group, stage), _PLAIN, behind=front)
            prompt_out = None
            if front and group.prompt_tokens:
                prompt_out = self._heads(gradient, group.prompts, _PLAIN)
            masks = tables.read_masks if stage.last else tables.token_masks
            found = attend_back(out, prompt_out, masks, tape, fixed=stage.fixed is not None)
            self._scatter(found, group, tables, stage, d_query, d_key_value)
            prompts.append((found.prompt_key, found.prompt_value))
        self._norms_back(d_query, d_key_value, tape)
        d_rows = self.key_value.backward(d_key_value)
        if not stage.last:
            d_rows = self.query.backward(d_query, d_rows)
        elif asked:
            rows = stage.prompt_rows + stage.layout.read_rows
            d_rows.index_add_(0, rows, self.query.backward(d_query))
        return d_rows, tuple(reversed(prompts))

    def fix(self, rows: Tensor, stage: Stage) -> tuple[tuple[Tensor, Tensor], ...]:
        """Queries, and keys with values, of the pairs' normalised rows (T, D), by group."""
        silent = Tape(keep=False)
        asking = rows[stage.layout.read_rows] if stage.last else rows
        query, key_value = self._queries(asking, silent), self._keys_and_values(rows, silent)
        return tuple(
            (
                self._heads(query, _asked(group, stage), _query_turn(tables, stage)),
                self._heads(key_value, group.tokens, tables.token),
            )
            for group, tables in self._groups(stage)
        )

    def _queries(self, rows: Tensor, tape: Tape) -> Tensor:
        """(N, H width) before the turn."""
        query, norm = self.query.forward(rows), self.query_norm
        if norm is None:
            return query
        return norm.forward(query.view(-1, self.width), tape).view(query.shape)

    def _keys_and_values(self, rows: Tensor, tape: Tape) -> Tensor:
        """(N, H_kv 2 width) before the turn; a norm acts on the keys alone."""
        both, norm = self.key_value.forward(rows), self.key_norm
        if norm is not None:
            keys = self._keys_of(both)
            keys.copy_(norm.forward(keys, tape))
        return both

    def _norms_back(self, d_query: Tensor, d_key_value: Tensor, tape: Tape) -> None:
        """Gradients before the heads' norms, in place of those behind them."""
        if self.key_norm is not None:
            d_keys = self._keys_of(d_key_value)
            d_keys.copy_(self.key_norm.backward(d_keys, tape))
        if self.query_norm is not None:
            by_head = d_query.view(-1, self.width)
            by_head.copy_(self.query_norm.backward(by_head, tape))

    def _keys_of(self, both: Tensor) -> Tensor:
        """The keys (N, H_kv, width), a view."""
        return both.view(-1, self.kv_heads, 2, self.width)[:, :, 0]

    def _groups(self, stage: Stage) -> list[tuple[Group, GroupTables]]:
        return list(zip(stage.layout.groups, stage.tables[self.kind], strict=True))

    def _heads(self, rows: Tensor, where: Rectangle, turn: Turn, behind: int = 0) -> Tensor:
        heads, width = self.kv_heads, self.width
        return to_heads(rows, where, turn, kv_heads=heads, width=width, behind=behind)

    def _asking(self, rows: Tensor, stage: Stage) -> Tensor:
        """The rows whose queries are computed here; fixed ones are already there."""
        if stage.fixed is not None:
            return rows[: stage.prompt_rows_asked]
        return stage.asked(rows)

    def _assemble(self, index: int, query: Tensor, key_value: Tensor, stage: Stage) -> Heads:
        group, tables = stage.layout.groups[index], stage.tables[self.kind][index]
        split, front = stage.prompt_rows, stage.prompt_rows_asked
        if stage.fixed is not None:
            own_query, own = stage.fixed.heads[index]
        else:
            turn = _query_turn(tables, stage)
            own_query = self._heads(query, _asked(group, stage), turn, behind=front)
            own = self._heads(key_value, group.tokens, tables.token, behind=split)
        if stage.prefix is not None:
            return Heads(query=own_query, own=own, prompt=stage.prefix[index], prompt_query=None)
        prompt_query = None
        if front and group.prompt_tokens:
            prompt_query = self._heads(query, group.prompts, tables.prompt_query)
        prompt = self._heads(key_value, group.prompts, tables.prompt)
        return Heads(query=own_query, own=own, prompt=prompt, prompt_query=prompt_query)

    def _scatter(
        self,
        found: HeadGradients,
        group: Group,
        tables: GroupTables,
        stage: Stage,
        d_query: Tensor,
        d_key_value: Tensor,
    ) -> None:
        """Write a group's gradients into the rows of the products."""
        split, front = stage.prompt_rows, stage.prompt_rows_asked
        if found.own is not None:
            query, key, value = found.own
            asked, turn = _asked(group, stage), _query_turn(tables, stage)
            from_heads([(query, turn)], asked, d_query, behind=front)
            both = [(key, tables.token_key), (value, _PLAIN)]
            from_heads(both, group.tokens, d_key_value, behind=split)
        if stage.prefix is not None or not group.prompt_tokens:
            return
        both = [(found.prompt_key, tables.prompt_key), (found.prompt_value, _PLAIN)]
        from_heads(both, group.prompts, d_key_value)
        if found.prompt_query is not None:
            from_heads([(found.prompt_query, tables.prompt_query)], group.prompts, d_query)


def _asked(group: Group, stage: Stage) -> Rectangle:
    return group.reads if stage.last else group.tokens


def _query_turn(tables: GroupTables, stage: Stage) -> Turn:
    return tables.read_query if stage.last else tables.token_query
