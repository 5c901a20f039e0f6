"""Sphinx configuration: `make docs` builds with warnings as errors."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from sphinx.application import Sphinx

import promptlimits

project = "promptlimits"
author = "The promptlimits developers"
copyright = "the promptlimits developers, Apache-2.0"
version = release = promptlimits.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "_generated"]
nitpicky = False

myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "promptlimits"
html_show_sphinx = False
# The pages ask no other machine for anything.
html_theme_options = {"top_of_page_buttons": []}


def write_command_reference(_app: Sphinx) -> None:
    """Write a page with what --help prints for every command."""
    os.environ.update(COLUMNS="92", TERM="dumb", NO_COLOR="1")
    from promptlimits.cli.main import app

    page = Path(__file__).parent / "_generated" / "commands.md"
    page.parent.mkdir(exist_ok=True)
    root = typer.main.get_command(app)
    page.write_text("\n".join(_sections("promptlimits", root)), encoding="utf-8")


def _sections(name: str, command: Any) -> Iterator[str]:
    """The section of a command, then those of its sub-commands."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        command.main(["--help"], prog_name=name)
    lines = (line.rstrip() for line in printed.getvalue().strip().splitlines())
    yield "\n".join([f"## {name}", "", "```text", *lines, "```", ""])
    for child, inner in getattr(command, "commands", {}).items():
        yield from _sections(f"{name} {child}", inner)


def read_bars_as_norms(
    _app: Sphinx, _what: str, _name: str, _object: object, _options: object, lines: list[str]
) -> None:
    """Keep reStructuredText from reading the norm in |x| as a name to be replaced."""
    lines[:] = [line.replace("|", r"\|") for line in lines]


def setup(app: Sphinx) -> None:
    """Register what this configuration adds."""
    app.connect("autodoc-process-docstring", read_bars_as_norms)
    app.connect("builder-inited", write_command_reference)
