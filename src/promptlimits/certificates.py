"""A certificate read by a person: checked, then said in words made of its numbers.

The checker knows nothing of the theorems, and the theorems nothing of the checker: here they meet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from promptlimits import checker
from promptlimits.base.errors import RunFailed, UserError
from promptlimits.bounds.core import KINDS

THEOREMS: Final = {
    "counting": "promptlimits.bounds.counting",
    "last_tokens_capacity": "promptlimits.bounds.context.last_tokens",
    "model_ceiling": "promptlimits.lipschitz.checkpoint.model_ceiling",
    "prompt_capacity": "promptlimits.bounds.prompt_capacity",
    "short_prompt_capacity": "promptlimits.bounds.context.whole_output",
    "transformer_lipschitz": "promptlimits.lipschitz.ellipsoid.certificate",
    "vector_counting": "promptlimits.bounds.counting",
    "washout": "promptlimits.bounds.context.layers",
    "whole_output_capacity": "promptlimits.bounds.context.whole_output",
}
"""Kind -> the module of its theorem, which is imported when such a certificate is read."""

ABOUT_MODELS: Final = ("model_ceiling", "transformer_lipschitz")
"""Kinds that state something of weights."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What a certificate proves."""

    statement: str  # the claim in one sentence
    assumptions: tuple[str, ...]  # what it rests on
    about_a_model: bool  # whether it states something of weights


def checked(
    certificate: Any,
    *,
    weights: Path | None = None,
    on_progress: Callable[[str], None] = lambda line: None,
) -> Checked:
    """Verify a certificate without the code that wrote it, and say what it proves.

    Args:
        certificate: Its parsed JSON.
        weights: A model's directory, from which what it states of weights is proved again.
        on_progress: Told, in a line, of every step of a long proof.

    Returns:
        The claim, made of the numbers that were verified.

    Raises:
        UserError: It is no certificate, of a kind that is not known, or of one that rests on no
            weights though some are given.
        RunFailed: What it claims is not so.
    """
    try:
        checker.check(certificate)
        if weights is not None:
            _prove(certificate, weights, on_progress)
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
    return Checked(
        statement=theorem.claim(certificate["value"]),
        assumptions=theorem.rests_on(),
        about_a_model=certificate["kind"] in ABOUT_MODELS,
    )


def _prove(certificate: Any, weights: Path, on_progress: Callable[[str], None]) -> None:
    """Have the checker prove what is stated of weights; it is handed arrays, and opens no file."""
    kind, name = certificate["kind"], f"model {weights.name}"
    if kind == "model_ceiling":
        from promptlimits.checker.weights import prove_norms
        from promptlimits.nets.files.folder import weight_files, weights_hash
        from promptlimits.nets.load.blocks import open_checkpoint

        digest = weights_hash(weight_files(weights))
        checkpoint = open_checkpoint(weights, name=name)
        prove_norms(certificate, checkpoint, sha256=digest, on_progress=on_progress)
    elif kind == "transformer_lipschitz":
        from promptlimits.checker.ellipsoid import prove_limit
        from promptlimits.nets.paper.files import load_transformer
        from promptlimits.nets.paper.transformer import to_weights

        transformer = to_weights(load_transformer(weights))
        prove_limit(certificate, transformer, on_progress=on_progress)
    else:
        raise UserError(
            "a certificate checked against a model's weights",
            f"be of kind {' or '.join(ABOUT_MODELS)}",
            got=kind,
            remedy="leave the model out: nothing in this certificate depends on its weights",
        )


def check_certificate(certificate: Any, *, weights: Path | None = None) -> str:
    """Verify a certificate of any kind, without the code that wrote it.

    Args:
        certificate: Its parsed JSON.
        weights: A model's directory, from which what it states of weights is proved again.

    Returns:
        The claim in one sentence, made of the numbers that were verified; it begins with "not
        checked against a model" where it is about weights that were not given.

    Raises:
        UserError: It is no certificate, or of a kind that is not known.
        RunFailed: What it claims is not so.
    """
    found = checked(certificate, weights=weights)
    unproved = found.about_a_model and weights is None
    return f"not checked against a model: {found.statement}" if unproved else found.statement
