"""Which checker verifies which kind of certificate.

The checker of kind K is `check(certificate) -> str` in `promptlimits.checking.K`. One that can
prove figures again from a model's weights is `check(certificate, *, weights, on_progress)`:
`weights` is the model's directory or file, or None to take these figures as recorded, which is
then said here; `on_progress` takes a line on what is being done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from promptlimits.base.errors import UserError

# Kind -> where its checker is. A checker is imported only when such a certificate is checked.
_CHECKERS: Final = {
    "model_ceiling": "promptlimits.checking.model_ceiling:check",
    "transformer_lipschitz": "promptlimits.checking.transformer_lipschitz:check",
}

# Kinds of which figures, such as norms, can be proved again from the weights.
_FROM_WEIGHTS: Final = frozenset({"model_ceiling", "transformer_lipschitz"})


_TAKEN: Final = "; what it states of the weights is taken from the certificate, not checked"
_PROVED: Final = "; what it states of the weights was proved again from them"


def knows(certificate: Any) -> bool:
    """Whether it is of a kind that is checked here."""
    return isinstance(certificate, dict) and certificate.get("kind") in list(_CHECKERS)


def is_about_a_model(certificate: Any) -> bool:
    """Whether figures in it can be proved again from a model's weights."""
    return certificate["kind"] in _FROM_WEIGHTS


def check_certificate(
    certificate: Any,
    *,
    weights: Path | None = None,
    on_progress: Callable[[str], None] = lambda line: None,
) -> str:
    """Verify a certificate of any kind, without the code that wrote it.

    Args:
        certificate: Its parsed JSON.
        weights: A model's directory or file, from which the norms in the certificate are proved
            again; None: they are taken from the certificate, and the statement says so.
        on_progress: Told, in a line, of every step of a long proof.

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
        said = str(check(certificate, weights=weights, on_progress=on_progress))
        return said + (_TAKEN if weights is None else _PROVED)
    if weights is not None:
        raise UserError(
            "a certificate checked against a model's weights",
            f"be of kind {' or '.join(sorted(_FROM_WEIGHTS))}",
            got=kind,
            remedy="leave the model out: nothing in this certificate depends on its weights",
        )
    return str(check(certificate))


def stated_assumptions(certificate: dict[str, Any]) -> list[dict[str, Any]]:
    """What a verified certificate rests on: its own assumptions and those of what it contains."""
    found: dict[str, dict[str, Any]] = {}
    for bound in _bounds(certificate):
        for assumption in bound["assumptions"]:
            found.setdefault(assumption["text"], dict(assumption))
    return list(found.values())


def _bounds(certificate: dict[str, Any]) -> Iterator[dict[str, Any]]:
    waiting = [certificate["bound"]]
    while waiting:
        bound = waiting.pop(0)
        yield bound
        waiting += bound["factors"]
    for item in certificate["inputs"].values():
        if isinstance(item, dict) and {"kind", "inputs", "bound"} <= item.keys():
            yield from _bounds(item)


def _seen(certificate: Any, kind: Any) -> str:
    if isinstance(certificate, dict):
        return f"kind {kind!r}" if "kind" in certificate else "a record without a kind"
    return f"a {type(certificate).__name__}"
