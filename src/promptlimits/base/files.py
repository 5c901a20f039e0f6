"""Files that others made, opened only if they are plain files of a sensible size.

A pipe under the name of a model's file hangs whoever opens it, a link to /dev/zero never ends,
and a sparse file of a terabyte fits on any disk but in no memory. So what a folder from elsewhere
holds is read through this module. Its errors are an `OSError` whose `strerror` says what stands
there: callers word them as they word a file that is missing.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

from promptlimits.base.errors import shortened

MOST_JSON_BYTES: Final = 64_000_000
"""More than any configuration, record, tokenizer or index of shards needs."""

_KINDS: Final = (
    (stat.S_ISDIR, errno.EISDIR, "a directory"),
    (stat.S_ISFIFO, errno.EINVAL, "a pipe"),
    (stat.S_ISSOCK, errno.EINVAL, "a socket"),
    (stat.S_ISCHR, errno.EINVAL, "a device"),
    (stat.S_ISBLK, errno.EINVAL, "a device"),
)


class UnfitFile(OSError):
    """It is no regular file, or larger than whoever reads it takes; `strerror` says which."""


def require_regular(path: Path, *, at_most: int | None = None) -> int:
    """Check a file before something else opens it by name."""
    return _checked(os.stat(path), path, at_most)  # noqa: PTH116 - beside fstat below


def open_regular(path: Path, *, at_most: int | None = None) -> BinaryIO:
    """Open a file for reading, at once, whatever stands there."""
    # Looked at first, as opening some devices does something; and again once it is open, as
    # another file may have come under its name.
    require_regular(path, at_most=at_most)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        _checked(os.fstat(descriptor), path, at_most)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, *, at_most: int = MOST_JSON_BYTES) -> bytes:
    """Read a whole file."""
    with open_regular(path, at_most=at_most) as stream:
        # Some files have more in them than their size says: it grows, or it is in /proc.
        content = stream.read(at_most + 1)
    if len(content) > at_most:
        raise _too_large(path, len(content), at_most)
    return content


def read_regular_text(path: Path, *, at_most: int = MOST_JSON_BYTES) -> str:
    """Read a whole file of UTF-8."""
    return read_regular(path, at_most=at_most).decode("utf-8")


def strict_json(text: str, *, floats_as_text: bool = False) -> Any:
    """JSON of which nothing has two meanings: of a field given twice, a person reads the other.

    Raises:
        ValueError: It is no JSON, names a field twice, or holds NaN or an infinity.
        RecursionError: Its brackets are too deep.
    """

    def once(fields: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(fields)
        if len(record) != len(fields):
            names = [name for name, _ in fields]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the field {shortened(repr(twice))} is given twice")
        return record

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no number of JSON")

    floats = str if floats_as_text else None
    return json.loads(text, parse_float=floats, object_pairs_hook=once, parse_constant=refuse)


def _checked(found: os.stat_result, path: Path, at_most: int | None) -> int:
    for is_kind, number, called in _KINDS:
        if is_kind(found.st_mode):
            raise UnfitFile(number, f"{called} where a file should be", str(path))
    if at_most is not None and found.st_size > at_most:
        raise _too_large(path, found.st_size, at_most)
    return found.st_size


def _too_large(path: Path, size: int, at_most: int) -> UnfitFile:
    return UnfitFile(
        errno.EFBIG, f"a file of {size:,} bytes, where at most {at_most:,} are read", str(path)
    )
