"""What is in the cache is finished, whatever happened while it was built."""

from __future__ import annotations

import errno
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from promptlimits.base.errors import UserError
from promptlimits.nets.files.cache import build_once, built, cache_directory


def write(directory):
    (directory / "file").write_text("whole")


def must_not_run(_directory):
    pytest.fail("it was built already")


def test_the_variable_moves_the_cache(cache, monkeypatch):
    assert cache_directory() == cache
    monkeypatch.setenv("PROMPTLIMITS_CACHE", "~/elsewhere")
    assert cache_directory() == Path.home() / "elsewhere"
    monkeypatch.delenv("PROMPTLIMITS_CACHE")
    assert cache_directory().name == "promptlimits"


def test_it_is_built_once(cache):
    assert built("it") is None
    directory = build_once("it", write, megabytes=1)
    assert directory == cache / "models" / "it" == built("it")
    assert (directory / "file").read_text() == "whole"
    assert build_once("it", must_not_run, megabytes=1) == directory


def test_a_finished_build_appears_at_once():
    """By a rename: a copy would show half a model to another process."""
    built_in = []
    directory = build_once("it", lambda it: built_in.append(it.stat().st_ino), megabytes=1)
    assert built_in == [directory.stat().st_ino]


def test_a_build_that_fails_leaves_nothing(cache):
    def fail(directory):
        write(directory)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        build_once("it", fail, megabytes=1)
    assert built("it") is None
    assert [path.name for path in (cache / "models").iterdir() if path.is_dir()] == []


KILLED = """
import os, signal, sys
from promptlimits.nets.files.cache import build_once
def build(directory):
    (directory / "file").write_text("half")
    (directory / "rest").write_text("of a build")
    os.kill(os.getpid(), signal.SIGKILL)
build_once("it", build, megabytes=1)
"""


def test_what_a_killed_process_leaves_is_not_taken_for_a_model():
    done = subprocess.run([sys.executable, "-c", KILLED], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert built("it") is None
    directory = build_once("it", write, megabytes=1)
    assert [path.name for path in directory.iterdir()] == ["file"]
    assert [path.name for path in directory.parent.iterdir() if path.is_dir()] == ["it"]


SLOW = """
import sys, time
from promptlimits.nets.files.cache import build_once
def build(directory):
    print("built", flush=True)
    time.sleep(0.5)
build_once("it", build, megabytes=1, on_progress=print)
"""


def test_two_processes_build_it_once():
    first = subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "built\n"
    second = subprocess.run(
        [sys.executable, "-c", SLOW], capture_output=True, text=True, check=True, timeout=60
    )
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert second.stdout in ("", "waiting for another process that prepares it\n")


def test_a_full_disk_is_one_line():
    def fail(_directory):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="have room left, got No space left") as caught:
        build_once("it", fail, megabytes=1)
    assert "\n" not in str(caught.value)
    assert "PROMPTLIMITS_CACHE" in str(caught.value)
    assert built("it") is None


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_too_little_room_is_seen_beforehand(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(0, 0, 9_999_999))
    with pytest.raises(UserError, match="have 10 MB free, got 9 MB"):
        build_once("it", must_not_run, megabytes=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(0, 0, 10_000_000))
    build_once("it", write, megabytes=10)


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    monkeypatch.setenv("PROMPTLIMITS_CACHE", str(blocker))
    with pytest.raises(UserError, match="cache directory must be writable"):
        build_once("it", must_not_run, megabytes=1)
