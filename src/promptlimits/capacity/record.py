"""The bracket record: made, written, and checked against the files it speaks of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from promptlimits.base.errors import UserError
from promptlimits.base.files import read_regular_text
from promptlimits.base.typing import JsonObject, JsonValue
from promptlimits.base.writing import replace_file
from promptlimits.capacity.search.baselines import Baseline
from promptlimits.capacity.search.request import Request, budget_json
from promptlimits.capacity.store.provenance import provenance
from promptlimits.capacity.store.records import now
from promptlimits.capacity.task.encoded import EncodedTask
from promptlimits.capacity.witness.format import read_prompt, read_witness
from promptlimits.nets.files.folder import sha256_of
from promptlimits.nets.protocol import FrozenModel


def bracket_record(
    model: FrozenModel,
    task: EncodedTask,
    request: Request,
    *,
    folder: Path,
    baselines: Sequence[Baseline],
    brackets: Sequence[JsonObject],
    complete: bool,
    warnings: Sequence[str],
    seconds: float,
) -> JsonObject:
    """Put together what --json prints and the report is drawn from."""
    card = {**asdict(model.card), "path": _without_home(model.card.path)}
    shown: list[JsonValue] = [baseline.to_json() for baseline in baselines]
    return {
        "schema": 1,
        "kind": "bracket",
        "command": request.command,
        "out": _without_home(str(folder)),
        "created": now(),
        "seconds": seconds,
        **budget_json(request),
        "complete": complete,
        "go_on": None if complete else request.go_on(seconds),
        "model": {**card, "notes": list(card["notes"])},
        "task": {
            "name": task.name,
            "pairs": len(task.pairs),
            "text_tokens": task.text_tokens,
            "hash": task.hash,
            "answer_set_size": _digits(task.answer_set_size),
            "answer_set": task.answer_set_text,
            "answers_random": task.answers_random,
            "order": task.targets.own_order or request.order.in_words,
            "source": task.source,
            "notes": list(task.notes),
        },
        "baselines": shown,
        "brackets": list(brackets),
        "assumptions": [],
        "versions": provenance({"device": str(model.device)}),
        "seed": request.seed,
        "warnings": list(warnings),
    }


def _without_home(path: str) -> str:
    """A path as one can show it to others: the home directory as "~"."""
    home = Path.home()
    return f"~/{Path(path).relative_to(home)}" if Path(path).is_relative_to(home) else path


def _digits(number: int) -> str:
    """Decimal digits; Python refuses to print more than 4,300 of them."""
    from flint import fmpz

    return str(fmpz(number))


def write_record(folder: Path, record: JsonObject) -> None:
    """Write bracket.json, whole or not at all."""
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    replace_file(folder / "bracket.json", text.encode("utf-8", errors="backslashreplace"))


def is_whole(record: JsonObject, folder: Path) -> bool:
    """Whether the files of a stored record are there and are still those it speaks of.

    Another command in the same folder, or a hand, may have replaced them: then the record is
    made again from the runs, which is quick.
    """
    brackets = record["brackets"]
    # Where the folder has moved, the command that goes on is another one.
    if not isinstance(brackets, list) or record["out"] != _without_home(str(folder)):
        return False
    try:
        if json.loads(read_regular_text(folder / "bracket.json")) != record:
            return False
        return all(_stands(bracket, folder) for bracket in brackets)
    except (OSError, ValueError, LookupError, TypeError, UserError):
        return False


def _stands(bracket: Any, folder: Path) -> bool:
    """Whether a bracket's certificate and witness are on disk and are its own."""
    floor, ceiling = bracket["floor"], bracket["ceiling"]
    if sha256_of(folder / ceiling["certificate"]) != ceiling["certificate_sha256"]:
        return False
    if floor["witness"] is None:
        return True
    witness = read_witness(folder / floor["witness"])
    read_prompt(folder / floor["witness"], witness)
    claimed = [(one["key"], one["value"], one["exact"]) for one in floor["answers"]]
    answers = () if witness.verification is None else witness.verification.answers
    confirmed = [(answer.key, answer.value, answer.exact) for answer in answers]
    return witness.prompt_sha256 == floor["prompt_sha256"] and sorted(claimed) == sorted(confirmed)
