"""Which columns of a file are the key, the value and the choices."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.files import listed, shown
from promptlimits.capacity.tables.form import KEY_FIELD, Template
from promptlimits.capacity.tables.table import Table

CHOICES_FIELD = "choices"
"""Field of a template that stands for all choices, one on each line."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the columns of a file are read, as a user says it.

    Attributes:
        columns: "KEY=VALUE", the names of two columns; None for the columns key and value.
        answer: Name of the value's column alone, where no column or another one is the key.
        choices: Names of the columns that hold the choices of a question, or of the one column
            that holds a list of them.
    """

    columns: str | None = None
    answer: str | None = None
    choices: tuple[str, ...] = ()

    @property
    def given(self) -> tuple[tuple[str, str], ...]:
        """What the user said: the name of each setting with its text."""
        said = (
            ("columns", self.columns),
            ("answer", self.answer),
            ("choices", ",".join(self.choices) or None),
        )
        return tuple((name, text) for name, text in said if text is not None)


def parse_choices(text: str | None) -> tuple[str, ...]:
    """The columns of "A,B,C,D"."""
    if text is None:
        return ()
    names = tuple(name.strip() for name in text.split(","))
    if "" in names or len(set(names)) < len(names):
        raise UserError(
            "choices",
            "be different names of columns, separated by commas",
            got=shown(text),
            remedy="write A,B,C,D, or the name of the one column that holds a list of choices",
        )
    return names


@dataclass(frozen=True, kw_only=True)
class Roles:
    """What the columns of a table are."""

    key: str | None  # column that `{key}` stands for; None where the template does not ask for it
    value: str  # column of the answers
    choices: tuple[str, ...]  # columns of the choices
    used: frozenset[str]  # every column that is read, the value's among them

    def column(self, field: str) -> str:
        """The column that a field of the template stands for."""
        return self.key if field == KEY_FIELD and self.key is not None else field


def roles_of(table: Table, reading: Reading, template: Template) -> Roles:
    """Find out which column is what."""
    if reading.columns is not None and reading.answer is not None:
        raise UserError(
            "answer",
            "be left out where the columns are named",
            got=shown(reading.answer),
            remedy=f"give --columns {shlex.quote(reading.columns)} alone",
        )
    for name in reading.choices:
        _require(table, name, "choices")
    if reading.columns is not None:
        key: str | None
        key, value = _two(table, reading.columns)
    else:
        value = _value(table, reading)
        key = _key(table, value, reading, template)
    if value in reading.choices:
        raise UserError(
            "choices", "not name the answer's column", got=shown(value), remedy="leave it out there"
        )
    written = _written(table, template, key=key, value=value, choices=reading.choices)
    used = frozenset({value, *reading.choices, *written})
    for name in table.columns:
        if name in used & table.repeated:
            raise UserError(
                table.header,
                f"name the column {shown(name)} once",
                got=listed(table.columns),
                remedy="rename the other one",
            )
    return Roles(key=key, value=value, choices=reading.choices, used=used)


def _require(table: Table, column: str, option: str) -> None:
    if column not in table.columns:
        raise UserError(
            table.header,
            f"have the {table.called} {shown(column)}, which --{option} names",
            got=listed(table.columns),
            remedy=f"check the name: {advice(table)}",
        )


def _two(table: Table, columns: str) -> tuple[str, str]:
    """The key's and the value's column of "question=answer"; a name may hold "=" itself."""
    parts = columns.split("=")
    cuts = [("=".join(parts[:n]), "=".join(parts[n:])) for n in range(1, len(parts))]
    known = [cut for cut in cuts if set(cut) <= set(table.columns)]
    if len(known) == 1 and known[0][0] != known[0][1]:
        return known[0]
    if len(cuts) == 1 and "" not in cuts[0] and not known:
        for name in cuts[0]:
            _require(table, name, "columns")
    raise UserError(
        "columns",
        "be KEY=VALUE, the names of two columns",
        got=shown(columns),
        remedy=f"of {listed(table.columns)}, {advice(table)}",
    )


def _value(table: Table, reading: Reading) -> str:
    if reading.answer is not None:
        _require(table, reading.answer, "answer")
        return reading.answer
    if "value" not in table.columns:
        raise _unnamed(table)
    return "value"


def _key(table: Table, value: str, reading: Reading, template: Template) -> str | None:
    """The column that `{key}` stands for, where the template asks for it."""
    if KEY_FIELD not in template.fields:
        return None
    if KEY_FIELD in table.columns:
        return KEY_FIELD
    rest = [name for name in table.columns if name not in {value, *reading.choices}]
    if reading.answer is None or len(rest) != 1:
        raise _unnamed(table)
    return rest[0]


def _unnamed(table: Table) -> UserError:
    kind = "be a header with the columns" if table.called == "column" else "have the fields"
    return UserError(
        table.header, f"{kind} 'key' and 'value'", got=listed(table.columns), remedy=advice(table)
    )


def _written(
    table: Table, template: Template, *, key: str | None, value: str, choices: tuple[str, ...]
) -> list[str]:
    """The columns that the template writes."""
    columns = []
    for field in template.fields:
        if field == KEY_FIELD and key is not None:
            columns.append(key)
        elif field == CHOICES_FIELD and choices:
            continue
        elif field in table.columns:
            columns.append(field)
        else:
            raise UserError(
                "the template",
                "have columns of the list as its fields",
                got=f"{{{field}}}",
                remedy=f"use {{key}}, or in braces one of {listed(table.columns)}",
            )
    if value in columns:
        raise UserError(
            "the template",
            "not hold the answer",
            got=f"{{{value}}}",
            remedy=f"leave that out, or name another {table.called} with --answer",
        )
    return columns


_ANSWERS: Final = (
    *("value", "answer", "answers", "answerkey", "output", "outputs", "response", "completion"),
    *("target", "targets", "label", "labels", "back", "gold", "solution"),
)
_QUESTIONS: Final = (
    *("key", "question", "questions", "query", "instruction", "prompt", "problem", "goal"),
    *("input", "inputs", "text", "sentence", "source", "front", "premise"),
)
_CHOICES: Final = ("choices", "options", "endings")
_MORE: Final = ("input", "context", "passage", "paragraph")
"""Columns without which a question is often only half of it."""


def advice(table: Table) -> str:
    """The remedy for a file whose columns cannot be told: what to type."""
    columns = [name for name in table.columns if name and name not in table.repeated]
    answer = _first(columns, _ANSWERS)
    question = _first([name for name in columns if name != answer], _QUESTIONS)
    if len(columns) == 2:
        answer = answer or next(name for name in columns[::-1] if name != question)
        question = question or next(name for name in columns if name != answer)
    if question is None or answer is None:
        return _unclear(table, columns)
    choices = _choices(columns, {question, answer})
    named = f"--columns {_typed(f'{question}={answer}')}"
    if choices:
        return f"give {named} --choices {_typed(','.join(choices))}"
    more = next((name for name in columns if name.lower() in _MORE and name != question), None)
    if more is not None:
        parts = (question, more) if more.lower() == "input" else (more, question)
        template = "\\n".join(f"{{{name}}}" for name in parts)
        asked = f"--template {shlex.quote(template)} --answer {_typed(answer)}"
        return f"give {named}, or {asked} to ask with both"
    if set(map(str.lower, (question, answer))) <= {*_QUESTIONS, *_ANSWERS}:
        return f"give {named}"
    if table.called == "field":
        return f"give {named}"
    return f"give {named}, or put the line key,value above it if it is a pair"


def _first(columns: Sequence[str], known: Sequence[str]) -> str | None:
    lowered = {name.lower(): name for name in reversed(columns)}
    return next((lowered[name] for name in known if name in lowered), None)


def _choices(columns: Sequence[str], taken: set[str]) -> list[str]:
    """The columns that hold choices: A, B, C and so on, or one with a list."""
    letters = [name for name in columns if len(name) == 1 and name not in taken]
    if len(letters) > 1 and sorted(letters) == list(map(chr, range(65, 65 + len(letters)))):
        return letters
    known = _first([name for name in columns if name not in taken], _CHOICES)
    return [] if known is None else [known]


def _unclear(table: Table, columns: Sequence[str]) -> str:
    if len(columns) > 1:
        return "name the key's and the value's, as in --columns KEY=VALUE"
    if table.called == "column":
        return "add a column, and name the two key and value in the first line"
    return 'give each entry two fields, as in {"key": "...", "value": "..."}'


def _typed(text: str) -> str:
    return shlex.quote(text)
