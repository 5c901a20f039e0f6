"""The page on the engine: its Python, run from top to bottom in one namespace as a reader would."""

from __future__ import annotations

import contextlib
import doctest
import io
import re
from pathlib import Path
from typing import Any

import pytest

# `...` stands for whatever varies.
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
BLOCK = r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?"


def blocks(text: str) -> list[tuple[str, str]]:
    """The Python blocks of a document, each with the output shown right below it."""
    return re.findall(BLOCK, text, re.DOTALL | re.MULTILINE)


def test_output_belongs_to_the_block_above_it() -> None:
    text = "```python\na\n```\n\nwords\n\n```text\nx\n```\n```python\nb\n```\n\n```text\ny\n```\n"
    assert blocks(text) == [("a\n", ""), ("b\n", "y\n")]


@pytest.mark.slow  # trains seven prompts on a tiny model: 2 s on an idle core
def test_the_python_of_the_page_prints_what_it_shows(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = blocks((repository / "docs/engine.md").read_text(encoding="utf-8"))
    assert len(found) >= 5
    assert sum(bool(shown) for _, shown in found) >= 5
    namespace: dict[str, Any] = {}
    for number, (code, shown) in enumerate(found):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"docs/engine.md, block {number}", "exec"), namespace)
        checker = doctest.OutputChecker()
        assert checker.check_output(shown, printed.getvalue(), FLAGS), printed.getvalue()
    fits = namespace["fits"]
    assert len(fits) == len(namespace["problems"]) == 6
    assert sum(fit.outcome == "solved" for fit in fits.values()) >= 2
