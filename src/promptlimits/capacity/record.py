"""The bracket record: put together, written, and checked against the files it speaks of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pydantic import ValidationError

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.base.files import JsonObject, read_regular_text, write_json
from promptlimits.capacity.search.request import Request, finite
from promptlimits.capacity.store.provenance import provenance
from promptlimits.capacity.store.records import now
from promptlimits.capacity.task.encoded import EncodedTask
from promptlimits.capacity.witness.format import read_prompt, read_witness
from promptlimits.nets.files.folder import sha256_of
from promptlimits.nets.protocol import FrozenModel
from promptlimits.record.parts import Baseline, Bracket, Model, Seconds, Task
from promptlimits.record.record import Record


def bracket_record(
    model: FrozenModel,
    task: EncodedTask,
    request: Request,
    *,
    folder: Path,
    baselines: Sequence[Baseline],
    brackets: Sequence[Bracket],
    warnings: Sequence[str],
    seconds: Seconds,
) -> Record:
    """Put together what --json prints and the report is drawn from."""
    complete = all(one.complete for one in brackets) and all(one.measured for one in baselines)
    steps, total = finite(request.budget_steps), sum(seconds.model_dump().values())
    return Record(
        command=request.command,
        out=_without_home(str(folder)),
        created=now(),
        seconds=total,
        seconds_by_stage=seconds,
        budget_seconds=finite(request.budget_seconds),
        budget_steps=None if steps is None else int(steps),
        complete=complete,
        go_on=None if complete else request.go_on(total),
        model=Model(**asdict(replace(model.card, path=_without_home(model.card.path)))),
        task=Task(
            name=task.name,
            pairs=len(task.pairs),
            text_tokens=task.text_tokens,
            hash=task.hash,
            answer_set_size=_digits(task.answer_set_size),
            answer_set=task.answer_set_text,
            answers_random=task.answers_random,
            order=task.targets.own_order or request.order.in_words,
            source=task.source,
            notes=tuple(task.notes),
        ),
        baselines=tuple(baselines),
        brackets=tuple(brackets),
        versions=provenance(
            {
                "device": str(model.device),
                "search_dtype": request.search_dtype(model),
            }
        ),
        seed=request.seed,
        warnings=tuple(warnings),
    )


def _without_home(path: str) -> str:
    """A path as one can show it to others: the home directory as "~"."""
    home = Path.home()
    return f"~/{Path(path).relative_to(home)}" if Path(path).is_relative_to(home) else path


def _digits(number: int) -> str:
    """Decimal digits; Python refuses to print more than 4,300 of them."""
    from flint import fmpz

    return str(fmpz(number))


def write_record(folder: Path, record: Record) -> None:
    """Write bracket.json, whole or not at all."""
    write_json(folder / "bracket.json", record.to_json())


def stored_record(known: JsonObject | None, folder: Path) -> Record | None:
    """The record that an earlier call left in the store, if its files stand; else None."""
    try:
        record = None if known is None else Record.model_validate(known)
    except (ValidationError, RunFailed):
        # Made by another version: it is made again from the runs, which is quick.
        return None
    return record if record is not None and is_whole(record, folder) else None


def is_whole(record: Record, folder: Path) -> bool:
    """Whether the files of a record are there and are still those it speaks of.

    Another command in the same folder, or a hand, may have replaced them: then the record is
    made again from the runs, which is quick.
    """
    # Where the folder has moved, the command that goes on is another one.
    if record.out != _without_home(str(folder)):
        return False
    try:
        if json.loads(read_regular_text(folder / "bracket.json")) != record.to_json():
            return False
        return all(_stands(bracket, folder) for bracket in record.brackets)
    except (OSError, ValueError, LookupError, UserError):
        return False


def _stands(bracket: Bracket, folder: Path) -> bool:
    """Whether a bracket's certificate and witness are on disk and are its own."""
    floor, ceiling = bracket.floor, bracket.ceiling
    if sha256_of(folder / ceiling.certificate) != ceiling.certificate_sha256:
        return False
    if floor.witness is None:
        return True
    witness = read_witness(folder / floor.witness)
    read_prompt(folder / floor.witness, witness)
    claimed = [(one.key, one.value, one.exact) for one in floor.answers]
    answers = () if witness.verification is None else witness.verification.answers
    confirmed = [(answer.key, answer.value, answer.exact) for answer in answers]
    return witness.prompt_sha256 == floor.prompt_sha256 and sorted(claimed) == sorted(confirmed)
