"""The page of errata says what the code says, and each command on it runs.

After a wanted change, write the page anew and read the diff:

    PROMPTLIMITS_WRITE_GOLDEN=1 python -m pytest tests/docs/test_errata.py && git diff docs
"""

import os
import re
import sys

import pytest

from promptlimits.cli.main import main
from promptlimits.lab.errata.statements import ERRATA, run

HEAD = """# Errata of the paper

What is wrong in "Memory Limitations of Prompt Tuning in Transformers" [@meyer2025], statement by
statement, and the form that holds. Bounds printed by this package use the correct forms; where
a published one stands beside them, it is labelled. W4 is a theorem of [@wang2023] that is true
and easily read as more than it says. `promptlimits errata` prints this list.
Where a counterexample can be computed, the command shown does so and says what it measured.

"""


def section(entry):
    parts = [
        f"## {entry.key}: {entry.where}",
        f"**{entry.status[0].upper()}{entry.status[1:]}.**",
        f"*Published.* {entry.published}",
        f"*What is wrong.* {entry.wrong}",
        f"*What holds.* {entry.correct}",
    ]
    found = run(entry.key)
    shown = "" if found is None else f"...\nMeasured:  {found.measured}\n"
    parts.append(f"```console\n$ {entry.command}\n{shown}```")
    return "\n\n".join(parts) + "\n"


def page():
    table = "| | where | status | runs |\n|---|---|---|---|\n" + "".join(
        f"| {e.key} | {e.where} | {e.status} | {'yes' if e.runs else ''} |\n" for e in ERRATA
    )
    return HEAD + table + "\n" + "\n".join(section(entry) for entry in ERRATA)


def test_the_page_lists_exactly_the_statements_of_the_code(repository):
    path = repository / "docs/errata.md"
    if os.environ.get("PROMPTLIMITS_WRITE_GOLDEN"):
        path.write_text(page(), encoding="utf-8")
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"^## ([EW]\d+):", text, re.MULTILINE) == [entry.key for entry in ERRATA]
    assert text == page(), "the docstring of this file says how to accept that"


def test_every_command_of_the_page_runs(repository, monkeypatch, capsys):
    text = (repository / "docs/errata.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n\$ (.*)\n((?:.*\n)*?)```", text, re.MULTILINE)
    assert len(blocks) == len(ERRATA)
    for command, shown in blocks:
        monkeypatch.setattr(sys, "argv", command.split())
        with pytest.raises(SystemExit) as ending:
            main()
        said = capsys.readouterr()
        assert (ending.value.code, said.err) == (0, "")
        assert said.out.endswith(shown.removeprefix("...\n"))
        assert ("Measured:" in said.out) == bool(shown)
