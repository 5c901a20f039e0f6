"""Pages whose commands are run one by one as a reader would, and compared with what they show."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

# `...` stands for whatever varies; runs of blanks do not matter.
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command of a console block and the standard output shown below it."""

    command: str
    shown: str


def steps(text):
    """The commands of a document's console blocks, in order; `\\` continues a line."""
    for block in re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            match = re.match(r"((?:[^\n]*\\\n)*[^\n]*)\n?(.*)", part, re.DOTALL)
            yield Step(command=match[1], shown=match[2])


def test_commands_and_their_output_are_told_apart():
    text = "```console\n$ one \\\n    two\nshown\n$ three\n```\n```console\n$ four\n```\n"
    assert list(steps(text)) == [
        Step(command="one \\\n    two", shown="shown\n"),
        Step(command="three", shown=""),
        Step(command="four", shown=""),
    ]


@pytest.mark.parametrize("page", ["mean_field"])
def test_the_python_of_a_page_gives_what_it_shows(page, repository):
    path = repository / f"docs/{page}.md"
    found = doctest.testfile(str(path), module_relative=False, optionflags=FLAGS, encoding="utf-8")
    assert found.attempted >= 5
    assert found.failed == 0


@pytest.mark.slow  # every command starts a Python with torch
@pytest.mark.parametrize(("page", "least"), [("quickstart", 5), ("pairs", 5), ("lipschitz", 2)])
def test_every_command_of_a_page_does_what_it_shows(page, least, repository, tmp_path):
    found = list(steps((repository / f"docs/{page}.md").read_text(encoding="utf-8")))
    assert len(found) >= least
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
        "NO_COLOR": "1",
    }
    for step in found:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", step.command],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        seen = f"$ {step.command}\n{done.stdout}{done.stderr}"
        assert done.returncode == 0, seen
        if step.shown:
            checker = doctest.OutputChecker()
            assert checker.check_output(step.shown, done.stdout, FLAGS), seen


def test_the_python_of_the_page_on_lipschitz_constants_runs(repository):
    text = (repository / "docs/lipschitz.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    exec(compile(code, "docs/lipschitz.md", "exec"), {})
