"""Which columns of a file are the key, the value and the choices."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.advice import advice
from promptlimits.capacity.tables.files import listed, shown
from promptlimits.capacity.tables.table import Table
from promptlimits.capacity.tables.template import KEY_FIELD, Template

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
    """What the columns of a table are.

    Attributes:
        key: Column that `{key}` stands for; None where the template does not ask for it.
        value: Column of the answers.
        choices: Columns of the choices.
        used: Every column that is read, the value's among them.
    """

    key: str | None
    value: str
    choices: tuple[str, ...]
    used: frozenset[str]

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
