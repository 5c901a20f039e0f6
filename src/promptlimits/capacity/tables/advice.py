"""What to type so that a file is read as it was meant, from the names of its columns."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

from promptlimits.capacity.tables.table import Table

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
