"""Paths in commands that a person pastes into a shell."""

from __future__ import annotations

import os
import shlex


def quoted(path: str | os.PathLike[str]) -> str:
    r"""A path as a word of a command: quoted where need be, and never read as an option.

    Args:
        path: Any path.

    Returns:
        The word. Bytes that are no UTF-8 are written as bash and zsh read them: `$'\xff'`.
    """
    text = os.fspath(path)
    text = f"./{text}" if text.startswith("-") else text
    try:
        text.encode()
    except UnicodeEncodeError:
        return "$'" + "".join(map(_escaped, os.fsencode(text))) + "'"
    return shlex.quote(text)


def _escaped(byte: int) -> str:
    """A byte inside `$'...'`."""
    char = chr(byte)
    return char if char.isascii() and char.isprintable() and char not in "\\'" else f"\\x{byte:02x}"
