"""A GGUF header that claims more than its file can hold is refused at once."""

import os
import struct
import time

import gguf
import numpy as np
import pytest

from promptlimits.base.errors import UserError
from promptlimits.nets.files.gguf_header import weights_in_header
from promptlimits.nets.load.install import gguf_note

MUCH = 1 << 40


def start(*, tensors=0, fields=0, version=3):
    return b"GGUF" + struct.pack("<IQQ", version, tensors, fields)


def text(content):
    return struct.pack("<Q", len(content)) + content


def entries(kind, count):
    """A field that is a list."""
    return text(b"a") + struct.pack("<IIQ", 9, kind, count)


def tensor(*axes, begins=0):
    return text(b"t") + struct.pack(f"<I{len(axes)}QIQ", len(axes), *axes, 0, begins) + bytes(64)


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (start(tensors=MUCH), "1,099,511,627,776 tensors claimed"),
        (start(fields=MUCH), "1,099,511,627,776 fields claimed"),
        (start(fields=1) + struct.pack("<Q", MUCH), "1,099,511,627,776 characters claimed"),
        (start(fields=1) + entries(0, MUCH) + bytes(50), "1,099,511,627,776 entries claimed"),
        (start(fields=1) + entries(8, MUCH) + bytes(50), "1,099,511,627,776 entries claimed"),
        # As many as the file has bytes: each would be an object of its own.
        (start(fields=1) + entries(0, 6_000_000) + bytes(6_000_000), "6,000,000 entries claimed"),
        (start(fields=1) + entries(9, 1) + bytes(50), "a field of the unknown type 9"),
        (start(fields=1) + text(b"a") + struct.pack("<I", 77), "a field of the unknown type 77"),
        (start(fields=1) + entries(10, 3) + bytes(8), "a header that is cut off"),
        (start(tensors=1) + tensor(MUCH), "a tensor of 1,099,511,627,776 numbers"),
        (start(tensors=1) + tensor(1 << 32, 1 << 32), "a tensor of 18,446,744,073,709,551,616"),
        (start(tensors=1) + tensor(4, begins=MUCH), "begins behind the end of the file"),
        (start(tensors=1) + text(b"t") + struct.pack("<I", 1 << 31) + bytes(99), "axes claimed"),
        (start(version=1), "version 1 of GGUF"),
        (start()[:10], "a header that is cut off"),
    ],
)
def test_claims_are_compared_with_the_size_of_the_file(content, got, tmp_path):
    path = tmp_path / "it.gguf"
    path.write_bytes(content)
    began = time.monotonic()
    with pytest.raises(UserError, match=f"be a whole GGUF file, got ValueError: .*{got}"):
        gguf_note(path, name="model it.gguf")
    assert time.monotonic() - began < 5


def test_a_pipe_is_no_gguf_file(tmp_path):
    path = tmp_path / "it.gguf"
    os.mkfifo(path)
    with pytest.raises(UserError, match="be a GGUF file, got a pipe where a file should be"):
        gguf_note(path, name="model it.gguf")


def test_a_sparse_file_of_a_terabyte_does_not_fit_into_memory(tmp_path):
    path = tmp_path / "it.gguf"
    path.write_bytes(start(tensors=1) + tensor(1 << 42))
    os.truncate(path, 1 << 42)
    with pytest.raises(UserError, match="of memory here, got 17592 GB of weights in float32"):
        gguf_note(path, name="model it.gguf")


def test_the_numbers_of_an_honest_file_are_counted(tmp_path):
    path = tmp_path / "it.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.description", "one of each kind of field")
    writer.add_array("words", ["a", "bc", ""])
    writer.add_array("numbers", [1.5, 2.5])
    writer.add_bool("flag", True)
    writer.add_float64("wide", 0.1)
    writer.add_tensor("one", np.ones((3, 5), np.float32))
    writer.add_tensor("two", np.ones(7, np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert weights_in_header(path) == 22
