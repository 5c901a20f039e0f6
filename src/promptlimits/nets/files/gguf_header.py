"""The header of a GGUF file, walked over before a library reads it.

A header says how many fields, tensors, characters and numbers follow. The reader of the `gguf`
package believes it: a list that claims 2^40 entries keeps it busy for days, and one of as many as
the file has bytes fills the memory. So every count is compared with what is left of the file first.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from gguf import GGUFReader, GGUFValueType
from gguf.gguf_reader import READER_SUPPORTED_VERSIONS

from promptlimits.base.files import open_regular

_WIDTHS: Final = {
    int(kind): np.dtype(stored).itemsize for kind, stored in GGUFReader.gguf_scalar_to_np.items()
}
"""Bytes of a value of each type of numbers."""
_MOST_ENTRIES: Final = 5_000_000
"""Of all lists together: the largest vocabularies take a million and a half."""
_MOST_FIELDS: Final = 100_000
_MOST_TENSORS: Final = 1_000_000
_MOST_AXES: Final = 8


def weights_in_header(path: Path) -> int:
    """Walk over a GGUF file's header, checking every count against the file's size."""
    with open_regular(path) as stream:
        return _Walk(stream, os.fstat(stream.fileno()).st_size).whole()


class _Walk:
    """One pass over a header."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size
        self._entries = 0

    def whole(self) -> int:
        """From the first byte of the file to the last of its table; the numbers of all tensors."""
        magic, version = self._read(4), self._number("I")
        if magic != b"GGUF" or version not in READER_SUPPORTED_VERSIONS:
            known = " and ".join(str(one) for one in READER_SUPPORTED_VERSIONS)
            raise ValueError(f"version {version} of GGUF, where {known} are known")
        tensors = self._count("tensors", "Q", most=_MOST_TENSORS)
        fields = self._count("fields", "Q", most=_MOST_FIELDS)
        for _ in range(fields):
            self._string()
            self._value(self._number("I"))
        return sum(self._tensor() for _ in range(tensors))

    def _tensor(self) -> int:
        """The numbers of the next tensor."""
        self._string()
        axes = self._count("axes", "I", most=_MOST_AXES)
        numbers = math.prod(self._number("Q") for _ in range(axes))
        if numbers > 8 * self._size:  # a weight takes at least a bit, in any format
            raise ValueError(f"a tensor of {numbers:,} numbers in a file of {self._size:,} bytes")
        self._number("I")
        if self._number("Q") > self._size:
            raise ValueError("a tensor that begins behind the end of the file")
        return numbers

    def _value(self, kind: int, *, nested: bool = False) -> None:
        if kind == GGUFValueType.STRING:
            self._string()
        elif kind == GGUFValueType.ARRAY and not nested:
            self._list()
        elif kind in _WIDTHS:
            self._skip(_WIDTHS[kind])
        else:
            raise ValueError(f"a field of the unknown type {kind}")

    def _list(self) -> None:
        kind = self._number("I")
        count = self._count("entries", "Q", most=_MOST_ENTRIES - self._entries)
        self._entries += count
        if kind in _WIDTHS:
            self._skip(count * _WIDTHS[kind])
            return
        for _ in range(count):
            self._value(kind, nested=True)

    def _string(self) -> None:
        self._skip(self._count("characters", "Q", most=self._size))

    def _count(self, what: str, form: str, *, most: int) -> int:
        count = self._number(form)
        if count > min(most, self._left()):
            raise ValueError(f"{count:,} {what} claimed")
        return count

    def _number(self, form: str) -> int:
        number: int
        (number,) = struct.unpack(f"<{form}", self._read(struct.calcsize(form)))
        return number

    def _skip(self, count: int) -> None:
        if count > self._left():
            raise ValueError("a header that is cut off")
        self._stream.seek(count, os.SEEK_CUR)

    def _read(self, count: int) -> bytes:
        content = self._stream.read(count)
        if len(content) < count:
            raise ValueError("a header that is cut off")
        return content

    def _left(self) -> int:
        return self._size - self._stream.tell()
