"""Pairs of a key and a value as text, from a file of any of the formats that people publish.

Every text is kept as it stands in the file, to the last blank: white space is part of what is
asked and of what must be answered. Notes say where it stands at the ends.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.files import file_name, shown
from promptlimits.capacity.tables.form import KEY_FIELD, Template, parse_template
from promptlimits.capacity.tables.formats import read_table
from promptlimits.capacity.tables.questions import (
    choices_of,
    conversation,
    conversation_column,
    right_choices,
)
from promptlimits.capacity.tables.reading import CHOICES_FIELD, Reading, Roles, roles_of
from promptlimits.capacity.tables.table import Row, Table, texts_of


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A key and the value to answer with.

    Attributes:
        key: Text of the key; not empty.
        value: Text of the value; not empty.
        where: Where it comes from, such as "pairs.csv line 3".
        also: Other answers that count as well; the value is the one that is trained for.
        turns: (role, content) of each message of a conversation that the key is the end of; empty
            where the key is plain text.
    """

    key: str
    value: str
    where: str
    also: tuple[str, ...] = ()
    turns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class PairTask:
    """Pairs as text, each key once, in a fixed order.

    Attributes:
        name: Short name for people.
        pairs: The pairs; at least one.
        source: Where they come from and under which licence, if known.
        notes: Facts a report must show, such as what was left out.
    """

    name: str
    pairs: tuple[Pair, ...]
    source: str
    notes: tuple[str, ...] = ()


def read_pairs(
    path: Path | str, *, reading: Reading | None = None, template: str = "{key}"
) -> PairTask:
    """Read a file of pairs.

    The ending says the format: .csv and .tsv with a header, .json with an array of objects,
    .jsonl with one object on each line, .parquet. Text is UTF-8. The columns key and value are
    read unless `reading` names others; a field `messages` or `conversations` is a conversation
    of which the last message is the value. What is not used, left out or alike stands in the
    notes.

    Args:
        path: The file.
        reading: Which columns are the key, the value and the choices.
        template: How a row is put. Where its one field is {key}, as in "{key}:", the keys are
            left as they are, for whoever puts them to a model; any other template is filled in
            here and gives the keys.

    Returns:
        The pairs, in the order of the file.

    Raises:
        UserError: Something is wrong with the file; the message names the line.
    """
    path, reading = Path(path), reading or Reading()
    parsed = parse_template(template)
    table = read_table(path)
    talk = conversation_column(table)
    if talk is not None and not reading.given and not {"key", "value"} <= {*table.columns}:
        pairs, notes = _of_conversations(table, talk, parsed)
    else:
        pairs, notes = _of_columns(table, reading, parsed)
    return PairTask(
        name=file_name(Path(path.stem)),
        pairs=pairs,
        source=f"file {file_name(Path(path.name))}",
        notes=(*table.notes, *notes, *notes_on_texts(pairs)),
    )


def _of_conversations(
    table: Table, column: str, template: Template
) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    if not template.of_the_key_alone:
        raise UserError(
            "the template",
            "be left out for conversations, which the chat template of the model writes",
            got=shown(template.text),
            remedy="leave it out",
        )
    drafts = []
    for row in table.rows:
        turns, value = conversation(table, row, column)
        asked = next((text for role, text in reversed(turns) if role == "user"), turns[-1][1])
        pair = Pair(key=asked, value=value, where=table.where(row), turns=turns)
        drafts.append((row, _filled(pair)))
    said = f"the last message of {shown(column)} is the value, those before it are asked"
    return _unique(table, drafts, {column}, None), (said, *_unused(table, {column}, None))


