"""Only plain files are read; cut off at any moment, a folder is the old or the new one, whole."""

import os
import socket
from pathlib import Path

import pytest

from promptlimits.base.errors import RunFailed
from promptlimits.base.files import (
    UnfitFile,
    open_regular,
    read_regular,
    read_regular_text,
    recover,
    replace_file,
    require_regular,
    standing,
    strict_json,
    write_folder,
)

READERS = [require_regular, open_regular, read_regular]


def pipe(path):
    os.mkfifo(path)
    return path


def device(path):
    path.symlink_to("/dev/zero")
    return path


def directory(path):
    path.mkdir()
    return path


def descriptors():
    return len([*Path("/proc/self/fd").iterdir()])


def listening(path):
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(path))
    return path


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (pipe, "a pipe"),
        (device, "a device"),
        (directory, "a directory"),
        (listening, "a socket"),
    ],
)
def test_only_a_regular_file_is_opened(reader, make, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    with pytest.raises(UnfitFile) as raised:
        reader(make(Path("config.json")))
    assert raised.value.strerror == f"{said} where a file should be"


def test_a_pipe_with_a_writer_is_refused_too(tmp_path):
    path = pipe(tmp_path / "config.json")
    held = os.open(path, os.O_RDWR)
    try:
        os.write(held, b"{}")
        with pytest.raises(UnfitFile, match="a pipe"):
            read_regular(path)
    finally:
        os.close(held)


@pytest.mark.parametrize("reader", READERS)
def test_a_sparse_file_is_not_read(reader, tmp_path):
    path = tmp_path / "config.json"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(UnfitFile, match="1,099,511,627,776 bytes, where at most 10 are read"):
        reader(path, at_most=10)


def test_what_grows_is_read_no_further_than_allowed():
    # Its size is 0, and it has more than that in it.
    with pytest.raises(UnfitFile, match="at most 5 are read"):
        read_regular(Path("/proc/self/status"), at_most=5)


def test_a_file_is_read_through_a_link(tmp_path):
    (tmp_path / "blob").write_bytes("né\r\n".encode())
    link = tmp_path / "config.json"
    link.symlink_to("blob")
    assert require_regular(link) == 5
    assert read_regular_text(link, at_most=5) == "né\r\n"
    with open_regular(link) as stream:
        assert stream.read() == "né\r\n".encode()


def test_a_file_swapped_for_a_pipe_behind_the_first_look_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    path.write_bytes(b"{}")
    opened = os.open

    def swapped(name, flags):
        path.unlink()
        os.mkfifo(path)
        return opened(name, flags)

    monkeypatch.setattr(os, "open", swapped)
    before = descriptors()
    with pytest.raises(UnfitFile, match="a pipe"):
        open_regular(path)
    assert descriptors() == before


@pytest.mark.parametrize("reader", READERS)
def test_a_missing_file_is_as_always(reader, tmp_path):
    with pytest.raises(FileNotFoundError):
        reader(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the field 'c' is given twice"),
        ("[NaN]", "NaN is no number"),
        ("-Infinity", "-Infinity is no number"),
        ("{", "Expecting"),
    ],
)
def test_json_of_one_meaning(text, words):
    with pytest.raises(ValueError, match=words):
        strict_json(text)
    assert strict_json('{"a": [1, 0.5]}') == {"a": [1, 0.5]}
    assert strict_json("[1, 0.5]", floats_as_text=True) == [1, "0.5"]


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
