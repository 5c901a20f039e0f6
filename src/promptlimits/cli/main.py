"""The command line: one app, one way for every error to leave it.

Exit codes, as docs/cli.md lists them: 0 done, 1 the work failed, 2 the user's input is at fault,
3 the budget was used up before some prompt length was searched for, 4 a certificate about a model
was not checked against one, 70 a mistake of this program,
130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from promptlimits import __version__
from promptlimits.base.errors import PromptLimitsError, shortened
from promptlimits.cli.experiments import reproduce, sweep
from promptlimits.cli.experiments.pools import PoolCommand
from promptlimits.cli.lab import construct, errata, invert, lipschitz, oracle, unmemorizable
from promptlimits.cli.output import (
    QUIET_LIBRARIES,
    close_quietly,
    encode_anything,
    open_what_is_closed,
    say,
    warnings_as_notes,
)
from promptlimits.cli.product import bracket, models, verify
from promptlimits.cli.theorems import ceiling, certify, context, generated

INTERRUPTED: Final = 130
BUG: Final = 70
"""EX_SOFTWARE of sysexits.h."""
DEBUG: Final = "PROMPTLIMITS_DEBUG"
_GO_ON: Final = {"bracket", "fit", "models", "reproduce", "sweep"}
"""Commands that keep what they have done; all others compute from the beginning."""

_RULES: Final = {
    "greater_than_equal": "be {ge:,} or more",
    "less_than_equal": "be at most {le:,}",
    "int_parsing": "be a whole number",
    "int_parsing_size": "be a whole number of fewer digits",
    "float_parsing": "be a number",
}
"""What pydantic calls the rules of options, and what a person is told."""

_LIMITS: Final = "Limits that are proved"
_GROUPS: Final = {
    "Measure a model": ("bracket", "fit", "verify", "score", "pairs", "report"),
    _LIMITS: ("ceiling", "plan", "context", "certify", "check"),
    "Experiments": ("reproduce", "sweep"),
    "Small networks": ("oracle", "unmemorizable", "construct", "invert", "lipschitz", "errata"),
    "This installation": ("models", "doctor"),
}


class _Grouped(TyperGroup):
    """The commands by what they are for; those of theorems that no group names are limits."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        named = [name for names in _GROUPS.values() for name in names]
        theorems = [name for name in self.commands if name not in named]
        width = formatter.width - 6 - max(map(len, self.commands))
        for heading, names in _GROUPS.items():
            shown = [*names, *(theorems if heading == _LIMITS else ())]
            with formatter.section(heading):
                formatter.write_dl(
                    [(name, self.commands[name].get_short_help_str(width)) for name in shown]
                )


app = typer.Typer(
    name="promptlimits",
    cls=_Grouped,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(name="bracket")(bracket.bracket)
app.command(name="fit")(bracket.fit)
app.command(name="pairs")(bracket.pairs)
app.command(name="verify")(verify.verify)
app.command(name="score")(verify.score)
generated.add(app, "ceiling", ceiling.NET, ceiling.ceiling)
app.command(name="certify")(certify.certify)
generated.add(app, "plan", ceiling.NET, ceiling.plan)
generated.add_theorems(app)
generated.add(app, "context", context.SHORT_PROMPTS, context.context)
app.command(name="reproduce", cls=PoolCommand)(reproduce.reproduce)
app.command(name="sweep", cls=PoolCommand)(sweep.sweep)
app.command(name="oracle")(oracle.oracle)
app.command(name="unmemorizable")(unmemorizable.unmemorizable)
app.add_typer(construct.app, name="construct")
app.command(name="invert")(invert.invert)
app.command(name="lipschitz")(lipschitz.lipschitz)
app.command(name="check")(certify.check)
app.command(name="report")(bracket.report)
app.add_typer(models.app, name="models")
app.command(name="errata")(errata.errata)
app.command(name="doctor")(models.doctor)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def promptlimits(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """How many pairs a prompt of a frozen language model holds.

    A floor is a prompt that was found and that stock tools confirm. A ceiling is a theorem, with
    a certificate that `promptlimits check` verifies.

    Example: promptlimits bracket --model smollm2-135m --pairs capitals
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


def main() -> None:
    """Run the command line and leave with its exit code; a person's mistake is one line."""
    # A waiting OpenMP thread that spins costs a shared machine more than it gains.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    open_what_is_closed()
    # What a person must know is an error or a note of our own. Read when they are imported.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
    os.environ.setdefault("HF_HUB_VERBOSITY", "critical")
    encode_anything()
    if os.environ.get(DEBUG):
        code = _run()
    else:
        for name, value in QUIET_LIBRARIES.items():
            os.environ.setdefault(name, value)
        with warnings_as_notes():
            code = _run()
    sys.exit(code)


def _run() -> int:
    try:
        code = app(standalone_mode=False, prog_name="promptlimits")
        sys.stdout.flush()
        if code == INTERRUPTED:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
    except TyperException as error:
        return _failed(_usage(error), 2)
    except PromptLimitsError as error:
        return _failed(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _failed(_of_interruption(sys.argv[1:2]), INTERRUPTED)
    except BrokenPipeError:
        close_quietly()  # as in `promptlimits models | head -1`: nobody is listening
        return 1
    except OSError as error:
        return _failed(_said(error), 1)
    except Exception as error:  # noqa: BLE001 - the last resort: nothing above it shows an error
        if _out_of_memory(error):
            return _failed("the memory is used up; use a smaller model or fewer pairs", 1)
        return _failed(_of_bug(error), BUG)
    return code if isinstance(code, int) else 0


def _of_interruption(command: list[str]) -> str:
    if set(command) & _GO_ON:
        return "interrupted; nothing finished is lost: the same command goes on from here"
    return "interrupted; the same command starts from the beginning"


def _of_bug(error: Exception) -> str:
    """What is said of an exception that nobody expected: its class, words and place."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}promptlimits{os.sep}" in frame.filename]
    place = (ours or frames)[-1]
    _, _, file = place.filename.rpartition(f"promptlimits{os.sep}")
    return (
        f"a mistake of promptlimits {__version__}, not yours: {type(error).__name__} "
        f"({shortened(str(error))}) at {file}:{place.lineno}; finished work is kept; please "
        f"report this line, with what {DEBUG}=1 shows"
    )


def _failed(message: str, code: int) -> int:
    if os.environ.get(DEBUG):
        traceback.print_exc()
    say(message)
    try:
        sys.stdout.flush()
    except OSError:
        close_quietly()
    return code


def _out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; torch says so with a RuntimeError, in different words."""
    words = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or "out of memory" in words
        or "not enough memory" in words
        or "can't allocate memory" in words
    )


def _usage(error: TyperException) -> str:
    """A usage error in the form of every other one: the rule, what was seen, the remedy."""
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    message = _of_a_value(error) or message.rstrip(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "promptlimits"
    return f"{message}; see `{command} --help`"


def _of_a_value(error: TyperException) -> str | None:
    """What a value of an option must be, where that was not so; None for other errors."""
    found = getattr(error.__cause__ or error.__context__, "errors", None)
    parameter = getattr(error, "param", None)
    if found is None or parameter is None:
        return None
    first = found()[0]
    _, _, choices = first["msg"].partition(" is not one of ")
    rule = _RULES.get(first["type"], f"be one of {choices}").replace("'", "").rstrip(".")
    return f"{parameter.opts[0]} must {rule.format(**first.get('ctx', {}))}, got {first['input']!r}"


def _said(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"the disk is full{where}; free some space and run the same command again"
    return f"{error.strerror or error}{where}; mend that and run the same command again"


if __name__ == "__main__":
    main()
