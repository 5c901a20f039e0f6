"""Errors for people: every message says the rule, the value seen, and the remedy.

`UserError` is something the user can mend (exit code 2); `RunFailed` is work that was
asked for correctly and did not succeed (exit code 1). The command line prints either as
one line and never shows a traceback for them. What a remedy
says to type is quoted for a shell: `command`, `quoted`.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterable

_MOST_SHOWN = 400
"""Characters of the value seen that a message shows: a line is for reading."""


def shortened(text: str) -> str:
    """A text as far as a line for people shows it."""
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…"


class PromptLimitsError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code: int = 1


class UserError(PromptLimitsError):
    """A value given by the user breaks a rule.

    Args:
        name: What was given: an option, a file, a column, a line of a file.
        rule: What it must be, completing "NAME must RULE".
        got: The value seen.
        remedy: What to do about it.
    """

    exit_code = 2

    def __init__(self, name: str, rule: str, *, got: object, remedy: str) -> None:
        self.name = name
        self.rule = rule
        self.got = got
        self.remedy = remedy
        shown = got if isinstance(got, str) else repr(got)
        super().__init__(f"{name} must {rule}, got {shortened(shown)}; {remedy}")


class RunFailed(PromptLimitsError):
    """Work that was asked for correctly and did not succeed.

    Args:
        what: What failed.
        remedy: What to do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, remedy: str) -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what}; {remedy}")


class PromptLimitsWarning(UserWarning):
    """Something worth knowing that does not stop the work."""


def require_positive_int(name: str, value: object, *, remedy: str = "give 1 or more") -> int:
    """Return `value` if it is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(name, "be a whole number of at least 1", got=value, remedy=remedy)
    return value


def require_positive(name: str, value: float, *, remedy: str = "give a number above 0") -> float:
    """Return `value` as a float if it is finite and above 0."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UserError(name, "be a number above 0", got=value, remedy=remedy) from None
    if not math.isfinite(number) or number <= 0:
        raise UserError(name, "be a finite number above 0", got=value, remedy=remedy)
    return number


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
