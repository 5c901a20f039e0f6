"""Standard output and standard error as people and pipes meet them."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from promptlimits.errors import PromptLimitsWarning


def say(message: str) -> None:
    """Say something on standard error, on one line whatever it holds.

    Args:
        message: Any text; what does not print, such as an escape sequence in the name of a
            file, is shown as its Python literal.
    """
    line = " ".join(message.split())
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)
    print(f"promptlimits: {shown}", file=sys.stderr)


def encode_anything() -> None:
    """Have characters that a terminal's encoding lacks escaped, where Python would raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def close_quietly() -> None:
    """Drop what could not be written: the reader is gone, or the disk is full.

    Python writes what is left once more when it ends, and would complain on several lines.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # a stream of a test has no descriptor
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Show this package's own warnings as one line each, and nobody else's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", PromptLimitsWarning)
        warnings.showwarning = _as_note
        yield


def _as_note(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    say(f"note: {message}")
