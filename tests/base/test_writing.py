"""Cut off at any moment, a folder is the old one or the new one, whole."""

import os
from pathlib import Path

import pytest

from promptlimits.base.errors import RunFailed
from promptlimits.base.files import (
    recover,
    replace_file,
    standing,
    write_folder,
)

OLD = {"a": b"old a", "b": b"old b"}
NEW = {"a": b"new a", "b": b"new b"}


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
        (Path, "rmdir"),
    ]:
        monkeypatch.setattr(owner, name, mortal(getattr(owner, name)))
    return dead


@pytest.mark.parametrize("number", range(14))
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
            assert number >= 11, "every earlier call should have been cut off"
    left = {path.name for path in tmp_path.iterdir()}
    assert content(standing(directory)) in (OLD, NEW), "a reader finds it whole"
    assert {path.name for path in tmp_path.iterdir()} == left, "a reader changes nothing"
    recover(directory, OLD)
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
        if path.name.endswith("-draft"):
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


@pytest.mark.parametrize("role", ["draft", "old"])
def test_a_folder_that_another_hand_made_is_left_and_named(tmp_path, role):
    directory = tmp_path / "witness"
    write_folder(directory, OLD)
    theirs = tmp_path / f".witness.promptlimits-{role}"
    theirs.mkdir()
    (theirs / "thesis.tex").write_text("theirs")
    with pytest.raises(RunFailed, match=rf"promptlimits-{role} stands where.*move it elsewhere"):
        write_folder(directory, NEW)
    assert content(directory) == OLD
    assert content(theirs) == {"thesis.tex": b"theirs"}


def test_names_that_look_like_drafts_are_not_touched(tmp_path):
    directory = tmp_path / "witness"
    theirs = [tmp_path / name for name in (".witness.old", ".witness.draft", ".file.draft")]
    for folder in theirs:
        folder.mkdir()
        (folder / "thesis.tex").write_text("theirs")
    write_folder(directory, OLD)
    write_folder(directory, NEW)
    replace_file(tmp_path / "file", b"new")
    assert all(content(folder) == {"thesis.tex": b"theirs"} for folder in theirs)


def test_what_else_lay_in_a_folder_stays_in_it(tmp_path):
    directory = tmp_path / "witness"
    write_folder(directory, OLD)
    (directory / "notes.txt").write_bytes(b"mine")
    (directory / "figures").mkdir()
    write_folder(directory, NEW)
    assert (directory / "figures").is_dir()
    (directory / "figures").rmdir()
    assert content(directory) == NEW | {"notes.txt": b"mine"}
    assert list(tmp_path.iterdir()) == [directory]


def test_a_draft_that_is_a_link_is_not_written_through(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"theirs")
    (tmp_path / ".file.promptlimits-draft").symlink_to(theirs)
    replace_file(tmp_path / "file", b"new")
    assert content(tmp_path) == {"file": b"new", "theirs": b"theirs"}
