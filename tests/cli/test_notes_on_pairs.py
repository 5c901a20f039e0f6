"""What is odd about a list is said on the console and kept in the record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]

LIST = (
    '{"question": "Cura\xe7ao", "answer": ["Willemstad", "Punda"], "id": 1}\n'
    '{"question": "Curac\u0327ao", "answer": "Bonaire", "id": 2}\n'
    '{"question": "Antarctica", "answer": null, "id": 3}\n'
)
NOTES = (
    "1 entry without an answer left out, the first on line 3",
    "fields not used: 'id'; to ask with one of them: --template '{key}\\n{id}'",
    "keys that look like an earlier one, in another Unicode form",
)
# With it nothing is ever found: nothing is verified.
HOPELESS = ("--learning-rate", "1e-6", "--max-steps", "2", "--no-control", "--prompt-tokens", "1")


@pytest.fixture(autouse=True)
def _list(here: Path, model: Path) -> None:
    (here / "list.jsonl").write_text(LIST, encoding="utf-8")


@pytest.mark.slow  # loads and trains a model
@pytest.mark.parametrize("command", ["fit", "bracket"])
def test_notes_stand_on_the_console_and_in_the_record(command: str, call: Call, here: Path) -> None:
    ended = call(
        *(command, "--model", "tiny", "--pairs", "list.jsonl", "--columns", "question=answer"),
        *(*HOPELESS, "--out", "out"),
    )
    assert ended.code in (0, 1)
    record = json.loads((here / "out" / f"{command}.json").read_text(encoding="utf-8"))
    kept = record["notes"] if command == "fit" else record["task"]["notes"]
    said = [line for line in ended.err.splitlines() if line.startswith("note: ")]
    assert said == [f"note: {note}" for note in kept]
    for note in NOTES:
        assert any(line.startswith(note) for line in kept), kept
