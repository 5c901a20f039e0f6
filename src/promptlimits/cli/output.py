"""What a command gives: a record that it prints, and a file that it writes at its end.

A file is tried before the work, and written whole or not at all. Standard output and standard
error are made fit for people and pipes.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TextIO

import typer

from promptlimits.base.errors import PromptLimitsWarning, UserError
from promptlimits.base.files import replace_file


def as_text(record: object) -> str:
    """A record as JSON, for a file or for standard output."""
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)


def show(record: object, lines: Iterable[str], *, as_json: bool) -> None:
    """Print a result: its record, or the lines that say it."""
    for line in [as_text(record)] if as_json else lines:
        typer.echo(line)


def require_writable(option: str, path: Path | None) -> None:
    """Refuse an output file that cannot be written, before minutes of work.

    What was there before stays as it is; a file that was made only to try is taken away.
    """
    if path is None:
        return
    target = _behind_links(path)
    try:
        if target.is_dir():
            raise OSError("it is a directory")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            with target.open("x"):
                pass
            target.unlink()
        elif not os.access(target, os.W_OK):  # opening a pipe would wait for its reader
            raise OSError("permission denied")
    except OSError as error:
        raise _refused(option, path, error) from error


def write_whole(option: str, path: Path, text: str) -> None:
    """Write a file so that a reader sees all of it or what was there before.

    Devices and pipes are written as they are.
    """
    target = _behind_links(path)
    # A file whose folder may not be changed, such as one mounted alone, has no draft beside it.
    if not target.exists() or (target.is_file() and os.access(target.parent, os.W_OK)):
        replace_file(target, text.encode("utf-8", errors="backslashreplace"))
        return
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _refused(option, path, error) from error


def _behind_links(path: Path) -> Path:
    """What a link stands for, so that the link itself is kept."""
    return Path(os.path.realpath(path))


def _refused(option: str, path: Path, error: OSError) -> UserError:
    return UserError(
        option,
        "be a file that can be written",
        got=f"{path} ({error.strerror or error})",
        remedy="choose another file",
    )


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
