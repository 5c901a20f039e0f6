"""Cut off at any moment, a folder is the old one or the new one, whole."""

import os
from pathlib import Path

import pytest

from promptlimits.capacity.atomic_folder import recover, replace_file, write_folder
from promptlimits.errors import RunFailed

OLD = {"a": b"old a", "b": b"old b"}
NEW = {"a": b"new a", "c": b"new c"}


def content(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


class Killed(BaseException):
    """Stands for a process that ends at once: nothing after it runs."""


def kill_at(monkeypatch, number):
    """End at the n-th call that changes the disk; what a handler would clean up stays."""
    calls = iter(range(1_000_000))
    dead = []

    def mortal(function):
        def wrapper(*arguments, **options):
            if dead or next(calls) == number:
                dead.append(True)
                raise Killed
            return function(*arguments, **options)

        return wrapper

    for owner, name in [
        (Path, "mkdir"),
        (Path, "rename"),
        (Path, "replace"),
        (Path, "unlink"),
        (os, "fsync"),
        ("shutil", "rmtree"),
    ]:
        target = __import__(owner) if isinstance(owner, str) else owner
        monkeypatch.setattr(target, name, mortal(getattr(target, name)))
    return dead


@pytest.mark.parametrize("number", range(12))
def test_killed_at_every_point_of_a_replacement(tmp_path, number):
    directory = tmp_path / "witness"
    write_folder(directory, OLD)
    with pytest.MonkeyPatch.context() as patch:
        dead = kill_at(patch, number)
        try:
            write_folder(directory, NEW)
        except Killed:
            assert dead
        else:
            assert number >= 10, "every earlier call should have been cut off"
    recover(directory)
    assert content(directory) in (OLD, NEW)
    write_folder(directory, NEW)
    assert content(directory) == NEW
    assert list(tmp_path.iterdir()) == [directory], "nothing is left beside it"


@pytest.mark.parametrize("number", range(3))
def test_killed_at_every_point_of_a_file(tmp_path, number):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, number)
        try:
            replace_file(path, b"new")
        except Killed:
            assert path.read_bytes() == b"old"
        else:
            assert path.read_bytes() == b"new"


def full(descriptor):
    raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_the_old_folder_and_no_draft(tmp_path, monkeypatch):
    directory = tmp_path / "witness"
    write_folder(directory, OLD)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFailed, match=r"No space left on device.*what was there before"):
        write_folder(directory, NEW)
    assert content(directory) == OLD
    assert list(tmp_path.iterdir()) == [directory]


def test_a_full_disk_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFailed, match="No space left"):
        replace_file(path, b"new")
    assert content(tmp_path) == {"file": b"old"}


def test_a_rename_that_fails_puts_the_old_folder_back_at_once(tmp_path, monkeypatch):
    directory = tmp_path / "witness"
    write_folder(directory, OLD)
    rename = Path.rename

    def refuse_drafts(path, target):
        if path.name.endswith(".draft"):
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_drafts)
    with pytest.raises(RunFailed, match="Input/output error"):
        write_folder(directory, NEW)
    assert content(directory) == OLD
    assert list(tmp_path.iterdir()) == [directory]


def test_a_reader_of_the_old_file_keeps_it(tmp_path):
    """The new content is another file under the same name: the old one is never written to."""
    path, held = tmp_path / "file", tmp_path / "held"
    path.write_bytes(b"old")
    held.hardlink_to(path)
    replace_file(path, b"new")
    assert (path.read_bytes(), held.read_bytes()) == (b"new", b"old")


def test_a_place_that_cannot_be_a_folder_is_named(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(RunFailed, match="out/witness could not be written"):
        write_folder(tmp_path / "out" / "witness", NEW)
