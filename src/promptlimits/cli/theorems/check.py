"""`promptlimits check`: verify a certificate without the code that wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from promptlimits.base.errors import UserError
from promptlimits.base.files import read_regular_text, strict_json
from promptlimits.cli import options
from promptlimits.cli.output_file import as_text

if TYPE_CHECKING:
    from promptlimits.cli.live import LiveListener

_MOST_CERTIFICATE_BYTES: Final = 512_000_000
"""One of a search over many boxes lists them all."""

NOT_AGAINST_A_MODEL: Final = 4
"""Exit code where nothing was wrong, but what it says of a model was not checked."""


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Such as ceiling-1-tokens.json.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="Prove the norms again from its weights: a directory or a name."
        ),
    ] = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Verify a certificate without the code that wrote it.

    Every number in it is computed again, on other arithmetic. What a certificate about a model
    says of its weights is proved again where --model gives them; it is not checked otherwise.

    Exit code 0 if all that it claims is so, 1 if not, 2 if the file is no certificate, 4 if it is
    about a model and was not checked against one.

    Example: promptlimits check runs/capitals/ceiling-1-tokens.json
    """
    record = _read(file)
    statement, assumptions, about_a_model = _checked(record, model, quiet=quiet)
    unproved = about_a_model and model is None
    if as_json:
        told = {
            "ok": True,
            "statement": statement,
            "from_weights": model is not None,
            "assumptions": assumptions,
        }
        typer.echo(as_text(told))
    else:
        typer.echo(f"{'not checked against a model' if unproved else 'ok'}: {statement}")
    if unproved:
        raise typer.Exit(NOT_AGAINST_A_MODEL)


def _checked(record: Any, model: str | None, *, quiet: bool) -> tuple[str, list[Any], bool]:
    """What a certificate says, what it rests on, and whether that is about a model's weights."""
    from promptlimits.certificates import checked

    if model is None:
        found = checked(record)
    else:
        from promptlimits.cli.live import LiveListener

        with LiveListener(quiet=quiet) as listener:
            weights = _located(model, listener)
            found = checked(record, weights=weights, on_progress=listener.stage)
    return found.statement, list(found.assumptions), found.about_a_model


def _located(model: str, listener: LiveListener) -> Path:
    """Where weights are: of a model that is on this machine already."""
    from promptlimits.nets.load.locate import locate

    with options.named_as_typed():
        return locate(model, allow_hub=False, on_progress=listener.found).directory


def _read(path: Path) -> Any:
    try:
        return strict_json(read_regular_text(path, at_most=_MOST_CERTIFICATE_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            str(path),
            "be a certificate that can be read",
            got=f"a file that cannot ({reason})",
            remedy="give one, such as a ceiling-*-tokens.json of a `promptlimits bracket`",
        ) from error
