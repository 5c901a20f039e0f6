"""Standard output and standard error as people and pipes meet them."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, TextIO

from promptlimits.base.errors import PromptLimitsWarning


def say(message: str) -> None:
    """Say something on standard error, on one line whatever it holds."""
    line = " ".join(message.split())
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)
    print(f"promptlimits: {shown}", file=sys.stderr)


def encode_anything() -> None:
    """Have characters that a terminal's encoding lacks escaped, where Python would raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def open_what_is_closed() -> None:
    """Give each standard stream that was closed, as by `>&-`, the null device.

    Python has None for such a stream, and the next file that is opened would get its number:
    what is meant for people, or what torch prints from C++, would go into a store.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # The lowest free number is that of the stream: those below it are open by now.
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def close_quietly() -> None:
    """Drop what could not be written: the reader is gone, or the disk is full.

    Python writes what is left once more when it ends, and would complain on several lines.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # a stream of a test has no descriptor
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


QUIET_LIBRARIES: Final = {
    "TRANSFORMERS_VERBOSITY": "critical",
    "HF_HUB_VERBOSITY": "critical",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TORCH_LOGS": "-all",
}
"""Variables with which libraries, in this process and in those it starts, log nothing."""


@contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Show this package's own warnings as one line each, and nobody else's, nor their logs."""
    last_resort = logging.lastResort
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", PromptLimitsWarning)
        warnings.showwarning = _as_note
        # What would show the logs of libraries that set up no handler of their own.
        logging.lastResort = logging.NullHandler()
        try:
            yield
        finally:
            logging.lastResort = last_resort


def _as_note(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    say(f"note: {message}")
