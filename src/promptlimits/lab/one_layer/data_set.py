"""A list of queries with answers, and what was proved of it; as JSON and back.

In a file a query is the list of its tokens, the last token last, and an answer is the layer's
last output column asked for:

    {"queries": [[[..d numbers..], ..m tokens..], ..k queries..], "answers": [[..d..], ..k..]}

Other fields, such as those that say what is proved, are kept and not needed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from promptlimits.base.bound import Assumption
from promptlimits.base.errors import UserError
from promptlimits.base.files import JsonObject, JsonValue
from promptlimits.lab.one_layer.setting import Floats, require_moderate
from promptlimits.nets.paper.weights import exact_array


@dataclass(frozen=True, kw_only=True, eq=False)
class DataSet:
    """Queries, answers, and what is known about them."""

    queries: tuple[Floats, ...]  # k arrays (d, m_j), columns are tokens
    answers: Floats  # y_j as rows, (k, d)
    # T_j with y_j = MLP(x_j + t_j), x_j the last token; (k, d), or None if unknown.
    offsets: Floats | None = None
    proved: dict[str, Any] = field(default_factory=dict)  # what is proved, as plain JSON
    assumptions: tuple[Assumption, ...] = ()  # the assumptions, each checked

    def to_json(self) -> JsonObject:
        """As plain JSON; numbers are written so that reading gives the same floats."""
        queries: JsonValue = [query.T.tolist() for query in self.queries]
        record = fields_as_json(self) | {"queries": queries}
        return {name: value for name, value in record.items() if value is not None}


def fields_as_json(record: Any) -> JsonObject:
    """The fields of a dataclass as plain JSON: arrays as lists, exact numbers as text."""
    return {field.name: _plain(getattr(record, field.name)) for field in fields(record)}


def _plain(value: Any) -> JsonValue:
    if isinstance(value, np.ndarray):
        listed: JsonValue = value.tolist()
        return listed
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if is_dataclass(value):
        return fields_as_json(value)
    plain: JsonValue = value
    return plain


def data_set_from_json(record: Any, *, dim: int, where: str = "the pairs") -> DataSet:
    """Read queries and answers; nothing in the file is believed to be proved."""
    remedy = f'write {{"queries": [[token, ..], ..], "answers": [[..], ..]}}, {dim} numbers each'
    if not isinstance(record, dict) or not {"queries", "answers"} <= set(record):
        raise UserError(where, "hold queries and answers", got="other fields", remedy=remedy)
    queries, answers = record["queries"], record["answers"]
    if not isinstance(queries, list) or not isinstance(answers, list) or not queries:
        raise UserError(where, "hold lists of queries and answers", got="else", remedy=remedy)
    if len(queries) != len(answers):
        raise UserError(
            where,
            "hold as many answers as queries",
            got=f"{len(queries)} queries, {len(answers)} answers",
            remedy=remedy,
        )
    read = tuple(
        _tokens(f"{where}: query {number}", query, dim, remedy).T
        for number, query in enumerate(queries)
    )
    rows = [
        _tokens(f"{where}: answer {number}", [answer], dim, remedy)[0]
        for number, answer in enumerate(answers)
    ]
    return DataSet(queries=read, answers=np.stack(rows))


def _tokens(name: str, values: Any, dim: int, remedy: str) -> Floats:
    # numpy would read "1" and true as numbers.
    other = _not_a_number(values)
    if other is not None:
        raise UserError(name, "hold lists of numbers", got=other, remedy=remedy)
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(name, "hold lists of numbers", got=str(error), remedy=remedy) from error
    if array.ndim != 2 or array.shape[1] != dim or not len(array):
        raise UserError(name, f"hold tokens of {dim} numbers", got=str(array.shape), remedy=remedy)
    exact = exact_array(name, array, array.shape)
    require_moderate(name, exact)
    return exact


def _not_a_number(values: Any) -> str | None:
    """What stands in nested lists besides numbers, in words; None if nothing."""
    left = [values]
    while left:  # no recursion: a file may nest lists as deep as it likes
        one = left.pop()
        if isinstance(one, list):
            left.extend(reversed(one))
        elif isinstance(one, dict):
            return "an object"
        elif isinstance(one, bool) or not isinstance(one, int | float):
            return f"{one!r:.40}"
    return None