def _of_columns(
    table: Table, reading: Reading, template: Template
) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    roles = roles_of(table, reading, template)
    if not table.rows:
        raise UserError(
            table.end,
            "come after at least one pair",
            got="the end of the file",
            remedy=f"put one pair on each line, below the names of the {table.called}s",
        )
    answered, left_out = _answered(table, roles.value)
    notes = _left_out(table, roles, left_out)
    shown_choices = [""] * len(answered)
    if roles.choices:
        choices = [choices_of(table, row, roles.choices) for row, _ in answered]
        asked = [(row, one) for (row, _), one in zip(answered, choices, strict=True)]
        right, said = right_choices(table, roles.value, asked)
        notes += said
        answered = [(row, [name]) for (row, _), name in zip(answered, right, strict=True)]
        shown_choices = [one.shown() for one in choices]
    drafts = []
    for (row, (first, *others)), below in zip(answered, shown_choices, strict=True):
        key = _key(table, row, roles, template, below)
        pair = Pair(key=key, value=first, also=tuple(others), where=table.where(row))
        drafts.append((row, _filled(pair)))
    if not template.of_the_key_alone:
        notes += (f"keys are made of the columns by the template {shown(template.text)}",)
    notes += _unused(table, roles.used, template)
    return _unique(table, drafts, roles.used, template), notes


def _answered(table: Table, column: str) -> tuple[list[tuple[Row, list[str]]], list[Row]]:
    """The rows that have answers, with them; and those that have none."""
    answered, left_out = [], []
    for row in table.rows:
        texts = texts_of(f"{table.where(row)}: {column}", table.cell(row, column))
        if texts:
            answered.append((row, texts))
        else:
            left_out.append(row)
    return answered, left_out


def _key(table: Table, row: Row, roles: Roles, template: Template, choices: str) -> str:
    """The key of a row; where the template only frames it, the key without the frame."""
    cells = {}
    for field in template.fields:
        if field == CHOICES_FIELD and roles.choices:
            cells[field] = choices
            continue
        text = table.text(row, roles.column(field))
        if field == KEY_FIELD:
            _require_text(table.where(row), "key", text)
        cells[field] = text or ""
    return cells[KEY_FIELD] if template.of_the_key_alone else template.render(cells)


def _filled(pair: Pair) -> Pair:
    """Return a pair if its texts say something."""
    _require_text(pair.where, "key", pair.key)
    for text in (pair.value, *pair.also):
        _require_text(pair.where, "value", text)
    return pair


def _require_text(where: str, field: str, text: str | None) -> None:
    if text is None or not text.strip():
        got = "null" if text is None else f"white space alone, {shown(text)}"
        raise UserError(
            where,
            f"have a {field}",
            got=got if text != "" else "an empty one",
            remedy="fill it in or delete the entry",
        )


def _left_out(table: Table, roles: Roles, rows: list[Row]) -> tuple[str, ...]:
    if not rows:
        return ()
    if len(rows) == len(table.rows):
        raise UserError(
            file_name(table.path),
            "hold at least one pair with an answer",
            got=f"none in {shown(roles.value)}",
            remedy="fill that in, or name the column that holds the answers",
        )
    entries = "1 entry" if len(rows) == 1 else f"{len(rows)} entries"
    return (f"{entries} without an answer left out, the first on {rows[0].at}",)


def _unused(table: Table, used: Iterable[str], template: Template | None) -> tuple[str, ...]:
    """A note on columns that are not read, and on how to ask with one of them."""
    read = set(used)
    ignored = [name for name in table.columns if name not in read]
    if not ignored:
        return ()
    note = f"{table.called}s not used: {', '.join(map(shown, ignored))}"
    example = None if template is None else _asking_with(table, template, ignored)
    return (note if example is None else f"{note}; to ask with one of them: {example}",)


def _asking_with(table: Table, template: Template, columns: Iterable[str]) -> str | None:
    """The option that asks with the first of some columns, too; None if none can be asked with."""
    named = next((name for name in columns if _can_be_asked(table, name)), None)
    if named is None:
        return None
    fields = "\\n".join(f"{{{field}}}" for field in (*template.fields, named))
    return f"--template {shlex.quote(fields)}"


def _can_be_asked(table: Table, column: str) -> bool:
    """Whether a template can name a column, and every row has it, with one text or none."""
    named = bool(column) and not {"{", "}"} & {*column} and column not in table.repeated
    cells = [row.cells.get(column, ()) for row in table.rows]
    return named and not any(isinstance(cell, list | dict | tuple) for cell in cells)


