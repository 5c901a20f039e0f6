import os
import socket
from pathlib import Path

import pytest

from promptlimits.base.files import (
    UnfitFile,
    open_regular,
    read_regular,
    read_regular_text,
    require_regular,
    strict_json,
)

READERS = [require_regular, open_regular, read_regular]


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def device(path: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


def directory(path: Path) -> Path:
    path.mkdir()
    return path


def descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def listening(path: Path) -> Path:
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
def test_json_of_one_meaning(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        strict_json(text)
    assert strict_json('{"a": [1, 0.5]}') == {"a": [1, 0.5]}
    assert strict_json("[1, 0.5]", floats_as_text=True) == [1, "0.5"]
