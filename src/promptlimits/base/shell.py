"""Commands that a person pastes into a shell."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable


def quoted(path: str | os.PathLike[str]) -> str:
    r"""A path as a word of a command: quoted where need be, and never read as an option."""
    text = os.fspath(path)
    return _word(f"./{text}" if text.startswith("-") else text)


def command(words: Iterable[str]) -> str:
    """Words as one command for a shell, as `shlex.join`, whatever bytes they hold."""
    return " ".join(map(_word, words))


def _word(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return "$'" + "".join(map(_escaped, _bytes_of(text))) + "'"
    return shlex.quote(text)


def _bytes_of(text: str) -> bytes:
    """The bytes that a name stands for; of one that stands for none, as from a record, some."""
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _escaped(byte: int) -> str:
    """A byte inside `$'...'`."""
    char = chr(byte)
    return char if char.isascii() and char.isprintable() and char not in "\\'" else f"\\x{byte:02x}"