def _unique(
    table: Table,
    drafts: list[tuple[Row, Pair]],
    used: Iterable[str],
    template: Template | None,
) -> tuple[Pair, ...]:
    """The pairs, if no two ask the same."""
    read = set(used)
    seen: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[Row, Pair]] = {}
    for row, pair in drafts:
        first_row, first = seen.setdefault((pair.key, pair.turns), (row, pair))
        if first is pair:
            continue
        if pair.value == first.value:
            got = f"the pair of {first_row.at} again"
            remedy = "delete one of the two"
        else:
            got = f"{shown(pair.value)} here and {shown(first.value)} on {first_row.at}"
            remedy = "keep the one that is right"
            apart = [
                name
                for name in table.columns
                if name not in read and row.cells.get(name) != first_row.cells.get(name)
            ]
            example = None if template is None else _asking_with(table, template, apart)
            if example is not None:
                remedy += f", or tell them apart by another {table.called}: {example}"
        raise UserError(
            pair.where, f"give the key {shown(pair.key)} only once", got=got, remedy=remedy
        )
    return tuple(pair for _, pair in seen.values())


# --- what a reader of the pairs might not see --------------------------------------------------


_JOINERS: Final = "\u200c\u200d"
"""Zero-width characters that several scripts and emoji need."""

_HIDDEN: Final = re.compile(
    "[\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)
_UNSEEN: Final = re.compile(f"{_HIDDEN.pattern}|[{_JOINERS}]")
_SHOWN: Final = 40


def notes_on_texts(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """What a reader of the pairs might not see."""
    texts = [(pair.where, text) for pair in pairs for text in (pair.key, pair.value)]
    keys = [(pair.where, pair.key) for pair in pairs]
    values: dict[str, str] = {}
    for pair in pairs:
        values.setdefault(pair.value, pair.where)
    return (
        *_counted(
            texts,
            lambda text: text != text.strip(),
            "keys and values that begin or end in white space",
        ),
        *_counted(
            texts,
            lambda text: _HIDDEN.search(text) is not None,
            "keys and values with characters that do not show",
        ),
        *_alike("keys", keys),
        *_alike("values", [(where, text) for text, where in values.items()]),
    )


def _counted(
    texts: Iterable[tuple[str, str]], odd: Callable[[str], bool], what: str
) -> tuple[str, ...]:
    found = [(where, text) for where, text in texts if odd(text)]
    if not found:
        return ()
    where, text = found[0]
    return (f"{what}, kept as they are: {len(found)}, the first is {_ascii(text)}, {where}",)


def _alike(called: str, texts: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    same, same_first = _repeats(texts, _look)
    loose, loose_first = _repeats(texts, _loosely)
    notes = []
    if same_first:
        notes.append(
            f"{called} that look like an earlier one, in another Unicode form or with characters "
            f"that do not show: {same}, the first are {same_first}"
        )
    if loose > same:
        notes.append(
            f"{called} that differ from an earlier one only in case, white space or the form of "
            f"a character: {loose - same}, the first are {loose_first}"
        )
    return tuple(notes)


def _repeats(
    texts: Sequence[tuple[str, str]], form: Callable[[str], str]
) -> tuple[int, str | None]:
    """How many texts have the form of an earlier one; and the first such two that look unlike.

    Of `_look` the two always look the same.
    """
    seen: dict[str, tuple[str, str]] = {}
    number, example = 0, None
    for where, text in texts:
        first_where, first = seen.setdefault(form(text), (where, text))
        if text == first:
            continue
        number += 1
        if example is None and (form is _look or _look(text) != _look(first)):
            example = f"{_ascii(first)}, {first_where}, and {_ascii(text)}, {where}"
    return number, example


def _look(text: str) -> str:
    return unicodedata.normalize("NFC", _UNSEEN.sub("", text))


def _loosely(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", _look(text)).casefold().split())


def _ascii(text: str) -> str:
    return ascii(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
