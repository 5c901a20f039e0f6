"""`promptlimits check`: verify a ceiling's certificate with integers alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from promptlimits.cli import options
from promptlimits.errors import UserError


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Such as ceiling-1-tokens.json.")],
    as_json: options.AsJson = False,
) -> None:
    """Verify a ceiling's certificate with integers alone.

    The checker shares no code with what wrote the certificate.

    Exit code 0 if all that it claims is so, 1 if not, 2 if the file is no certificate.
    """
    from promptlimits.checking.counting import check_counting

    statement = _on_one_line(check_counting(_read(file)))
    if as_json:
        typer.echo(json.dumps({"ok": True, "statement": statement}, indent=1, ensure_ascii=False))
    else:
        typer.echo(f"ok: {statement}")


def _read(path: Path) -> Any:
    try:
        return json.loads(
            path.read_text(encoding="utf-8"),
            object_pairs_hook=_without_repeats,
            parse_constant=_refuse,
        )
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            str(path),
            "be a certificate that can be read",
            got=f"a file that cannot ({reason})",
            remedy="give a ceiling-*-tokens.json of a `promptlimits bracket`",
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
