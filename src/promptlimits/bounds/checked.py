"""A certificate read by a person: checked, then said in words made of its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from promptlimits import checker
from promptlimits.base.errors import RunFailed, UserError
from promptlimits.bounds import counting, prompt_capacity, vector_counting  # noqa: F401 - kinds
from promptlimits.bounds.core import KINDS


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
        known = isinstance(kind, str) and kind in checker.KINDS
        name = f"{kind.replace('_', ' ')} certificate" if known else "certificate"
        raise UserError(
            "the certificate",
            f"be a {name} as promptlimits writes it",
            got=str(error),
            remedy="use the file as it was written",
        ) from error
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
