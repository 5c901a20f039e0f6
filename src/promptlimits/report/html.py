"""One self-contained page: every number of a record, where it came from, how to check it.

The page loads nothing: its policy forbids every request, the one script is named by its
hash and only copies text, and every string of the record is escaped and isolated.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from pathlib import Path
from typing import Any, Final

import jinja2
from markupsafe import Markup

from promptlimits.base.files import JsonObject, replace_file
from promptlimits.record.record import Record
from promptlimits.report import sections, wording
from promptlimits.report.figures.pairs_held import PairsHeld

FILE_NAME: Final = "report.html"


def render(record: Record) -> str:
    """The page of a bracket record."""
    script = sections.resource("bracket.js")
    pairs = sections.pair_rows(record)
    page = _environment().get_template("bracket.html.j2")
    return page.render(
        **_facts(record),
        record=record,
        endings=sections.endings(record),
        command=sections.command(record.command),
        figures=_figures(record),
        notes=(*record.warnings, *record.model.notes),
        pairs=pairs,
        not_decoded=sections.not_decoded(record, len(pairs)),
        pairs_sentence=sections.pairs_sentence(record),
        asked=[bracket for bracket in record.brackets if bracket.floor.answers],
        witnesses=sections.witnesses(record),
        load_code=sections.load_code(record),
        verify_code=sections.verify_code(record),
        assumption_groups=sections.assumption_groups(record),
        versions=sections.versions(record),
        download=_download(record.to_json()),
        policy=_policy(script),
        css=Markup(sections.resource("bracket.css")),
        script=Markup(script),
    )


def write_report(record: Record, directory: Path) -> Path:
    """Write the page into a folder, whole or not at all.

    Args:
        record: The record.
        directory: Where; made if it is not there.

    Returns:
        The file written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / FILE_NAME
    replace_file(target, render(record).encode("utf-8", "replace"))
    return target


def _figures(record: Record) -> list[Markup]:
    """One drawing for each kind of prompt: a token of one is not a token of the other."""
    drawn: list[Markup] = []
    for kind in ("soft", "prefix"):
        members = tuple(each for each in record.brackets if each.kind == kind)
        if members:
            own = record.model_copy(update={"brackets": members})
            svg = PairsHeld(own).inline()
            drawn.append(Markup(_renamed(svg, kind) if drawn else svg))
    return drawn


def _renamed(svg: str, kind: str) -> str:
    """A second drawing on one page: every name in it is made its own."""
    own = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{kind}-", svg)
    return own.replace('"figure-title figure-text"', f'"{kind}-figure-title {kind}-figure-text"')


def _facts(record: Record) -> dict[str, Any]:
    """What the whole record says, in words and as what the page shows or leaves out."""
    task, brackets = record.task, record.brackets
    return {
        "noun": wording.noun(task),
        "is_text": task.text_tokens is not None,
        "answer_set_size": wording.big_number(task.answer_set_size),
        "any_prefix": wording.has_prefix(record),
        "any_soft": wording.has_soft(record),
        "subject": wording.subject(record),
        "share": wording.share_of_lists(*(each.ceiling for each in brackets)),
        "longer_lists": wording.longer_lists(record),
        "choice": any(map(wording.chosen_from, brackets)),
        "bits_name": wording.bits_name(task),
        "any_uncounted": any(map(sections.uncounted, brackets)),
        "any_control": any(each.control is not None for each in brackets),
    }


def _download(record: JsonObject) -> str:
    text = json.dumps(record, indent=1, allow_nan=False)
    return "data:application/json;base64," + base64.b64encode(text.encode("ascii")).decode("ascii")


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(sections.resource),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(wording=wording, sections=sections)
    environment.filters["clean"] = wording.clean
    environment.filters["clean_code"] = wording.clean_code
    return environment
