"""Commands whose options are the fields of a theorem: text, which the class reads and refuses.

A theorem is imported when its command is asked for: `--help` alone imports none.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, cast, get_args, get_origin

import typer
from typer.core import TyperCommand

from promptlimits.base.errors import UserError, quoted
from promptlimits.cli import options
from promptlimits.cli.output import as_text, require_writable, show, write_whole

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from promptlimits.bounds.core import Theorem

Function = Callable[..., None]
OutFile = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write the certificate.")
]

THEOREMS: Final = {
    "counting": (
        "promptlimits.bounds.counting:Counting",
        """How many answers a prompt can hold, whatever the model.

        The counting theorem: of longer lists of random answers, at most a share can be answered
        in full by a prompt of that size.

        Example: promptlimits counting --dim 576 --prompt-tokens 4 --values float32 --answers 1000
        """,
    )
}
"""Theorems that are commands by themselves: the class, and what the help says."""


def theorem_at(place: str) -> type[Theorem]:
    """The class at "module:name"."""
    module, _, name = place.partition(":")
    return cast("type[Theorem]", getattr(import_module(module), name))


def add(
    app: typer.Typer, name: str, place: str, function: Function, text: str | None = None
) -> None:
    """Add a command: the options of a theorem, and those of the function by their own names."""

    class Later(TyperCommand):
        """The command without its options, until they are asked for."""

        def get_params(self, ctx: Any) -> Any:
            if not self.params:
                made = _with_options(name, theorem_at(place), function)
                self.params, self.callback = made.params, made.callback
            return super().get_params(ctx)

    def nothing() -> None:
        """Stands for the function, whose options are not known yet."""

    app.command(name=name, cls=Later, help=text or inspect.getdoc(function))(nothing)


def add_theorems(app: typer.Typer) -> None:
    """Add a command for each theorem that is one by itself."""
    for name, (place, text) in THEOREMS.items():
        add(app, name, place, _alone(place), text)


@contextmanager
def named(**options_of: str) -> Iterator[None]:
    """Have a refusal of a field name the option that was typed for it."""
    try:
        yield
    except UserError as error:
        option = options_of.get(error.name, error.name)
        if option == error.name and error.name.isidentifier():
            option = _flag(error.name)
        raise UserError(option, error.rule, got=error.got, remedy=error.remedy) from error


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _alone(place: str) -> Function:
    """The command of a theorem: what it proves and what that rests on."""

    def run(out: OutFile = None, as_json: options.AsJson = False, **typed: str) -> None:
        require_writable("--out", out)
        theorem = theorem_at(place).model_validate(typed)
        certificate = theorem.certificate()
        statement, assumptions = theorem.claim(certificate["value"]), theorem.rests_on()
        lines = [statement, "Assumed:", *(f"- {text}" for text in assumptions)]
        if out is not None:
            write_whole("--out", out, as_text(certificate) + "\n")
            lines.append(f"Check:  promptlimits check {quoted(out)}")
        record = certificate | {"statement": statement, "assumptions": list(assumptions)}
        show(record, lines, as_json=as_json)

    return run


def _with_options(name: str, theorem: type[Theorem], function: Function) -> Any:
    """The command, by way of a function whose signature has the options."""
    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(function, eval_str=True).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    known = {parameter.name for parameter in own}
    fields = {
        field: _option(field, info)
        for field, info in theorem.model_fields.items()
        if field not in known and _is_text(info)
    }

    def run(**given: Any) -> None:
        typed = {field: given.pop(field) for field in fields}
        with named():
            function(**given, **{k: v for k, v in typed.items() if v is not None})

    parameters = sorted(
        [*fields.values(), *own], key=lambda each: each.default is not inspect.Parameter.empty
    )
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    alone = typer.Typer(add_completion=False)
    alone.command(name=name)(run)
    return typer.main.get_command(alone)


def _option(name: str, info: FieldInfo) -> inspect.Parameter:
    """An option of text for a field; a default is left to the class: None means not typed."""
    text, required = info.description or "", info.is_required()
    if not required and isinstance(info.default, str | int | Fraction):
        text += f"  [default: {info.default}]"
    flag = typer.Option(_flag(name), metavar=_metavar(info.annotation), help=text)
    kind = str if required else str | None
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else None,
        annotation=Annotated[kind, flag],
    )


def _is_text(info: FieldInfo) -> bool:
    """Whether an option can give it: not a record of several numbers."""
    return not hasattr(info.annotation, "model_fields")


def _metavar(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "|".join(get_args(annotation))
    return "N" if annotation is int else "X"
