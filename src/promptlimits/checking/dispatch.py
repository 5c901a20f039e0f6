"""Which checker verifies which kind of certificate."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Final

from promptlimits.errors import UserError

# Kind -> where its checker is. A checker is imported only when such a certificate is checked.
_CHECKERS: Final = {
    "context_capacity": "promptlimits.checking.context_capacity:check",
    "counting": "promptlimits.checking.counting:check_counting",
    "margin": "promptlimits.checking.margin:check",
    "model_ceiling": "promptlimits.checking.model_ceiling:check",
    "prompt_capacity": "promptlimits.checking.prompt_capacity:check",
    "transformer_lipschitz": "promptlimits.checking.transformer_lipschitz:check",
    "vector_counting": "promptlimits.checking.vector_counting:check",
    "washout": "promptlimits.checking.washout:check",
}

# Kinds whose limits on norms can be proved again from the weights.
_FROM_WEIGHTS: Final = frozenset({"model_ceiling", "transformer_lipschitz"})


def check_certificate(certificate: Any, *, weights: Path | None = None) -> str:
    """Verify a certificate of any kind, without the code that wrote it.

    Args:
        certificate: Its parsed JSON.
        weights: A model's directory, from which the norms in the certificate are proved again;
            None: they are taken from the certificate, and the statement says so.

    Returns:
        The claim in one sentence, made of the numbers that were verified.

    Raises:
        UserError: It is no certificate, of a kind that is not known, or of a kind that rests on
            no weights.
        RunFailed: It was altered, or what it claims is not so.
    """
    kind = certificate.get("kind") if isinstance(certificate, dict) else None
    if not isinstance(kind, str) or kind not in _CHECKERS:
        raise UserError(
            "the certificate",
            "be a counting certificate or of another kind that promptlimits writes "
            f"({', '.join(sorted(_CHECKERS))})",
            got=_seen(certificate, kind),
            remedy="use the file as it was written, with the version that wrote it",
        )
    module, _, name = _CHECKERS[kind].partition(":")
    check = getattr(import_module(module), name)
    if kind in _FROM_WEIGHTS:
        return str(check(certificate, weights=weights))
    if weights is not None:
        raise UserError(
            "a certificate checked against a model's weights",
            f"be of kind {' or '.join(sorted(_FROM_WEIGHTS))}",
            got=kind,
            remedy="leave the model out: nothing in this certificate depends on its weights",
        )
    return str(check(certificate))


def _seen(certificate: Any, kind: Any) -> str:
    if isinstance(certificate, dict):
        return f"kind {kind!r}" if "kind" in certificate else "a record without a kind"
    return f"a {type(certificate).__name__}"
