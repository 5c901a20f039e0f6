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

from promptlimits.base.typing import JsonObject
from promptlimits.base.writing import replace_file
from promptlimits.report import sections, wording
from promptlimits.report.figures import pairs_held
from promptlimits.report.record import Record, parse_record
from promptlimits.report.rows import baseline_rows, rows

FILE_NAME: Final = "report.html"


def render(record: JsonObject) -> str:
    """The page of a bracket record."""
    parsed = parse_record(record)
    script = sections.resource("bracket.js")
    pairs = sections.pair_rows(parsed)
    return (
        _environment()
        .get_template("bracket.html.j2")
        .render(
            **_wording(parsed),
            record=parsed,
            rows=rows(parsed),
            baselines=baseline_rows(parsed),
            endings=sections.endings(parsed),
            command=sections.command(parsed.command),
            figures=_figures(parsed),
            notes=(*parsed.warnings, *parsed.model.notes),
            pairs=pairs,
            not_decoded=sections.not_decoded(parsed, len(pairs)),
            pairs_sentence=sections.pairs_sentence(parsed),
            asked=[bracket for bracket in parsed.brackets if bracket.floor.answers],
            witnesses=sections.witnesses(parsed),
            load_code=sections.load_code(parsed),
            verify_code=sections.verify_code(parsed),
            assumption_groups=sections.assumption_groups(parsed),
            versions=tuple(sections.flat(parsed.versions)),
            download=_download(record),
            policy=_policy(script),
            css=Markup(sections.resource("bracket.css")),
            script=Markup(script),
        )
    )


def write_report(record: JsonObject, directory: Path) -> Path:
    """Write the page into a folder, whole or not at all.

    Args:
        record: The record as parsed from JSON.
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
            svg = pairs_held.svg(pairs_held.data(own))
            drawn.append(Markup(_renamed(svg, kind) if drawn else svg))
    return drawn


def _renamed(svg: str, kind: str) -> str:
    """A second drawing on one page: every name in it is made its own."""
    own = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{kind}-", svg)
    return own.replace('"figure-title figure-text"', f'"{kind}-figure-title {kind}-figure-text"')


def _wording(record: Record) -> dict[str, Any]:
    """The functions and words that the template speaks with."""
    of_text = record.task.text_tokens is not None
    return {
        "noun": wording.noun(record.task),
        "is_text": of_text,
        "answer_set_size": wording.big_number(record.task.answer_set_size),
        "count": wording.count,
        "plural": wording.plural,
        "prompt_name": wording.prompt_name,
        "any_prefix": wording.has_prefix(record),
        "any_soft": wording.has_soft(record),
        "subject": wording.subject(record),
        "ratio_down": wording.ratio_down,
        "duration": wording.duration,
        "bits_down": wording.bits_down,
        "bits_up": wording.bits_up,
        "ceiling_claim": functools.partial(wording.ceiling_claim, record),
        "share": wording.share_of_lists(*(each.ceiling for each in record.brackets)),
        "longer_lists": wording.longer_lists(record),
        "choice": any(wording.chosen_from(record, each) for each in record.brackets),
        "bits_name": wording.bits_name(record.task),
        "baseline_detail": wording.baseline_detail,
        "baseline_note": wording.baseline_note,
        "below_shorter": functools.partial(wording.below_shorter, record),
        "any_uncounted": any(map(sections.uncounted, record.brackets)),
        "uncounted": sections.uncounted,
        "held_unprompted": sections.held_unprompted,
        "control_sentence": functools.partial(wording.control_sentence, of_text=of_text),
        "control_detail": functools.partial(wording.control_detail, of_text=of_text),
        "any_control": any(each.control is not None for each in record.brackets),
        "between": functools.partial(sections.between, record),
        "remedies": sections.remedies,
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
    environment.filters["clean"] = wording.clean
    environment.filters["clean_code"] = wording.clean_code
    return environment
