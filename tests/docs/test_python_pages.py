"""Pages with Python, run from top to bottom in one namespace as a reader would."""

import contextlib
import doctest
import io
import re

import pytest

# `...` stands for whatever varies.
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
BLOCK = r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?"


def blocks(text):
    """The Python blocks of a document, each with the output shown right below it."""
    return re.findall(BLOCK, text, re.DOTALL | re.MULTILINE)


def test_output_belongs_to_the_block_above_it():
    text = "```python\na\n```\n\nwords\n\n```text\nx\n```\n```python\nb\n```\n\n```text\ny\n```\n"
    assert blocks(text) == [("a\n", ""), ("b\n", "y\n")]


def run_page(path):
    """Run a page from top to bottom; what it leaves behind."""
    namespace = {}
    for number, (code, shown) in enumerate(blocks(path.read_text(encoding="utf-8"))):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"{path.name}, block {number}", "exec"), namespace)
        checker = doctest.OutputChecker()
        assert checker.check_output(shown, printed.getvalue(), FLAGS), printed.getvalue()
    return namespace


@pytest.mark.parametrize(("page", "least"), [("definitions", 3), ("ceilings", 1)])
def test_the_python_of_a_page_prints_what_it_shows(page, least, repository):
    path = repository / f"docs/{page}.md"
    run_page(path)
    assert sum(bool(shown) for _, shown in blocks(path.read_text(encoding="utf-8"))) >= least


@pytest.mark.slow  # trains seven prompts on a tiny model: 2 s on an idle core
def test_the_python_of_the_page_on_the_engine(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = repository / "docs/engine.md"
    assert sum(bool(shown) for _, shown in blocks(path.read_text(encoding="utf-8"))) >= 5
    namespace = run_page(path)
    fits = namespace["fits"]
    assert len(fits) == len(namespace["problems"]) == 6
    assert sum(fit.outcome == "solved" for fit in fits.values()) >= 2
