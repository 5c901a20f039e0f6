"""Safetensors as the checker reads them: every byte of a file belongs to one tensor.

Stock readers refuse a header that leaves gaps, overlaps or names a tensor twice; so does this
one, lest a file hold numbers that only one of the two sees.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from promptlimits.base.errors import UserError
from promptlimits.base.files import open_regular, read_regular_text

Array = NDArray[np.float64]
_TYPES: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_WIDTHS: Final = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL"), 1),
}
_BF16_EXPONENT: Final = 0x7F80
_CHUNK: Final = 1 << 22  # numbers
_MOST_HEADER_BYTES: Final = 100_000_000


def unusable(rule: str, got: object) -> UserError:
    """The error for weights that a certificate cannot be checked against; raise it."""
    return UserError(
        "the weights", rule, got=got, remedy="give the model that the certificate is about"
    )


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a tensor lies."""

    file: Path
    kind: str
    shape: tuple[int, ...]
    start: int


class WeightFiles:
    """The tensors of a checkpoint's directory under the names that they are stored under.

    Args:
        directory: Holds model.safetensors, or shards and their index.

    Raises:
        UserError: A file is missing, cut off or no safetensors file.
    """

    def __init__(self, directory: Path) -> None:
        self._places: dict[str, _Place] = {}
        try:
            self.files = _files(directory)
            for file in self.files:
                for name, place in _open(file):
                    if name in self._places:
                        raise ValueError(f"the tensor {name} is there twice")
                    self._places[name] = place
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as bad:
            rule = "be the directory of a checkpoint with config.json and whole safetensors"
            raise unusable(rule, f"{directory} ({type(bad).__name__}: {bad})") from bad

    @property
    def names(self) -> Iterable[str]:
        """The names of all tensors."""
        return self._places.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape that a tensor is stored in."""
        return self._places[name].shape

    def sha256(self) -> str:
        """The hash of all files, one behind the other."""
        digest = hashlib.sha256()
        for file in self.files:
            with open_regular(file) as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
        return digest.hexdigest()

    def read(self, name: str, shape: tuple[int, ...]) -> Array:
        """A tensor, exactly."""
        place = self._places[name]
        if place.shape != shape:
            raise unusable(f"hold {name} in the shape {shape} that config.json gives", place.shape)
        if place.kind not in _TYPES:
            raise unusable(f"hold {name} as {', '.join(_TYPES)}", place.kind)
        raw = np.concatenate([np.zeros(0, _TYPES[place.kind]), *_chunks(name, place)])
        wide = raw
        if place.kind == "BF16":
            wide = np.left_shift(raw.astype(np.uint32), 16).view(np.float32)
        return np.array(wide, dtype=np.float64).reshape(shape)

    def require_finite(self) -> None:
        """Refuse weights of which a number is infinite or none, in what is dropped, too."""
        for name, place in self._places.items():
            if place.kind in _TYPES:
                for _ in _chunks(name, place):
                    pass


def _chunks(name: str, place: _Place) -> Iterator[NDArray[Any]]:
    """The numbers of a tensor as they are stored, each found to be finite."""
    left = math.prod(place.shape)
    with open_regular(place.file) as stream:
        stream.seek(place.start)
        while left:
            count = min(left, _CHUNK)
            raw = np.fromfile(stream, dtype=_TYPES[place.kind], count=count)
            if place.kind == "BF16":
                finite = bool(((raw & _BF16_EXPONENT) != _BF16_EXPONENT).all())
            else:
                finite = bool(np.isfinite(raw).all())
            if not finite:
                raise unusable("hold finite numbers", f"others in {name}")
            left -= count
            yield raw


def _files(directory: Path) -> list[Path]:
    single = directory / "model.safetensors"
    if single.is_file():
        return [single]
    index = json.loads(read_regular_text(directory / "model.safetensors.index.json"))
    return sorted({directory / Path(name).name for name in index["weight_map"].values()})


def _open(file: Path) -> Iterator[tuple[str, _Place]]:
    """Every tensor of a file; they fill it without gaps, in the order of their offsets."""
    whole = file.stat().st_size
    with open_regular(file) as stream:
        size = int.from_bytes(stream.read(8), "little")
        if size > min(whole - 8, _MOST_HEADER_BYTES):
            raise ValueError("the header is cut off")
        header = json.loads(stream.read(size), object_pairs_hook=_without_repeats)
    header.pop("__metadata__", None)
    end = 8 + size
    for name, fields in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        low, high = (_natural(offset) for offset in fields["data_offsets"])
        shape = tuple(_natural(length) for length in fields["shape"])
        if fields["dtype"] not in _WIDTHS:
            raise ValueError(f"{name} is stored as {fields['dtype']}")
        if 8 + size + low != end or high - low != math.prod(shape) * _WIDTHS[fields["dtype"]]:
            raise ValueError(f"{name} does not take the bytes that it should")
        yield name, _Place(file=file, kind=fields["dtype"], shape=shape, start=end)
        end += high - low
    if end != whole:
        raise ValueError(f"{whole} bytes where the tensors need {end}")


def _natural(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no size")
    return value


def _without_repeats(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(fields)
    if len(record) != len(fields):
        raise ValueError("a name is there twice")
    return record
