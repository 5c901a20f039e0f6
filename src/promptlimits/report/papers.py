"""One page, `papers.html`: experiments claim by claim, each with figure, numbers and command."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import jinja2
from markupsafe import Markup

from promptlimits.base.files import read_regular, replace_file
from promptlimits.record.experiment import Experiment
from promptlimits.report import sections

FILE_NAME: Final = "papers.html"
_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)


def write_papers(records: Sequence[Experiment], folder: Path) -> Path:
    """Write the page into the folder where the records' figures lie.

    Args:
        records: What was run, in the order of the page.
        folder: Where their drawings are, and where the page goes.

    Returns:
        The file written.
    """
    images = {
        figure.file: _image(folder / f"{figure.file}.svg")
        for record in records
        for figure in record.figures
    }
    page = render(records, images)
    replace_file(folder / FILE_NAME, page.encode("utf-8", "replace"))
    return folder / FILE_NAME


def render(records: Sequence[Experiment], images: dict[str, str]) -> str:
    """The page; `images` has a data address for each figure's file."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(sections.resource),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("papers.html.j2").render(
        records=records,
        images=images,
        policy=_POLICY,
        css=Markup(sections.resource("bracket.css")),
    )


def _image(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(read_regular(path)).decode("ascii")
