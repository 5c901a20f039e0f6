"""Safetensors files, tensor by tensor, as exact float64 arrays.

float16, bfloat16, float32 and float64 all widen to float64 without rounding. Nothing is kept:
a tensor is read when it is asked for. Infinite numbers and NaNs are refused by name.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from promptlimits.base.errors import UserError
from promptlimits.base.files import open_regular, strict_json
from promptlimits.nets.files.folder import weight_files

_STORED: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_MOST_HEADER_BYTES: Final = 100_000_000
_CHUNK: Final = 1 << 21  # numbers


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where a tensor lies."""

    file: Path  # in which file
    dtype: str  # name of its numbers' format
    shape: tuple[int, ...]
    start: int  # byte at which it begins


class WeightReader:
    """The tensors of a checkpoint's directory by name; messages call the model `name`."""

    def __init__(self, directory: Path, *, name: str) -> None:
        self.name = name
        self.files = weight_files(directory)
        self._entries: dict[str, Entry] = {}
        for file in self.files:
            for key, entry in read_header(file, name=name):
                if key in self._entries:
                    raise _broken(name, file, f"tensor {key} twice")
                self._entries[key] = entry

    @property
    def keys(self) -> frozenset[str]:
        """Names of all tensors."""
        return frozenset(self._entries)

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self._entry(key).shape

    def read(self, key: str, *, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """A tensor as float64, exactly."""
        entry = self._entry(key)
        if entry.shape != shape:
            raise UserError(
                f"tensor {key} of {self.name}",
                f"have the shape {shape} that config.json gives it",
                got=entry.shape,
                remedy="use the config.json that belongs to these weights",
            )
        return self._numbers(key, entry, 0, math.prod(shape)).reshape(shape)

    def require_finite(self, key: str) -> None:
        """Refuse a tensor with a number that is not finite, without keeping it."""
        entry = self._entry(key)
        if entry.dtype not in _STORED:
            return
        size = math.prod(entry.shape)
        for start in range(0, size, _CHUNK):
            self._numbers(key, entry, start, min(_CHUNK, size - start))

    def _entry(self, key: str) -> Entry:
        entry = self._entries.get(key)
        if entry is None:
            raise UserError(
                self.name,
                f"hold the tensor {key}",
                got="weights without it",
                remedy="use a whole checkpoint of a model that config.json describes",
            )
        return entry

    def _numbers(self, key: str, entry: Entry, first: int, count: int) -> NDArray[np.float64]:
        if entry.dtype not in _STORED:
            raise UserError(
                f"tensor {key} of {self.name}",
                f"be stored as {', '.join(_STORED)}",
                got=entry.dtype,
                remedy="convert the model to float32 safetensors",
            )
        stored = np.dtype(_STORED[entry.dtype])
        raw = np.fromfile(
            entry.file, dtype=stored, count=count, offset=entry.start + first * stored.itemsize
        )
        if entry.dtype == "BF16":  # the upper half of a float32
            raw = (raw.astype("<u4") << 16).view("<f4")
        array: NDArray[np.float64] = raw.astype(np.float64)
        if not np.isfinite(array).all():
            bad = "NaN" if np.isnan(array).any() else "an infinite number"
            raise UserError(
                f"tensor {key} of {self.name}",
                "hold finite numbers",
                got=bad,
                remedy="no bound holds for such weights; get them again",
            )
        return array


def read_header(file: Path, *, name: str) -> Iterator[tuple[str, Entry]]:
    """Every tensor of a safetensors file, each checked to lie inside it; no tensor is read."""
    try:
        with open_regular(file) as stream:
            size = os.fstat(stream.fileno()).st_size
            prefix = stream.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
            if length > min(size - 8, _MOST_HEADER_BYTES):
                raise _broken(name, file, "a header that is cut off")
            text = stream.read(length)
    except OSError as error:
        raise _broken(name, file, error.strerror or str(error)) from error
    try:
        header = strict_json(text.decode("utf-8"))
        header.pop("__metadata__", None)
        entries = [(key, _entry(file, fields, 8 + length)) for key, fields in header.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _broken(name, file, "a header that is no safetensors header") from None
    reached = 8 + length
    for key, (entry, end) in sorted(entries, key=lambda item: (item[1][0].start, item[1][1])):
        if not entry.start <= end <= size:
            raise _broken(name, file, f"{size} bytes, cut off before the end of {key}")
        # As the format demands: no byte may be another tensor's as well, or nobody's.
        if entry.start != reached:
            raise _broken(name, file, f"{key} not right behind the tensor before it")
        width = np.dtype(_STORED[entry.dtype]).itemsize if entry.dtype in _STORED else None
        if width is not None and end - entry.start != width * math.prod(entry.shape):
            raise _broken(name, file, f"{key} with another number of bytes than its shape")
        reached = end
        yield key, entry
    if reached != size:
        raise _broken(name, file, f"{size - reached} bytes behind the last tensor")


def _entry(file: Path, fields: dict[str, Any], base: int) -> tuple[Entry, int]:
    start, end = (_size(offset) for offset in fields["data_offsets"])
    shape = tuple(_size(size) for size in fields["shape"])
    return Entry(file=file, dtype=str(fields["dtype"]), shape=shape, start=base + start), base + end


def _size(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("sizes are whole numbers of at least 0")
    return value


def _broken(name: str, file: Path, got: str) -> UserError:
    return UserError(
        name,
        "have whole safetensors files",
        got=f"{file.name}, truncated or corrupted ({got})",
        remedy="download it again",
    )
