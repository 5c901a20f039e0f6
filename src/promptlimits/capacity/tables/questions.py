"""Questions that are more than one text: with choices, or as the end of a conversation.

Of a question with choices the value is the name of the right one, its letter, which is what
published results for such questions score; the key shows the choices. Of a conversation the last
message is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Final

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.files import listed, shown
from promptlimits.capacity.tables.json_files import CONVERSATIONS
from promptlimits.capacity.tables.table import Cell, Row, Table, text_of


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The choices of one question."""

    names: tuple[str, ...]  # what each is called, such as "A"
    texts: tuple[str, ...]  # what each says
    numbers: tuple[int, ...]  # the place of each among all that a question may have, from 0 on
    columns: tuple[str, ...] = ()  # what the column of each is called, if each has its own

    def shown(self) -> str:
        """All choices, one on each line: "A. four"."""
        return "\n".join(
            f"{name}. {text}" for name, text in zip(self.names, self.texts, strict=True)
        )


def choices_of(table: Table, row: Row, columns: Sequence[str]) -> Choices:
    """The choices of a row."""
    where = table.where(row)
    if len(columns) > 1:
        texts = [table.text(row, column) for column in columns]
        letters = columns if all(len(name) == 1 for name in columns) else ascii_uppercase
        if len(columns) > len(letters):
            raise UserError(
                "choices",
                f"be at most {len(letters)} columns",
                got=len(columns),
                remedy="name fewer, or the one column that holds a list of choices",
            )
        there = [n for n, text in enumerate(texts) if text]
        found = Choices(
            names=tuple(letters[n] for n in there),
            texts=tuple(texts[n] or "" for n in there),
            numbers=tuple(there),
            columns=tuple(columns[n] for n in there),
        )
        most = len(letters)
    else:
        found = _of_list(f"{where}: {columns[0]}", table.cell(row, columns[0]))
        most = len(ascii_uppercase)
    if not 2 <= len(found.texts) <= most or len(set(found.names)) < len(found.names):
        raise UserError(
            f"{where}: {', '.join(columns)}",
            f"hold 2 to {most} choices with names of their own",
            got=f"{len(found.texts)} named {listed(found.names)}",
            remedy="name the columns that hold the choices, or the one that holds a list of them",
        )
    return found


def _of_list(where: str, cell: object) -> Choices:
    match cell:
        case {"text": list(texts), "label": list(labels)} if len(texts) == len(labels):
            names = [text_of(where, label) or "" for label in labels]
        case list(texts):
            # Too many to name are refused by whoever asked for them.
            names = [ascii_uppercase[n] if n < 26 else f"#{n}" for n in range(len(texts))]
        case _:
            raise UserError(
                where,
                "hold a list of choices",
                got="no list",
                remedy="name every column that holds a choice, as in --choices A,B,C,D",
            )
    return Choices(
        names=tuple(names),
        texts=tuple(text_of(where, text) or "" for text in texts),
        numbers=tuple(range(len(texts))),
    )


def right_choices(
    table: Table, column: str, asked: Sequence[tuple[Row, Choices]]
) -> tuple[list[str], tuple[str, ...]]:
    """The names of the right choices, by the one way to read answers that fits them all.

    In this order: answers are names of choices (the letter, in either case, or the name of the
    column); numbers, counted from 0, or from 1 where no 0 occurs and the number of choices does;
    or texts of choices.
    """
    answers = [(table.text(row, column) or "").strip() for row, _ in asked]
    every = [choices for _, choices in asked]
    base = _base(answers, every)
    readings = {
        "names of choices": list(map(_by_name, answers, every)),
        f"numbers of choices, counted from {base}": [
            _by_number(answer, choices, base)
            for answer, choices in zip(answers, every, strict=True)
        ],
        "texts of choices": list(map(_by_text, answers, every)),
    }
    fitting = {way: found for way, found in readings.items() if None not in found}
    if not fitting:
        raise _unfit(table, column, answers, asked, max(readings.values(), key=_known))
    way, found = next(iter(fitting.items()))
    texts = readings["texts of choices"]
    if None not in texts and texts != found:
        raise _ambiguous(table, column, answers, asked, found, texts)
    right = [
        choices.names[index]
        for choices, index in zip(every, found, strict=True)
        if index is not None
    ]
    example = f"{shown(answers[0])} of {asked[0][0].at} is {right[0]}"
    said = f"answers in {shown(column)} are read as {way}: {example}"
    return right, (said, "the value is the name of the right choice, not its text")


def _known(found: Sequence[int | None]) -> int:
    return sum(one is not None for one in found)


def _by_name(answer: str, choices: Choices) -> int | None:
    for names in (choices.names, choices.columns):
        if answer in names:
            return names.index(answer)
    lowered = [name.lower() for name in choices.names]
    return lowered.index(answer.lower()) if lowered.count(answer.lower()) == 1 else None


def _number(answer: str) -> int | None:
    return int(answer) if answer.isascii() and answer.isdigit() and len(answer) < 4 else None


def _base(answers: Sequence[str], every: Sequence[Choices]) -> int:
    numbers = list(map(_number, answers))
    last = any(n == max(one.numbers) + 1 for n, one in zip(numbers, every, strict=True))
    return 1 if last and 0 not in numbers else 0


def _by_number(answer: str, choices: Choices, base: int) -> int | None:
    number = _number(answer)
    if number is None or number - base not in choices.numbers:
        return None
    return choices.numbers.index(number - base)


def _by_text(answer: str, choices: Choices) -> int | None:
    texts = [text.strip() for text in choices.texts]
    return texts.index(answer) if texts.count(answer) == 1 else None


def _unfit(
    table: Table,
    column: str,
    answers: Sequence[str],
    asked: Sequence[tuple[Row, Choices]],
    best: Sequence[int | None],
) -> UserError:
    index = best.index(None)
    row, choices = asked[index]
    return UserError(
        f"{table.where(row)}: {column}",
        f"name one of the choices {listed(choices.names)}, number it, or give its text, as the "
        "other rows do",
        got=shown(answers[index]),
        remedy=f"write {choices.names[0]} there if the first choice is right, and so on",
    )


def _ambiguous(
    table: Table,
    column: str,
    answers: Sequence[str],
    asked: Sequence[tuple[Row, Choices]],
    found: Sequence[int | None],
    texts: Sequence[int | None],
) -> UserError:
    index = next(n for n, pair in enumerate(zip(found, texts, strict=True)) if pair[0] != pair[1])
    row, choices = asked[index]
    first, second = (choices.names[one[index] or 0] for one in (found, texts))
    return UserError(
        f"{table.where(row)}: {column}",
        "mean one of the choices",
        got=f"{shown(answers[index])}, which stands for {first} and is the text of {second}",
        remedy="write in that column the names of the right choices, and choices that say other "
        "things than names or numbers",
    )


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
