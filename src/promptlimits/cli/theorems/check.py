"""`promptlimits check`: verify a certificate without the code that wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from promptlimits.base.errors import UserError
from promptlimits.base.files import read_regular_text
from promptlimits.cli import options

if TYPE_CHECKING:
    from promptlimits.cli.live import LiveListener

_MOST_CERTIFICATE_BYTES: Final = 512_000_000
"""One of a search over many boxes lists them all."""


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

    Every number in it is computed again, on other arithmetic, and every word compared. A
    certificate about a model takes the norms of its weights as recorded, and says so, unless
    --model gives the weights.

    Exit code 0 if all that it claims is so, 1 if not, 2 if the file is no certificate.
    """
    record = _read(file)
    statement = _on_one_line(_checked(record, model, quiet=quiet))
    if as_json:
        from promptlimits.checking.dispatch import stated_assumptions

        told = {
            "ok": True,
            "statement": statement,
            "from_weights": model is not None,
            "assumptions": stated_assumptions(record),
        }
        typer.echo(json.dumps(told, indent=1, ensure_ascii=False))
    else:
        typer.echo(f"ok: {statement}")


def _checked(record: Any, model: str | None, *, quiet: bool) -> str:
    """What a certificate says, verified; with progress where weights are read."""
    from promptlimits.checking.dispatch import check_certificate

    if model is None:
        return check_certificate(record)
    from promptlimits.cli.live import LiveListener

    with LiveListener(quiet=quiet) as listener:
        weights = _located(model, listener)
        return check_certificate(record, weights=weights, on_progress=listener.stage)


def _located(model: str, listener: LiveListener) -> Path:
    """Where weights are: a file of them, or a model that is on this machine already."""
    path = Path(model)
    if path.suffix != ".gguf" and path.is_file():
        return path
    from promptlimits.nets.load.locate import locate

    with options.named_as_typed():
        return locate(model, allow_hub=False, on_progress=listener.found).directory


def _read(path: Path) -> Any:
    try:
        return json.loads(
            read_regular_text(path, at_most=_MOST_CERTIFICATE_BYTES),
            object_pairs_hook=_without_repeats,
            parse_constant=_refuse,
        )
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            str(path),
            "be a certificate that can be read",
            got=f"a file that cannot ({reason})",
            remedy="give one, such as a ceiling-*-tokens.json of a `promptlimits bracket`",
        ) from error


def _without_repeats(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of a field given twice, a person might read the other one."""
    record = dict(fields)
    if len(record) != len(fields):
        raise ValueError("a field is given twice")
    return record


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _on_one_line(text: str) -> str:
    """The text with what does not print, such as an escape sequence, as Python writes it."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
