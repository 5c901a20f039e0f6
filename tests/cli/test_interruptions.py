"""What comes from outside: a full disk, Ctrl-C, kill -9, a reader that leaves, warnings."""

import errno
import logging
import os
import signal
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from promptlimits.base.errors import PromptLimitsWarning, UserError
from promptlimits.capacity.store import connection
from promptlimits.capacity.store.sqlite import Store

Call = Callable[..., Any]

# A learning rate with which nothing is ever found: runs have known lengths, nothing is verified.
BRACKET = (
    *("bracket", "--model", "tiny", "--pairs", "pairs.csv", "--out", "out"),
    # A control is one run more, with as many steps as it happens to need.
    *("--learning-rate", "1e-6", "--max-steps", "12", "--quiet", "--no-control"),
)
RUNS = 4  # 4 and 2 pairs from one start, 1 pair from two


def runs(folder):
    with Store.open(folder / "store.sqlite", read_only=True) as store:
        return store.runs()


def finished(folder):
    return [(run.id, run.updated, str(run.outcome)) for run in runs(folder) if run.finished]


def steps(folder):
    """Steps of the one run of a store, as far as it got; none while there is no store."""
    try:
        with Store.open(folder / "store.sqlite", read_only=True) as store:
            found = store.runs()
            return [int(str(row["step"])) for row in store.curve(found[0].id)] if found else []
    except UserError:
        return []


# --------------------------------------------------------------------------- a full disk


@pytest.mark.usefixtures("model")
def test_a_disk_that_fills_up_while_training_costs_no_finished_run(call, here, monkeypatch):
    open_durably = connection._make_durable

    def open_on_a_small_disk(opened):
        open_durably(opened)
        # SQLite says "database or disk is full" beyond so many pages, as it does on a disk.
        (pages,) = opened.execute("PRAGMA page_count").fetchone()
        opened.execute(f"PRAGMA max_page_count = {pages + 5}")

    with monkeypatch.context() as small:
        small.setattr(connection, "_make_durable", open_on_a_small_disk)
        call(*BRACKET).says(1, "disk is full", "out/store.sqlite")
    kept = finished(here / "out")
    assert 1 <= len(kept) < RUNS
    assert call(*BRACKET).code == 0
    assert finished(here / "out")[: len(kept)] == kept, "a finished run was done again"
    assert len(finished(here / "out")) == RUNS


@pytest.mark.parametrize("name", ["bracket.json", "ceiling-1-tokens.json", "report.html"])
@pytest.mark.usefixtures("model")
def test_a_disk_too_full_for_a_result_costs_no_run(name, call, here, monkeypatch):
    replace = Path.replace

    def full(path, target):
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        return replace(path, target)

    with monkeypatch.context() as small:
        small.setattr(Path, "replace", full)
        call(*BRACKET).says(1, name, "space")
    kept = finished(here / "out")
    assert len(kept) == RUNS
    assert not [path for path in (here / "out").iterdir() if path.name.startswith(".")]
    assert call(*BRACKET).code == 0
    assert finished(here / "out") == kept


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_output_that_cannot_be_written_is_one_line(script):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [script, "models"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "promptlimits: the disk is full; free some space and run the same command again"
    ]


# ------------------------------------------------------------------------- interruptions


