"""A witness is decoded again in a process that has run nothing else, and by replay.py alone."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import pytest
from tests.capacity.witness.witness_cases import wrong

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.capacity.witness import fresh_process
from promptlimits.capacity.witness.fresh_process import (
    FreshProcess,
    Verifier,
    confirm,
    verify_in_fresh_process,
)
from promptlimits.capacity.witness.verification import Verification
from promptlimits.capacity.witness.verify import serve
from promptlimits.nets.load import stock

# The tests above decode every family in this process; a process of its own costs ten seconds,
# so the two kinds of process share the families between them.


@pytest.mark.slow  # a process that imports torch, transformers and peft
@pytest.mark.parametrize(("family", "kind"), [("llama", "prefix"), ("gpt2", "soft")])
def test_a_fresh_process_confirms_the_same(cases, family, kind, tmp_path):
    case = cases(family, kind)
    directory = case.save(tmp_path / "w")
    (tmp_path / "json.py").write_text("raise SystemExit('a file of the user was imported')")
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        with closing(Verifier(model_path=str(case.model))) as verifier:
            found = confirm(Path("w"), verifier, on_progress=lambda *done: told.append(done))
    assert told[0] == (0, len(case.pairs))
    assert told[-1] == (len(case.pairs), len(case.pairs))
    assert found.model.name == case.model.name
    assert found.model.source == str(case.model)
    assert found.pairs_exact == len(case.pairs)
    assert found.answers == case.verify(directory).answers
    recorded = json.loads((directory / "witness.json").read_text())["verification"]
    assert recorded == found.to_json()
    assert [answer["counted"] for answer in recorded["answers"]] == [True] * len(case.pairs)


@pytest.mark.slow  # a process that imports torch, transformers and peft
def test_errors_of_a_fresh_process_are_those_of_this_one(witness, tmp_path):
    with pytest.raises(UserError, match=r"model must be .*nowhere.*which does not exist"):
        verify_in_fresh_process(witness, model_path=str(tmp_path / "nowhere"))


REPLAY_ALONE = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    assert not any(name.startswith("promptlimits") for name in sys.modules), "not stock"
"""


def replay(directory, model, cwd):
    command = [sys.executable, "-I", "-c", REPLAY_ALONE, directory / "replay.py", "--model", model]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.slow  # a process that imports torch, transformers and peft
@pytest.mark.parametrize(("family", "kind"), [("gemma3", "prefix"), ("gpt_neo", "soft")])
def test_replay_needs_stock_tools_only(cases, family, kind, tmp_path):
    case = cases(family, kind)
    directory = case.save(tmp_path / "w")
    moved = Path(shutil.copytree(directory, tmp_path / "elsewhere" / "w"))
    done = replay(moved, case.model, tmp_path)
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    assert first == "weights not checked; `promptlimits verify` does"
    assert lines[-1] == f"{len(case.pairs)} of {len(case.pairs)} pairs exact"
    assert all(line.startswith("exact ") for line in lines[:-1])


@pytest.mark.slow  # two processes that import torch, transformers and peft
def test_replay_fails_where_a_counted_pair_does_not_hold(case, tmp_path):
    first, *rest = case.pairs
    directory = case.save(tmp_path / "w", pairs=(wrong(case, first), *rest))
    done = replay(directory, case.model, tmp_path)
    assert done.returncode == 1
    assert f"{len(rest)} of {len(case.pairs)} pairs exact" in done.stdout
    with closing(Verifier(model_path=str(case.model))) as verifier:
        assert confirm(directory, verifier).pairs_exact == len(rest)
    recorded = json.loads((directory / "witness.json").read_text())["verification"]
    assert [answer["counted"] for answer in recorded["answers"]] == [False] + [True] * len(rest)
    assert replay(directory, case.model, tmp_path).returncode == 0, "nobody claims the wrong one"


@pytest.fixture
def speaking(monkeypatch, tmp_path):
    """Puts commands of a shell in the place of Python."""

    def put(*commands):
        path = tmp_path / "python"
        path.write_text("\n".join(["#!/bin/sh", *commands]))
        path.chmod(0o755)
        monkeypatch.setattr(fresh_process.sys, "executable", str(path))

    return put


def test_a_process_that_takes_too_long_is_given_up(witness):
    with pytest.raises(RunFailed, match=r"took more than 0\.01 seconds"):
        verify_in_fresh_process(witness, timeout_seconds=0.01)


@pytest.mark.parametrize(
    ("death", "words"),
    [
        ("echo out of memory >&2; exit 137", r"ended with code 137 .*\(out of memory\)"),
        ("kill -9 $$", r"was killed by signal 9 .*\(it said nothing\)"),
    ],
)
def test_a_process_that_dies_is_reported(witness, speaking, death, words):
    speaking("echo 'some warning'", death)
    with pytest.raises(RunFailed, match=words):
        verify_in_fresh_process(witness)


def test_progress_is_passed_on_while_the_process_runs(witness, speaking, tmp_path):
    """The process ends only when its first progress has been seen here."""
    seen = tmp_path / "seen"
    speaking(
        "echo a warning of a library >&2",
        """echo '{"progress": [1, 2]}'""",
        f"until [ -e {seen} ]; do sleep 0.02; done",
        """echo '{"progress": [2, 2]}'""",
        """echo '{"error": {"what": "it failed", "remedy": "mend it"}}'""",
    )
    told = []

    def tell(done, of):
        told.append((done, of))
        seen.touch()

    with pytest.raises(RunFailed, match="it failed; mend it"):
        verify_in_fresh_process(witness, on_progress=tell, timeout_seconds=30)
    assert told == [(1, 2), (2, 2)]


