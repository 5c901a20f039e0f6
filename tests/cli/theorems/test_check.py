"""`promptlimits check` through the entry point, on certificates whole, false and unreadable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from promptlimits.base.errors import RunFailed
from promptlimits.bounds.counting import Counting
from promptlimits.checking import dispatch

Call = Callable[..., Any]


@pytest.fixture
def record(here: Path) -> dict[str, Any]:
    """A certificate, and ./ceiling.json with it."""
    sizes = {"dim": 32, "prompt_tokens": 1, "values": "float32", "answers": 50, "pool": 400}
    return write(here, Counting.model_validate(sizes).certificate())


def write(here: Path, record: dict[str, Any]) -> dict[str, Any]:
    (here / "ceiling.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    return record


def test_a_true_certificate(call: Call, record: dict[str, Any]) -> None:
    ended = call("check", "ceiling.json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("ok: Of all lists of 400 answers, each drawn at random from a set ")
    assert "more than 261 answered right by any prompt of 1 token (float32)" in ended.out
    assert ended.out.count("\n") == 1


def test_json(call: Call, record: dict[str, Any]) -> None:
    ended = call("check", "ceiling.json", "--json")
    assert ended.code == 0
    told = json.loads(ended.out)
    assert told["ok"] is True
    assert told["from_weights"] is False
    assert told["statement"].startswith("Of all lists of 400 answers")
    assert told["assumptions"] == list(Counting.model_validate(record["inputs"]).rests_on())


def test_a_false_one(call: Call, record: dict[str, Any], here: Path) -> None:
    record["value"]["pairs"] = 262
    write(here, record)
    call("check", "ceiling.json").says(1, "does not hold: pairs is not 262", "do not rely on it")
    call("check", "ceiling.json", "--json").says(1, "does not hold")


def test_words_cannot_be_smuggled_in(call: Call, record: dict[str, Any], here: Path) -> None:
    """Formats are counts: there is no name that could be written in look-alike letters."""
    for values in ("float32", "fl\u043eat32", "fp32", "4278190080 values"):
        write(here, record | {"inputs": record["inputs"] | {"values": values}})
        call("check", "ceiling.json").says(2, "be a counting certificate as promptlimits writes it")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "cannot"),
        (b"\xff\xfe", "cannot"),
        (b"{", "cannot"),
        (b'{"schema": 1, "schema": 1}', "given twice"),
        (b'{"schema": NaN}', "NaN"),
        (b"[" * 100_000, "cannot"),
        (b"[1]", "be a certificate"),
        (b'{"schema": 1, "kind": "counting"}', "be a counting certificate"),
        (b'{"schema": 2}', "be a certificate"),
    ],
)
def test_what_is_no_certificate(call: Call, here: Path, content: bytes, word: str) -> None:
    (here / "ceiling.json").write_bytes(content)
    call("check", "ceiling.json").says(2, word)


def test_no_file(call: Call, here: Path) -> None:
    call("check", "missing.json").says(2, "missing.json", "No such file")
    call("check", ".").says(2, "a directory where a file should be")


def test_a_pipe_is_no_certificate(call: Call, here: Path) -> None:
    os.mkfifo(here / "ceiling.json")
    call("check", "ceiling.json").says(2, "ceiling.json", "a pipe where a file should be")


def test_an_enormous_file_is_no_certificate(call: Call, here: Path) -> None:
    (here / "ceiling.json").touch()
    os.truncate(here / "ceiling.json", 1 << 40)
    call("check", "ceiling.json").says(2, "1,099,511,627,776 bytes")


@pytest.fixture
def about_a_model(here: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path | None]:
    """./ceiling.json of a kind whose checker reads weights; which ones it was given."""
    given: list[Path | None] = []

    def checker(record: Any, *, weights: Path | None, on_progress: Callable[[str], None]) -> str:
        given.append(weights)
        if weights is not None:
            on_progress("layer 1 of 1")
            if not weights.is_dir():
                raise RunFailed("the norms are not those of the weights", remedy="look again")
        return "the model holds little"

    module = ModuleType("checker")
    module.check = checker  # type: ignore[attr-defined]
    monkeypatch.setattr(dispatch, "import_module", lambda name: module)
    bound = {"assumptions": [{"text": "The sky is high.", "holds": None}], "factors": []}
    write(here, {"kind": "model_ceiling", "inputs": {}, "bound": bound})
    return given


def test_norms_are_taken_from_the_certificate(call: Call, about_a_model: list[Path | None]) -> None:
    ended = call("check", "ceiling.json")
    assert (ended.code, ended.err) == (4, "")
    assert ended.out == (
        "not checked against a model: the model holds little; what it states of the weights is "
        "taken from the certificate, not checked\n"
    )
    assert about_a_model == [None]


def test_norms_are_proved_again_from_weights(
    call: Call, about_a_model: list[Path | None], here: Path
) -> None:
    (here / "weights").mkdir()
    ended = call("check", "ceiling.json", "--model", "weights")
    assert ended.code == 0
    assert ended.out.endswith("what it states of the weights was proved again from them\n")
    assert ended.err == "... layer 1 of 1\n"
    told = call("check", "ceiling.json", "--model", "weights", "--json", "--quiet")
    assert (told.code, told.err) == (0, "")
    record = json.loads(told.out)
    assert record["from_weights"] is True
    assert record["assumptions"] == ["The sky is high."]
    assert about_a_model == [here / "weights"] * 2


def test_weights_that_do_not_fit(call: Call, about_a_model: list[Path | None], here: Path) -> None:
    (here / "weights.npz").touch()
    call("check", "ceiling.json", "--model", "weights.npz", "--quiet").says(1, "not those")


def test_no_such_model(call: Call, about_a_model: list[Path | None]) -> None:
    call("check", "ceiling.json", "--model", "missing").says(2, "--model must be", "missing")
    assert not about_a_model


def test_a_kind_that_rests_on_no_weights(call: Call, record: dict[str, Any]) -> None:
    call("check", "ceiling.json", "--model", ".").says(2, "be about a model", "leave the model out")


def test_an_unknown_kind(call: Call, record: dict[str, Any], here: Path) -> None:
    write(here, record | {"kind": "covering"})
    call("check", "ceiling.json").says(2, "its kind is none of counting, ")


def test_it_needs_no_torch(record: dict[str, Any]) -> None:
    code = (
        "import sys\n"
        "from promptlimits.cli.main import main\n"
        "sys.argv = ['promptlimits', 'check', 'ceiling.json']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as ending:\n"
        "    assert not ending.code\n"
        "loaded = {'torch', 'numpy', 'transformers'} & set(sys.modules)\n"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
