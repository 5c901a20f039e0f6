"""The command line: one app, one way for every error to leave it.

Exit codes: 0 done, 1 the work failed, 2 the user's input is at fault, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import Annotated, Final

import typer
from typer.exceptions import TyperException

from promptlimits import __version__
from promptlimits.cli import bracket, doctor, fit, models, report, verify
from promptlimits.errors import PromptLimitsError

INTERRUPTED: Final = 130
DEBUG: Final = "PROMPTLIMITS_DEBUG"

app = typer.Typer(
    name="promptlimits",
    help="How much a prompt can hold: what was found, what is proved, and what lies between.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(name="bracket")(bracket.bracket)
app.command(name="fit")(fit.fit)
app.command(name="verify")(verify.verify)
app.command(name="report")(report.report)
app.add_typer(models.app, name="models")
app.command(name="doctor")(doctor.doctor)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def promptlimits(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """How much a prompt can hold: what was found, what is proved, and what lies between."""


def main() -> None:
    """Run the command line and leave with its exit code; a person's mistake is one line."""
    # A waiting OpenMP thread that spins costs a shared machine more than it gains.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = app(standalone_mode=False)
    except TyperException as error:
        _fail(_usage(error), 2)
    except PromptLimitsError as error:
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _fail(
            "interrupted; nothing finished is lost: the same command goes on from here", INTERRUPTED
        )
    except OSError as error:
        _fail(_said(error), 1)
    except MemoryError:
        _fail("the memory is used up; use a smaller model or fewer pairs", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    if os.environ.get(DEBUG):
        traceback.print_exc()
    line = " ".join(message.split())
    print(f"promptlimits: {line}", file=sys.stderr)
    sys.exit(code)


def _usage(error: TyperException) -> str:
    """A usage error in the form of every other one: the rule, what was seen, the remedy."""
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "promptlimits"
    return f"{message.rstrip('.')}; see `{command} --help`"


def _said(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"the disk is full{where}; free some space and run the same command again"
    return f"{error.strerror or error}{where}; mend that and run the same command again"


if __name__ == "__main__":
    main()
