"""The bracket record as the report reads it: parsed once, checked once, then frozen.

A record is plain JSON written by `promptlimits bracket`. Everything below `report` works on
the types of this module, so a record that says something impossible stops here, before a
number of it is shown to anyone.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.base.files import JsonObject, JsonValue

SCHEMA: Final = 1
"""The one version of the bracket record that this version of the package reads."""

Count = Annotated[int, Field(ge=0, strict=True)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Verdict(StrEnum):
    """What became of one pair when the saved prompt was decoded."""

    HELD = "held"
    NOT_COUNTED = "not counted"
    WRONG = "wrong"


# A size tried, by what it is called: for a text it is a number of tokens.
_SIZE = AliasChoices("pairs", "tokens")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Model(_Part):
    """The frozen model, as its card says."""

    name: str
    reference: str
    path: str
    model_hash: str
    parameters: Count
    dim: Count
    layers: Count
    vocabulary: Count
    context_length: Count
    compute_dtype: str
    notes: tuple[str, ...] = ()


class Task(_Part):
    """The list of pairs that the prompt was asked to hold."""

    name: str
    pairs: Count
    # Tokens of the one text that is to be written; None for a list.
    text_tokens: Annotated[int, Field(ge=1, strict=True)] | None = None
    hash: str
    # Digits, not int: answer sets of long random answers pass Python's limit on int text.
    answer_set_size: Annotated[str, Field(pattern=r"^[0-9]+$")]
    answer_set: str
    # Whether the answers were drawn at random from that set; None where nobody said.
    answers_random: bool | None = None
    order: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()


class Baseline(_Part):
    """How many of the same pairs are exact without a trained prompt."""

    name: str
    status: Literal["measured", "not measured"]
    # None where it was not measured: the budget was used up after `asked` of them.
    pairs: Count | None
    of: Count
    asked: Count
    shots: Count | None = None
    # Of a text, those that come out from the first one on; None for a list.
    tokens: Count | None = None
    context_tokens: Count | None = None
    note: str = ""


class Answer(_Part):
    """One pair and what the model, behind the saved prompt, decoded for its key."""

    key: str
    value: str
    decoded: str
    exact: bool
    unprompted: bool = False
    counted: bool = True
    fault: str = ""

    @property
    def verdict(self) -> Verdict:
        """Held, exact but not counted, or wrong."""
        if not self.exact:
            return Verdict.WRONG
        return Verdict.HELD if self.counted else Verdict.NOT_COUNTED


class Floor(_Part):
    """Pairs that a prompt on disk holds."""

    status: Literal["found", "not measured"]
    pairs: Count
    # Tokens of a text that are held, from the first on; None for a list.
    tokens: Count | None = None
    bits: Amount
    bits_per_prompt_token: Amount
    witness: str | None = None
    confirmed_by: str = ""
    also_answered_unprompted: Count = 0
    answers: tuple[Answer, ...] = ()

    @property
    def held(self) -> int:
        """What is held: tokens of a text, pairs of a list."""
        return self.pairs if self.tokens is None else self.tokens


class Ceiling(_Part):
    """What a theorem says of lists of random answers, but for a share of those lists.

    Lists of more than `pairs` answers cannot be answered in full by any prompt of this length;
    if `pool` is larger than `pairs`, lists of `pool` answers cannot have more than `pairs` of
    them right. It says nothing about the best of a longer list, and nothing about facts. None
    where the theorem gives no ceiling.
    """

    status: Literal["proved"]
    pairs: Count | None
    bits: Amount
    prompt_bits: Amount | None = None
    source: str
    statement: str
    assumptions: tuple[str, ...] = ()
    certificate: str | None = None
    # Without the share of lists let through there is no claim to print.
    share_log2: Annotated[float, Field(lt=0, allow_inf_nan=False)]
    # Length of the lists of which a prompt may choose what it holds; None: that of the task.
    pool: Count | None = None


class Attempt(_Part):
    """One size that the search tried: pairs, or tokens of a text."""

    pairs: Count = Field(validation_alias=_SIZE)
    held: Count
    outcome: str
    remedy: str = ""
    steps: Count
    seconds: Amount
    seed: int | None = None


class Control(_Part):
    """What training recovered of answers that a known prompt gives."""

    status: Literal["measured"]
    pairs: Count = Field(validation_alias=_SIZE)
    recovered: Count
    outcome: str
    finished: bool
    steps: Count
    seconds: Amount
    seed: int | None = None
    distinct_answers: Count
    list_distinct_answers: Count
    answer_entropy_bits: Amount
    answered_unprompted: Count
    token_norm: Amount
    conclusion: str


class NoControl(_Part):
    """Why no planted control was run where the list is not held."""

    status: Literal["not run"]
    reason: str
    conclusion: str


AnyControl = Annotated[Control | NoControl, Field(discriminator="status")]


class Bracket(_Part):
    """Floor and ceiling of one kind of prompt at one length."""

    state: Literal["found", "none_found", "not_searched"]
    kind: Literal["soft", "prefix"]
    stored_bits: Annotated[int, Field(ge=1, strict=True)]
    prompt_tokens: Annotated[int, Field(ge=1, strict=True)]
    floor: Floor
    ceiling: Ceiling
    # None where the search held the whole list, or none was asked for.
    control: AnyControl | None = None
    search: tuple[Attempt, ...] = ()
    complete: bool
    stopped_because: str = ""
    seconds: Amount

    @property
    def searched(self) -> bool:
        """Whether prompts of this length were searched for at all."""
        return self.state != "not_searched"


class Record(_Part):
    """One run of `promptlimits bracket`."""

    command: str
    created: str
    seconds: Amount
    budget_seconds: Amount | None
    budget_steps: Amount | None
    complete: bool
    go_on: str | None
    model: Model
    task: Task
    baselines: tuple[Baseline, ...] = ()
    brackets: Annotated[tuple[Bracket, ...], Field(min_length=1)]
    assumptions: tuple[str, ...] = ()
    versions: dict[str, Any] = {}
    seed: int
    warnings: tuple[str, ...] = ()


def parse_record(record: object) -> Record:
    """Read a bracket record and refuse one that contradicts itself."""
    fields = _require_schema(record)
    try:
        parsed = Record.model_validate(_with_digits(fields))
    except ValidationError as error:
        raise _unreadable(error) from None
    for bracket in parsed.brackets:
        _require_consistent(bracket, parsed.task)
    ordered = tuple(
        sorted(parsed.brackets, key=lambda each: (each.kind == "prefix", each.prompt_tokens))
    )
    return parsed.model_copy(update={"brackets": ordered})


def parse_control(fields: JsonValue) -> Control | NoControl | None:
    """Read the planted control of a bracket or a fit."""
    adapter: TypeAdapter[Control | NoControl | None] = TypeAdapter(AnyControl | None)
    try:
        return adapter.validate_python(fields)
    except ValidationError as error:
        raise _unreadable(error) from None


def _require_schema(record: object) -> JsonObject:
    if not isinstance(record, dict) or record.get("kind") != "bracket":
        got = record.get("kind") if isinstance(record, dict) else type(record).__name__
        raise UserError(
            "record",
            'be a JSON object of kind "bracket"',
            got=repr(got),
            remedy="give a file that `promptlimits bracket` wrote",
        )
    schema = record.get("schema")
    if isinstance(schema, bool) or schema != SCHEMA:
        newer = isinstance(schema, int) and schema > SCHEMA
        remedy = (
            "it was written by a newer version: upgrade promptlimits"
            if newer
            else "run its command again with this version"
        )
        raise UserError("record schema", f"be {SCHEMA}", got=repr(schema), remedy=remedy)
    return record


def _with_digits(fields: JsonObject) -> JsonObject:
    """The record with its exact answer set size as digits; JSON may give it as either."""
    task = fields.get("task")
    if not isinstance(task, dict):
        return fields
    size: JsonValue = task.get("answer_set_size")
    if isinstance(size, bool) or not isinstance(size, int):
        return fields
    return {**fields, "task": {**task, "answer_set_size": _digits(size)}}


def _digits(number: int) -> str:
    """Decimal digits of a whole number of any size (`str` refuses above 4,300 digits)."""
    chunks: list[str] = []
    while number >= 10**4000:
        number, low = divmod(number, 10**4000)
        chunks.append(f"{low:04000d}")
    return str(number) + "".join(reversed(chunks))


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
    floor, ceiling, length = bracket.floor, bracket.ceiling, bracket.prompt_tokens
    measured = floor.status == "found"
    if bool(floor.held) is not (bracket.state == "found") or measured is not bracket.searched:
        raise _contradiction(
            f"{floor.held} are called {floor.status} at prompt length {length}, and the search "
            f"{bracket.state}"
        )
    # Facts above the ceiling are facts that the model predicts: it is about random answers.
    if task.answers_random and ceiling.pairs is not None and floor.pairs > ceiling.pairs:
        raise RunFailed(
            f"the floor ({floor.pairs} pairs found) is above the ceiling "
            f"({ceiling.pairs} random pairs proved) at prompt length {length}",
            remedy="trust neither number and report this as a bug, with the record",
        )
    if floor.held and not floor.witness:
        unit = "pairs" if floor.tokens is None else "tokens"
        raise _contradiction(
            f"{floor.held} {unit} are called found at prompt length {length} without a witness"
        )
    # Of a text one answer is decoded: its longest beginning.
    said = floor.pairs if floor.tokens is None else min(floor.tokens, 1)
    held = sum(answer.verdict is Verdict.HELD for answer in floor.answers)
    if floor.answers and held != said:
        raise _contradiction(
            f"the floor at prompt length {length} says {said} pairs, its answers hold {held}"
        )
    control = bracket.control
    if isinstance(control, Control) and control.recovered > control.pairs:
        raise _contradiction(
            f"{control.recovered} of {control.pairs} planted pairs are recovered at prompt length "
            f"{length}"
        )
    if task.text_tokens is not None and not _counts_tokens(floor, task.text_tokens):
        raise _contradiction(
            f"{floor.pairs} texts of {task.text_tokens} tokens are held at prompt length {length}, "
            f"but {floor.tokens} tokens"
        )
    if floor.pairs > task.pairs:
        raise _contradiction(
            f"{floor.pairs} pairs are held at prompt length {length} of a list of {task.pairs}"
        )


def _counts_tokens(floor: Floor, of: int) -> bool:
    """Whether a text of so many tokens is called held where they all are, and only there."""
    return floor.tokens is not None and floor.tokens <= of and floor.pairs == (floor.tokens == of)


def _contradiction(what: str) -> RunFailed:
    return RunFailed(
        f"the record contradicts itself: {what}",
        remedy="trust neither number and report this as a bug, with the record",
    )
