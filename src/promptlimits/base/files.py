"""Files: those of others read with care, our own written whole; and JSON.

A pipe under the name of a model's file hangs whoever opens it, a link to /dev/zero never ends,
and a sparse file of a terabyte fits on any disk but in no memory. So what a folder from elsewhere
holds is read through this module. Its errors are an `OSError` whose `strerror` says what stands
there: callers word them as they word a file that is missing.

A file or a small folder is written whole, so that a kill leaves the old one or the new one. No
system call that Python has swaps two folders. The new one is written beside its place as a
draft; then the old one steps aside and the draft is renamed into its place. A kill between
those two renames leaves the place empty and the old folder beside it, whole: a reader finds it
there with `standing`, and the next writer puts it back with `recover`. Readers change nothing.

Only what this module wrote is deleted. Draft and old folder have names of their own,
`.NAME.promptlimits-draft` and `.NAME.promptlimits-old`, and are touched only if they hold files
of such a folder. What else lay in a folder that is replaced stays in it.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn, TypeAlias

from promptlimits.base.errors import RunFailed, UserError, shortened

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = dict[str, JsonValue]
Fact: TypeAlias = "str | int | float | bool | None"

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


def cannot_read(name: str, error: OSError) -> UserError:
    """What is said of a file that cannot be read."""
    reason = error.strerror or str(error)
    return UserError(
        name,
        "be a file that can be read",
        got=reason[:1].lower() + reason[1:],
        remedy="check its name, where you are, and its permissions",
    )


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


def write_folder(directory: Path, files: Mapping[str, bytes]) -> None:
    """Give a folder these files, all of them or none."""
    draft = _beside(directory, "draft")
    with _said_for_people(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        _recover(directory, files)
        try:
            _discard(draft, files)  # left by a kill
            draft.mkdir()
            for name, content in files.items():
                _write_durably(draft / name, content)
            _sync_folder(draft)
            if directory.exists():
                directory.rename(_beside(directory, "old"))
            draft.rename(directory)
        except BaseException:
            _discard(draft, files)
            _recover(directory, files)
            raise
        _sync_folder(directory.parent)
        _recover(directory, files)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole: a reader sees the old content or the new one."""
    draft = _beside(path, "draft")
    with _said_for_people(path):
        draft.unlink(missing_ok=True)  # left by a kill
        try:
            _write_durably(draft, content)
            if path.exists():
                draft.chmod(path.stat().st_mode & 0o777)
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def write_json(path: Path, document: JsonObject) -> None:
    """Write a JSON object into a file, whole or not at all."""
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    replace_file(path, text.encode("utf-8", errors="backslashreplace"))


def standing(directory: Path) -> Path:
    """Where a reader finds a folder that may be in the middle of a replacement."""
    old = _beside(directory, "old")
    return old if old.is_dir() and not os.path.lexists(directory) else directory


def recover(directory: Path, names: Collection[str]) -> None:
    """Finish, or undo, a replacement that a kill cut short; do nothing otherwise.

    For writers only: it moves and deletes files.
    """
    with _said_for_people(directory):
        _recover(directory, names)


def _recover(directory: Path, names: Collection[str]) -> None:
    old = _beside(directory, "old")
    if not os.path.lexists(old):
        return
    found = _names_in(old)
    if found.isdisjoint(names) and found:
        raise _in_the_way(old)
    if not os.path.lexists(directory):
        old.rename(directory)
        return
    for name in sorted(found):
        if os.path.lexists(directory / name):
            (old / name).unlink()
        else:
            (old / name).rename(directory / name)
    old.rmdir()


def _discard(draft: Path, names: Collection[str]) -> None:
    """Delete a draft if it holds nothing but files of this folder."""
    if not os.path.lexists(draft):
        return
    found = _names_in(draft)
    if not found <= set(names):
        raise _in_the_way(draft)
    for name in found:
        (draft / name).unlink()
    draft.rmdir()


def _names_in(folder: Path) -> set[str]:
    """Names in a folder; whatever else stands under its name is in the way."""
    if folder.is_symlink() or not folder.is_dir():
        raise _in_the_way(folder)
    return {path.name for path in folder.iterdir()}


def _in_the_way(path: Path) -> RunFailed:
    return RunFailed(
        f"{path} stands where a draft is written, and promptlimits did not make it",
        remedy="move it elsewhere and run the same command again",
    )


def _beside(path: Path, role: str) -> Path:
    # "." has no name of its own, and ".." the wrong one.
    place = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow a link
    return place.parent / f".{place.name}.promptlimits-{role}"


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(directory: Path) -> None:
    """Make the names in a folder durable, where the system can open a folder for that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _said_for_people(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunFailed(
            f"{path} could not be written ({error.strerror or error})",
            remedy="free some space or choose another folder, and run the same command again; "
            "what was there before is unchanged",
        ) from error
