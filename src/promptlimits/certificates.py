"""A certificate read by a person: checked, then said in words made of its numbers.

The checker knows nothing of the theorems, and the theorems nothing of the checker: here they meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from promptlimits import checker
from promptlimits.base.errors import RunFailed, UserError
from promptlimits.bounds.core import KINDS

THEOREMS: Final = {
    "counting": "promptlimits.bounds.counting",
    "last_tokens_capacity": "promptlimits.bounds.context.last_tokens",
    "prompt_capacity": "promptlimits.bounds.prompt_capacity",
    "short_prompt_capacity": "promptlimits.bounds.context.whole_output",
    "vector_counting": "promptlimits.bounds.vector_counting",
    "washout": "promptlimits.bounds.context.washout",
    "whole_output_capacity": "promptlimits.bounds.context.whole_output",
}
"""Kind -> the module of its theorem, which is imported when such a certificate is read."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What a certificate proves.

    Attributes:
        statement: The claim in one sentence.
        assumptions: What it rests on.
    """

    statement: str
    assumptions: tuple[str, ...]


def checked(certificate: Any) -> Checked:
    """Verify a certificate without the code that wrote it, and say what it proves."""
    try:
        checker.check(certificate)
    except checker.Refuted as error:
        raise RunFailed(
            f"the certificate does not hold: {error}",
            remedy="do not rely on it; compute the ceiling again",
        ) from error
    except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        kind = certificate.get("kind") if isinstance(certificate, dict) else None
        known = f"{kind} ".replace("_", " ") if kind in list(checker.KINDS) else ""
        raise UserError(
            "the certificate",
            f"be a {known}certificate as promptlimits writes it",
            got=str(error),
            remedy="use the file as it was written",
        ) from error
    import_module(THEOREMS[certificate["kind"]])
    theorem = KINDS[certificate["kind"]].model_validate(certificate["inputs"])
    return Checked(statement=theorem.claim(certificate["value"]), assumptions=theorem.rests_on())


def check_certificate(certificate: Any) -> str:
    """Verify a certificate of any kind, without the code that wrote it.

    Args:
        certificate: Its parsed JSON.

    Returns:
        The claim in one sentence, made of the numbers that were verified.

    Raises:
        UserError: It is no certificate, or of a kind that is not known.
        RunFailed: What it claims is not so.
    """
    return checked(certificate).statement
