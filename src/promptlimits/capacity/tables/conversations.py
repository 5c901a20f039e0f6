"""Conversations as they are published: messages of which the last is the answer."""

from __future__ import annotations

from typing import Final

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.files import shown
from promptlimits.capacity.tables.json_files import CONVERSATIONS
from promptlimits.capacity.tables.table import Cell, Row, Table, text_of

_ROLES: Final = {"human": "user", "gpt": "assistant"}
"""Names that ShareGPT has for roles."""


def conversation_column(table: Table) -> str | None:
    """The column of a table whose cells are conversations."""
    return next(
        (
            name
            for name in CONVERSATIONS
            if name in table.columns
            and any(isinstance(row.cells.get(name), list) for row in table.rows)
        ),
        None,
    )


def conversation(table: Table, row: Row, column: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """The messages of a row."""
    where = f"{table.where(row)}: {column}"
    cell = table.cell(row, column)
    if not isinstance(cell, list):
        raise UserError(
            where,
            "be a list of messages",
            got="null" if cell is None else shown(str(cell)),
            remedy="fill it in or delete the entry",
        )
    messages = [
        _message(f"{where}, message {number}", message)
        for number, message in enumerate(cell, start=1)
    ]
    if len(messages) < 2 or messages[-1][0] != "assistant" or messages[-2][0] == "assistant":
        roles = ", ".join(role for role, _ in messages) or "no message"
        raise UserError(
            where,
            "end in a message to the assistant and the assistant's answer",
            got=roles[:100],
            remedy="delete what follows the assistant's last answer, or the whole entry",
        )
    return tuple(messages[:-1]), messages[-1][1]


def _message(where: str, message: Cell) -> tuple[str, str]:
    match message:
        case {"role": str(role), "content": content} | {"from": str(role), "value": content}:
            text = _content(where, content)
            if text is not None:
                return _ROLES.get(role, role), text
    raise UserError(
        where,
        "have a role and a content that is text",
        got=shown(str(message)),
        remedy='write {"role": "user", "content": "..."}',
    )


def _content(where: str, content: Cell) -> str | None:
    """The text of a message, which may come in parts."""
    if not isinstance(content, list):
        return text_of(where, content)
    parts = [part.get("text") if isinstance(part, dict) else None for part in content]
    texts = [text_of(where, part) for part in parts]
    return None if None in texts else "".join(text or "" for text in texts)
