"""Exceptions for people: every message says the rule, the value seen, and the remedy.

`UserError` is something the user can mend (exit code 2); `RunFailed` is work that was
asked for correctly and did not succeed (exit code 1). The command line prints either as
one line and never shows a traceback for them.
"""

from __future__ import annotations

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