@pytest.mark.parametrize("step", [1, 12, 13, 40])
@pytest.mark.usefixtures("model")
def test_ctrl_c_at_any_step_is_one_line_and_the_same_command_goes_on(step, call, here, monkeypatch):
    from promptlimits.cli.live import LiveListener

    left = iter(range(step - 1))

    def press(*_arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt

    with monkeypatch.context() as pressing:
        pressing.setattr(LiveListener, "step", press)
        call(*BRACKET).says(130, "interrupted", "goes on from here")
    assert sum(run.steps for run in runs(here / "out")) == step
    assert call(*BRACKET).code == 0
    assert [run.steps for run in runs(here / "out")] == [12] * RUNS


# Of one pair, whose first run is not cut short for another working set.
ENDLESS = (
    *(*BRACKET, "--first-size", "1"),
    *("--max-steps", "1000000", "--patience", "1000000", "--budget", "600"),
)


@pytest.fixture
def start(script, here):
    """Start a command that trains without end, and wait until it has done further steps."""
    started = []

    def start_it():
        before = len(steps(here / "out"))
        process = subprocess.Popen(
            [script, *ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        give_up = time.monotonic() + 120
        while len(steps(here / "out")) < before + 5:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < give_up, "it does not train"
            time.sleep(0.05)
        return process

    yield start_it
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow  # starts Python with torch three times
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.usefixtures("model")
def test_a_killed_and_an_interrupted_command_go_on_where_they_stopped(start, here):
    process = start()
    process.send_signal(signal.SIGKILL)
    assert process.communicate() == ("", "")
    killed = len(steps(here / "out"))
    for _ in range(2):
        process = start()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (130, "")
        assert err == (
            "promptlimits: interrupted; nothing finished is lost: the same command goes on "
            "from here\n"
        )
    assert len(runs(here / "out")) == 1
    seen = steps(here / "out")
    assert len(seen) >= killed + 10
    assert seen == list(range(1, len(seen) + 1)), "a step is missing, or was done twice"


CLOSED = {"stdin": "<&-", "stdout": ">&-", "stderr": "2>&-", "all": "<&- >&- 2>&-"}


@pytest.mark.skipif(os.name == "nt", reason="redirections of POSIX shells")
@pytest.mark.parametrize("closed", CLOSED)
@pytest.mark.parametrize(
    ("arguments", "code"), [("models", 0), ("--help", 0), ("models get nowhere", 2)]
)
def test_a_closed_stream_changes_nothing_else(closed, arguments, code, script):
    done = subprocess.run(
        ["sh", "-c", f'"$0" {arguments} {CLOSED[closed]}', script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert bool(done.stdout) == (code == 0 and closed in {"stdin", "stderr"})
    assert len(done.stderr.splitlines()) == (code == 2 and closed in {"stdin", "stdout"})


@pytest.mark.slow  # starts Python with torch
@pytest.mark.skipif(os.name == "nt", reason="redirections of POSIX shells")
@pytest.mark.usefixtures("model")
def test_training_with_every_stream_closed_writes_its_results(script, here):
    done = subprocess.run(
        ["sh", "-c", '"$0" "$@" <&- >&- 2>&-', script, *BRACKET[:-2], "--no-control"],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (here / "out/bracket.json").is_file()
    assert (here / "out/store.sqlite").read_bytes().startswith(b"SQLite format 3")
    assert len(runs(here / "out")) == RUNS


def test_a_reader_that_leaves_is_no_error(script):
    for arguments in (["models"], ["--help"], ["models", "--json"]):
        process = subprocess.Popen(
            [script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        process.stdout.close()
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (1, ""), arguments


# --------------------------------------------------------- warnings, memory, encodings, bugs


def test_our_own_warnings_are_one_line_and_others_are_hidden(call, monkeypatch):
    def find():
        warnings.warn("somebody else's\nproblem", UserWarning, stacklevel=1)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        for _ in range(2):
            warnings.warn("this model\nis slower", PromptLimitsWarning, stacklevel=1)
        yield from ()

    monkeypatch.setattr("promptlimits.cli.product.models._findings", find)
    before = (warnings.showwarning, list(warnings.filters))
    ended = call("doctor")
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == 2 * "promptlimits: note: this model is slower\n"
    assert (warnings.showwarning, list(warnings.filters)) == before


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 9 GiB"),
    ],
    ids=str,
)
def test_memory_that_runs_out_is_one_line(error, call, monkeypatch):
    def find():
        raise error
        yield

    monkeypatch.setattr("promptlimits.cli.product.models._findings", find)
    call("doctor").says(1, "memory", "smaller model")


def test_a_mistake_of_the_program_is_one_line_that_says_so(call, monkeypatch):
    def find():
        raise KeyError("two\nand two")
        yield

    monkeypatch.setattr("promptlimits.cli.product.models._findings", find)
    place = "cli/product/models.py:"
    call("doctor").says(70, "a mistake of promptlimits", "KeyError", place, "PROMPTLIMITS_DEBUG=1")
    monkeypatch.setenv("PROMPTLIMITS_DEBUG", "1")
    ended = call("doctor")
    assert ended.code == 70
    assert ended.err.startswith("Traceback")


def test_logs_of_libraries_are_hidden(call, monkeypatch):
    def find():
        logging.getLogger("somebody.else").error("their problem")
        yield from ()

    monkeypatch.setattr("promptlimits.cli.product.models._findings", find)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # those of pytest
    before = logging.lastResort
    ended = call("doctor")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert logging.lastResort is before


def test_a_traceback_is_shown_on_demand(call, monkeypatch):
    monkeypatch.setenv("PROMPTLIMITS_DEBUG", "1")
    ended = call("bracket", "--starts", "0")
    assert ended.code == 2
    assert "Traceback" in ended.err
    assert ended.err.splitlines()[-1].startswith("promptlimits: --starts must")


@pytest.mark.usefixtures("model")
def test_a_terminal_without_the_characters_gets_escapes(call, spawn, here):
    (here / "pairs.csv").write_text("key,value\nKolumbia,Bogotá\nLibya,Ṭarābulus\n")
    assert call(*BRACKET).code == 0
    ended = spawn("report", "out", PYTHONIOENCODING="ascii")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.isascii()
    ended = spawn("bracket", "--pairs", "Bogotá.csv", PYTHONIOENCODING="ascii")
    ended.says(2, r"Bogot\xe1.csv")
