"""The records of `bracket` and `fit`: the one form in which they are made, kept, printed and read.

A record is refused where a type is wrong, a field is missing or unknown, or its numbers contradict
each other, so what is impossible stops here, before a number of it is shown to anyone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.base.files import Fact, JsonObject
from promptlimits.base.strict import Amount, Count, Many, Positive, Strict
from promptlimits.record.parts import (
    Answer,
    AnyControl,
    Attempt,
    Baseline,
    Bracket,
    Control,
    Floor,
    Kind,
    Model,
    ReplayLoss,
    Seconds,
    State,
    Task,
    Verdict,
)

SCHEMA: Final = 1
"""The one version of the bracket record that this version of the package reads."""


class Record(Strict):
    """One run of `promptlimits bracket`: what --json prints and the report is drawn from."""

    version: Annotated[Literal[1], Field(alias="schema")] = 1
    record_kind: Annotated[Literal["bracket"], Field(alias="kind")] = "bracket"
    command: str
    out: str
    created: str
    seconds: Amount
    seconds_by_stage: Seconds
    budget_seconds: Amount | None
    budget_steps: Count | None
    complete: bool
    go_on: str | None
    model: Model
    task: Task
    baselines: Many[Baseline]
    brackets: Annotated[Many[Bracket], Field(min_length=1)]
    versions: dict[str, Fact]
    seed: int
    warnings: Many[str]

    @field_validator("brackets")
    @classmethod
    def _soft_prompts_first_and_shortest_first(
        cls, brackets: tuple[Bracket, ...]
    ) -> tuple[Bracket, ...]:
        return tuple(sorted(brackets, key=lambda one: (one.kind == "prefix", one.prompt_tokens)))

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        for bracket in self.brackets:
            _require_consistent(bracket, self.task)
        return self


class Fit(Strict):
    """One run of `promptlimits fit`."""

    version: Annotated[Literal[1], Field(alias="schema")] = 1
    record_kind: Annotated[Literal["fit"], Field(alias="kind")] = "fit"
    prompt_kind: Kind
    state: Annotated[State, Field(strict=False)]
    complete: bool
    go_on: str | None
    pairs: Count
    of: Count
    also_answered_unprompted: Count
    text_tokens: Positive | None
    notes: Many[str]
    search_dtype: str
    outcome: str
    remedy: str
    witness: str | None
    confirmed_by: str
    lost_in_replay: ReplayLoss | None
    answers: Many[Answer]
    not_held: Many[str]
    control: AnyControl | None
    search: Many[Attempt]


def losses(record: Record | Fit, *, whole: bool) -> tuple[str, ...]:
    """What stock tools did not confirm of what training held: all of a prompt, or some of it."""
    if isinstance(record, Fit):
        lost = [(f"{record.prompt_kind} prompt", record.lost_in_replay)]
    else:
        lost = [
            (f"{one.kind} prompt of length {one.prompt_tokens}", one.floor.lost_in_replay)
            for one in record.brackets
        ]
    return tuple(
        f"{name}: {loss}"
        for name, loss in lost
        if loss is not None and (loss.confirmed == 0) == whole
    )


def read_record(document: object) -> Record:
    """Read a bracket record, with errors for people.

    Args:
        document: What JSON holds.

    Raises:
        UserError: It is another document, of another version, or a field of it is missing,
            unknown or of a wrong type.
        RunFailed: It contradicts itself.
    """
    fields = _require_schema(document)
    try:
        return Record.model_validate(fields)
    except ValidationError as error:
        raise _unreadable(error) from None


def _require_schema(document: object) -> JsonObject:
    if not isinstance(document, dict) or document.get("kind") != "bracket":
        got = document.get("kind") if isinstance(document, dict) else type(document).__name__
        raise UserError(
            "record",
            'be a JSON object of kind "bracket"',
            got=repr(got),
            remedy="give a file that `promptlimits bracket` wrote",
        )
    schema = document.get("schema")
    if isinstance(schema, bool) or schema != SCHEMA:
        newer = isinstance(schema, int) and schema > SCHEMA
        remedy = (
            "it was written by a newer version: upgrade promptlimits"
            if newer
            else "run its command again with this version"
        )
        raise UserError("record schema", f"be {SCHEMA}", got=repr(schema), remedy=remedy)
    return document


def _unreadable(error: ValidationError) -> UserError:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(step) for step in first["loc"])
    got = json.dumps(first["input"], default=repr)
    return UserError(
        f"record field {where}",
        f"be readable ({first['msg'].lower()})",
        got=got if len(got) <= 80 else f"{got[:80]}...",
        remedy="run the command that wrote the record again",
    )


def _require_consistent(bracket: Bracket, task: Task) -> None:
    floor, ceiling = bracket.floor, bracket.ceiling
    # Facts above the ceiling are facts that the model predicts: it is about random answers.
    if task.answers_random and ceiling.pairs is not None and floor.pairs > ceiling.pairs:
        raise RunFailed(
            f"the floor ({floor.pairs} pairs found) is above the ceiling "
            f"({ceiling.pairs} random pairs proved) at prompt length {bracket.prompt_tokens}",
            remedy="trust neither number and report this as a bug, with the record",
        )
    for what in _contradictions(bracket, task):
        raise RunFailed(
            f"the record contradicts itself: {what}",
            remedy="trust neither number and report this as a bug, with the record",
        )


def _contradictions(bracket: Bracket, task: Task) -> Iterator[str]:
    """What a bracket says that cannot be, in words."""
    floor, control = bracket.floor, bracket.control
    length = f"prompt length {bracket.prompt_tokens}"
    measured, found = floor.status == "found", bracket.state is State.FOUND
    if bool(floor.held) is not found or measured is not bracket.searched:
        yield (
            f"{floor.held} are called {floor.status} at {length}, and the search {bracket.state}"
        )
    if floor.held and not floor.witness:
        unit = "pairs" if floor.tokens is None else "tokens"
        yield f"{floor.held} {unit} are called found at {length} without a witness"
    # Of a text one answer is decoded: its longest beginning.
    said = floor.pairs if floor.tokens is None else min(floor.tokens, 1)
    held = sum(answer.verdict is Verdict.HELD for answer in floor.answers)
    if floor.answers and held != said:
        yield f"the floor at {length} says {said} pairs, its answers hold {held}"
    if isinstance(control, Control) and control.recovered > control.size:
        yield f"{control.recovered} of {control.size} planted pairs are recovered at {length}"
    if task.text_tokens is not None and not _counts_tokens(floor, task.text_tokens):
        yield (
            f"{floor.pairs} texts of {task.text_tokens} tokens are held at {length}, "
            f"but {floor.tokens} tokens"
        )
    if floor.pairs > task.pairs:
        yield f"{floor.pairs} pairs are held at {length} of a list of {task.pairs}"


def _counts_tokens(floor: Floor, of: int) -> bool:
    """Whether a text of so many tokens is called held where they all are, and only there."""
    return floor.tokens is not None and floor.tokens <= of and floor.pairs == (floor.tokens == of)
