"""Options that several commands share, and groups of them.

A group is a frozen dataclass whose fields are options: what it holds is read in one place. Behind
`@with_groups` a command takes a group as one parameter, and a person its fields.

Numbers are read as a user types them, exactly: "0.1" is one tenth, not the float next to it.
"""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields, is_dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import typer

from promptlimits.base.errors import UserError
from promptlimits.base.files import MOST_JSON_BYTES, read_regular_text, strict_json
from promptlimits.capacity.tables.files import shown

if TYPE_CHECKING:
    from promptlimits.base.exact import Rule


MOST_THREADS: Final = 1024
REQUIRED: Final[Any] = ...
"""In place of a field's default: the command has none."""

Offline = Annotated[bool, typer.Option("--offline", help="Never ask a hub for a model.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on standard error.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1.")]
Out = Annotated[Path, typer.Option("--out", help="Output folder; run again there to go on.")]
Plot = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Write a drawing, as SVG.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything that is drawn.")]

_OPTION_OF: Final = {
    "the task": "--pairs",
    "the template": "--template",
    **{
        name: "--" + name.replace("_", "-")
        for name in (
            *("answer", "chat", "choices", "columns", "device", "first_size", "joiner"),
            *("learning_rate", "least_deviation", "limit", "max_steps", "model", "patience"),
            *("prompt_tokens", "search_dtype", "seed", "starts"),
        )
    },
}


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the fields of each dataclass among its parameters as options of its own."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {}
    options: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        kind = hints[name]
        if isinstance(kind, type) and is_dataclass(kind):
            groups[name] = kind
            options += _options_of(kind, parameter.default)
        else:
            options.append(_option(name, kind, parameter.default))

    def called(**typed: Any) -> None:
        held = {
            name: kind(**{field.name: typed.pop(field.name) for field in fields(kind)})
            for name, kind in groups.items()
        }
        command(**typed, **held)

    called.__name__, called.__doc__ = command.__name__, command.__doc__
    called.__annotations__ = {option.name: option.annotation for option in options}
    called.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    return called


def _options_of(group: type[Any], given: Any) -> list[inspect.Parameter]:
    """The options of a group; their defaults are those of an instance, where one is given."""
    hints = get_type_hints(group, include_extras=True)

    def default(field: Field[Any]) -> Any:
        value = field.default if given is inspect.Parameter.empty else getattr(given, field.name)
        return inspect.Parameter.empty if value in (MISSING, REQUIRED) else value

    return [_option(field.name, hints[field.name], default(field)) for field in fields(group)]


def _option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=default, annotation=annotation)


def parsed(*names: str, parser: Callable[[str, str], Any], metavar: str, help: str) -> Any:
    """An option whose text a function reads, given the option's name and the text."""

    def read(text: Any) -> Any:
        return parser(names[0], text) if isinstance(text, str) else text  # a default is no text

    return typer.Option(*names, parser=read, metavar=metavar, help=help)


@contextmanager
def named_as_typed() -> Iterator[None]:
    """Have errors about an option's value name the option, as the user typed it."""
    try:
        yield
    except UserError as error:
        option = _OPTION_OF.get(error.name)
        if option is None:
            raise
        raise UserError(option, error.rule, got=error.got, remedy=error.remedy) from error


def one_of(what: str, example: str, **given: object) -> None:
    """Require exactly one of some options, which are None where they are not given."""
    held = sum(value is not None for value in given.values())
    if held != 1:
        names = " and ".join("--" + name.replace("_", "-") for name in given)
        raise UserError(
            what,
            f"be given by one of {names}",
            got="both" if held else "neither",
            remedy=f"write {example}",
        )


def require_unicode(name: str, path: Path) -> Path:
    """Return a folder that stock tools can open: safetensors takes no other path than UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(
            name,
            "be a path of UTF-8 characters, as safetensors takes no other",
            got=repr(os.fsencode(path)),
            remedy="choose another folder, or rename it",
        ) from error
    return path


def require_folder(path: Path) -> Path:
    """Return the output folder, made if need be."""
    require_unicode("--out", path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):  # a name of its own: nothing there is touched
            pass
    except OSError as error:
        raise UserError(
            "--out",
            "be a folder that can be written",
            got=f"{path} ({error.strerror or error})",
            remedy="choose another folder",
        ) from error
    return path


def read_json(
    path: Path,
    *,
    name: str,
    rule: str,
    remedy: str,
    got: str = "",
    at_most: int = MOST_JSON_BYTES,
    floats_as_text: bool = False,
) -> Any:
    """What a file of JSON holds, or an error about the option that names it."""
    try:
        return strict_json(read_regular_text(path, at_most=at_most), floats_as_text=floats_as_text)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(name, rule, got=f"{got or path} ({reason})", remedy=remedy) from error


_MOST: Final = 10**9


def count(option: str, text: str) -> int:
    """A whole number from 1 to a billion."""
    plain = text.strip()
    if plain.isascii() and plain.isdigit() and len(plain) < 12 and 1 <= int(plain) <= _MOST:
        return int(plain)
    raise UserError(
        option, f"be a whole number from 1 to {_MOST:,}", got=shown(text), remedy="write 20"
    )


def positive(option: str, text: str) -> Fraction:
    """An exact number above 0."""
    return _exact(option, text, zero=False)


def non_negative(option: str, text: str) -> Fraction:
    """An exact number of 0 or more."""
    return _exact(option, text, zero=True)


def rounded(value: float | str, *, up: bool, digits: int = 4) -> str:
    """A number as a table shows it, rounded to the safe side."""
    from promptlimits.base.exact import LARGEST_FLOAT, decimal_rounding

    short = decimal_rounding(digits, up=up).create_decimal(Decimal(value))
    if short and not 1 / LARGEST_FLOAT < abs(short) < LARGEST_FLOAT:
        return f"{short:.{digits - 1}e}"
    return f"{float(short):.{digits}g}"  # a float gives a short decimal back as it was


def _exact(option: str, text: str, *, zero: bool) -> Fraction:
    from promptlimits.base.exact import Rule, exact

    try:
        number = exact(text)
        if number < 0 or (number == 0 and not zero):
            raise Rule("be a finite number of 0 or more" if zero else "be a finite number above 0")
    except Rule as error:
        raise _refused(option, text, error) from error
    return number


def _refused(option: str, text: str, error: Rule) -> UserError:
    return UserError(option, error.rule, got=shown(text), remedy=error.remedy)