def test_an_interruption_ends_the_process(witness, speaking, tmp_path):
    pid = tmp_path / "pid"
    speaking(
        f"echo $$ >{pid}",
        """echo '{"progress": [1, 2]}'""",
        "exec sleep 600",
    )

    def interrupt(_done, _of):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify_in_fresh_process(witness, on_progress=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_process_that_says_very_much_is_heard_to_its_end(witness, speaking, tmp_path):
    """More than a pipe holds, on both streams at once, with the last words at the end."""
    speaking(
        "i=0; while [ $i -lt 3000 ]; do echo '01234567890123456789012345678901234567890' >&2",
        "echo '01234567890123456789012345678901234567890'; i=$((i + 1)); done",
        "echo the last words >&2; exit 1",
    )
    with pytest.raises(RunFailed, match=r"ended with code 1 .*\(the last words\)"):
        verify_in_fresh_process(witness, timeout_seconds=60)


def test_an_error_of_the_process_is_raised_here(witness, speaking, tmp_path):
    error = {"name": "model", "rule": "fit", "got": "none", "remedy": "find one"}
    speaking(f"echo '{json.dumps({'error': error})}'; exit 2")
    with pytest.raises(UserError, match=r"^model must fit, got none; find one$"):
        verify_in_fresh_process(witness)


def test_what_was_confirmed_is_recorded_and_a_wrong_pair_is_not_counted(
    case, tmp_path, monkeypatch
):
    """As `confirm` does it, with the decoding done in this process to save ten seconds."""
    first, *rest = case.pairs
    directory = case.save(tmp_path / "w", pairs=(wrong(case, first), *rest))
    found = case.verify(directory)
    monkeypatch.setattr(Verifier, "verify", lambda *_, **__: found)
    assert confirm(directory, Verifier()) is found
    recorded = json.loads((directory / "witness.json").read_text())["verification"]
    assert [answer["counted"] for answer in recorded["answers"]] == [False] + [True] * len(rest)
    assert (recorded["pairs_exact"], recorded["of"]) == (len(rest), len(case.pairs))
    assert recorded == found.to_json()


def test_the_process_writes_a_line_for_each_request_and_loads_one_model_once(
    each_kind, tmp_path, capsys, monkeypatch
):
    """Each witness is saved only when the one before it is verified; the last is none."""
    case, place = each_kind, {"model_path": str(each_kind.model), "device": "cpu"}
    first, *rest = case.pairs
    witnesses = {
        "all": case.pairs,
        "wrong": (wrong(case, first), *rest),
        "turned": case.pairs[::-1],
    }

    def requests():
        for name, pairs in witnesses.items():
            yield json.dumps({**place, "directory": str(case.save(tmp_path / name, pairs=pairs))})
        yield json.dumps({**place, "directory": str(tmp_path / "not")})

    load = Mock(side_effect=stock.load_stock)
    monkeypatch.setattr(stock, "load_stock", load)
    serve(requests(), ahead=json.dumps({**place, "compute_dtype": "float32"}))
    told = map(json.loads, capsys.readouterr().out.splitlines())
    *found, last = [line for line in told if "progress" not in line]
    load.assert_called_once()
    for name, line in zip(witnesses, found, strict=True):
        alone = case.verify(tmp_path / name)
        assert Verification.from_json(line["verification"]).answers == alone.answers
        assert line["model"] == alone.model.to_json()
        assert alone.pairs_exact == len(case.pairs) - (name == "wrong")
    assert last["error"]["rule"] == "be a witness folder"


def test_what_fails_when_it_is_loaded_ahead_is_told_with_the_request(witness, capsys, tmp_path):
    nowhere = {"model_path": str(tmp_path / "nowhere"), "device": "cpu"}
    request = json.dumps({**nowhere, "directory": str(witness)})
    serve([request], ahead=json.dumps({**nowhere, "compute_dtype": "float32"}))
    assert "nowhere" in json.loads(capsys.readouterr().out)["error"]["got"]


def test_a_process_that_was_started_ahead_and_died_is_started_again(witness, speaking):
    error = {"what": "it failed", "remedy": "mend it"}
    speaking("exit 1")
    verifier = Verifier()
    verifier.start()
    verifier._process._process.wait()
    speaking("read request", f"echo '{json.dumps({'error': error})}'")
    with pytest.raises(RunFailed, match="it failed; mend it"):
        verifier.verify(witness)


def test_a_waiting_process_ends_with_the_one_that_started_it(tmp_path):
    """Killed, so that nothing of it can say goodbye; the other sees the end of its input."""
    pid = tmp_path / "pid"
    waits = (
        "import os, sys, pathlib\n"
        f"pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\n"
        "sys.stdin.read()"
    )
    (tmp_path / "waits.py").write_text(waits)
    starts = (
        f"import sys, time; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from promptlimits.capacity.witness.fresh_process import FreshProcess\n"
        "process = FreshProcess('waits')\n"
        "print('started', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", starts], stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline() == b"started\n"
        wait_for(lambda: pid.exists() and pid.read_text())
        parent.kill()
    wait_for(lambda: not lives(int(pid.read_text())))


def wait_for(what):
    give_up = time.monotonic() + 60
    while not what():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def lives(pid):
    """Whether a process runs: one that nobody waits for has ended all the same."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow  # a process that imports torch
def test_the_process_ends_where_its_input_does_whatever_it_does(witness):
    with closing(FreshProcess("promptlimits.capacity.witness.verify")) as process:
        process._process.stdin.close()
        assert process._process.wait(timeout=120) == 1
