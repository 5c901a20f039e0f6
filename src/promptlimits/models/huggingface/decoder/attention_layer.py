"""An attention layer: products, heads, `attend`, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from promptlimits.models.huggingface.decoder.attention import Heads, attend, attend_back
from promptlimits.models.huggingface.decoder.heads import from_heads, prompt_rectangle, to_heads
from promptlimits.models.huggingface.decoder.layout import Group, Rectangle
from promptlimits.models.huggingface.decoder.linear import Linear
from promptlimits.models.huggingface.decoder.pointwise import Norm
from promptlimits.models.huggingface.decoder.rotary import Turn
from promptlimits.models.huggingface.decoder.stage import GroupTables, Kind, Stage
from promptlimits.models.huggingface.decoder.tape import Tape

_PLAIN = Turn()


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionLayer:
    """Products and shape of an attention layer.

    Attributes:
        query: Product for the queries, those of one key head side by side.
        key: Product for the keys.
        value: Product for the values.
        output: Product of what the heads give.
        query_norm: Norm of each query head, or None.
        key_norm: Norm of each key head, or None.
        kv_heads: H_kv.
        width: Of a head.
        scaling: Factor on the scores.
        window: A key is seen only from fewer than this many positions away; None for all.
        rotary: Name of the rotary embedding, None for none.
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    query_norm: Norm | None
    key_norm: Norm | None
    kv_heads: int
    width: int
    scaling: float
    window: int | None
    rotary: str | None

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
        asking = self._asking(rows, stage)
        query = _normed(self.query_norm, self.query.forward(asking), tape)
        key = _normed(self.key_norm, self.key.forward(rows), tape)
        value = self.value.forward(rows)
        front = stage.prompt_rows_asked
        mixed = rows.new_empty(front + stage.pair_rows_asked, self.output.weight.shape[1])
        for index, (group, tables) in enumerate(self._groups(stage)):
            heads = self._assemble(index, query, key, value, stage)
            masks = tables.read_masks if stage.last else tables.token_masks
            out, prompt_out = attend(heads, masks, tape)
            from_heads(out, _asked(group, stage), _PLAIN, mixed[front:])
            if prompt_out is not None:
                from_heads(prompt_out.unsqueeze(2), prompt_rectangle(group), _PLAIN, mixed)
        return mixed

    def backward(
        self, gradient: Tensor, stage: Stage, tape: Tape
    ) -> tuple[Tensor, tuple[tuple[Tensor, Tensor], ...]]:
        """Gradient in the rows of the forward pass, from that in what it gave.

        Args:
            gradient: (asked rows, H width).
            stage: As in the forward pass.
            tape: As the forward pass left it.

        Returns:
            The gradient, and those in each group's prefix keys and values.
        """
        front, count = stage.prompt_rows_asked, self._variable_rows(stage)
        asked = front if stage.fixed is not None else front + stage.pair_rows_asked
        d_query = gradient.new_empty(asked, self.query.weight.shape[0])
        d_key = gradient.new_empty(count, self.key.weight.shape[0])
        d_value = gradient.new_empty(count, self.value.weight.shape[0])
        prefixes: list[tuple[Tensor, Tensor]] = []
        for group, tables in reversed(self._groups(stage)):
            out = self._heads(gradient[front:], _asked(group, stage), _PLAIN)
            prompt_out = None
            if front and group.prompt_tokens:
                prompt_out = self._heads(gradient, prompt_rectangle(group), _PLAIN)[:, :, 0]
            found = attend_back(out, prompt_out, tape, own=stage.fixed is None)
            self._scatter(found, group, tables, stage, d_query, d_key, d_value)
            prefixes.append((found.prompt_key, found.prompt_value))
        d_key = _back_normed(self.key_norm, d_key, tape)
        d_query = _back_normed(self.query_norm, d_query, tape)
        d_rows = self.value.backward(d_value, self.key.backward(d_key))
        if asked == count:
            d_rows = self.query.backward(d_query, d_rows)
        elif asked:
            rows = stage.prompt_rows + stage.layout.read_rows
            d_rows.index_add_(0, rows, self.query.backward(d_query))
        return d_rows, tuple(reversed(prefixes))

    def fix(self, rows: Tensor, stage: Stage) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
        """Queries, keys and values of the pairs' normalised rows (T, D), group by group."""
        tape = Tape(keep=False)
        asking = rows[stage.layout.read_rows] if stage.last else rows
        query = _normed(self.query_norm, self.query.forward(asking), tape)
        key = _normed(self.key_norm, self.key.forward(rows), tape)
        value = self.value.forward(rows)
        return tuple(
            (
                self._heads(query, _asked(group, stage), _query_turn(tables, stage)),
                self._heads(key, group.tokens, tables.token).squeeze(3),
                self._heads(value, group.tokens, _PLAIN).squeeze(3),
            )
            for group, tables in self._groups(stage)
        )

    def _groups(self, stage: Stage) -> list[tuple[Group, GroupTables]]:
        return list(zip(stage.layout.groups, stage.tables[self.kind], strict=True))

    def _heads(self, rows: Tensor, where: Rectangle, turn: Turn) -> Tensor:
        return to_heads(rows, where, turn, kv_heads=self.kv_heads, width=self.width)

    def _variable_rows(self, stage: Stage) -> int:
        pairs = 0 if stage.fixed is not None else stage.layout.token_ids.numel()
        return stage.prompt_rows + pairs

    def _asking(self, rows: Tensor, stage: Stage) -> Tensor:
        """The rows whose queries are computed here; fixed ones are already there."""
        if stage.fixed is not None:
            return rows[: stage.prompt_rows_asked]
        return stage.asked(rows)

    def _assemble(
        self, index: int, query: Tensor, key: Tensor, value: Tensor, stage: Stage
    ) -> Heads:
        group, tables = stage.layout.groups[index], stage.tables[self.kind][index]
        split, front = stage.prompt_rows, stage.prompt_rows_asked
        if stage.fixed is not None:
            own_query, own_key, own_value = stage.fixed.heads[index]
        else:
            turn = _query_turn(tables, stage)
            own_query = self._heads(query[front:], _asked(group, stage), turn)
            own_key = self._heads(key[split:], group.tokens, tables.token).squeeze(3)
            own_value = self._heads(value[split:], group.tokens, _PLAIN).squeeze(3)
        prompt_query = None
        if stage.prefix is not None:
            prompt_key, prompt_value = stage.prefix[index]
        else:
            where = prompt_rectangle(group)
            prompt_key = self._heads(key, where, tables.prompt)[:, :, 0, 0]
            prompt_value = self._heads(value, where, _PLAIN)[:, :, 0, 0]
            if front and group.prompt_tokens:
                prompt_query = self._heads(query, where, tables.prompt_query)[:, :, 0]
        return Heads(
            query=own_query,
            key=own_key,
            value=own_value,
            prompt_key=prompt_key,
            prompt_value=prompt_value,
            prompt_query=prompt_query,
        )

    def _scatter(
        self,
        found: Heads,
        group: Group,
        tables: GroupTables,
        stage: Stage,
        d_query: Tensor,
        d_key: Tensor,
        d_value: Tensor,
    ) -> None:
        """Write a group's gradients into the rows of the products."""
        split, front = stage.prompt_rows, stage.prompt_rows_asked
        if stage.fixed is None:
            turn = _query_turn(tables, stage)
            from_heads(found.query, _asked(group, stage), turn, d_query[front:])
            from_heads(found.key.unsqueeze(3), group.tokens, tables.token, d_key[split:])
            from_heads(found.value.unsqueeze(3), group.tokens, _PLAIN, d_value[split:])
        if stage.prefix is not None:
            return
        where = prompt_rectangle(group)
        from_heads(found.prompt_key[:, :, None, None], where, tables.prompt, d_key)
        from_heads(found.prompt_value[:, :, None, None], where, _PLAIN, d_value)
        if found.prompt_query is not None:
            from_heads(found.prompt_query.unsqueeze(2), where, tables.prompt_query, d_query)


def _asked(group: Group, stage: Stage) -> Rectangle:
    return group.reads if stage.last else group.tokens


def _query_turn(tables: GroupTables, stage: Stage) -> Turn:
    return tables.read_query if stage.last else tables.token_query


def _normed(norm: Norm | None, rows: Tensor, tape: Tape) -> Tensor:
    """Each head of (N, heads width) normalised by itself."""
    if norm is None:
        return rows
    width = norm.weight.shape[0]
    return norm.forward(rows.view(-1, width), tape).view(rows.shape)


def _back_normed(norm: Norm | None, gradient: Tensor, tape: Tape) -> Tensor:
    if norm is None:
        return gradient
    width = norm.weight.shape[0]
    back: Tensor = norm.backward(gradient.view(-1, width), tape, None).view(gradient.shape)
    return back
