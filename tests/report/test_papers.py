"""The page of the papers: every number of a record, escaped, with nothing to fetch."""

import re

from promptlimits.record.experiment import (
    Control,
    Estimated,
    Experiment,
    Figure,
    Found,
    Interval,
    NotMeasured,
    Proved,
)
from promptlimits.report.papers import render, write_papers

WAY = "Clopper-Pearson, 95%"


def record(**changes):
    given = {
        "name": "scaling", "claim": "A <claim>.", "paper": "2509.00421",
        "published": "k in O(m_p/m)",
        "holds": "It holds.", "varied": "k", "spec": {"size": "quick"}, "cells": ({"k": 1},),
        "figures": (Figure(file="scaling-k50", title="k50", description="k 1: 2."),),
        "command": "promptlimits reproduce scaling --quick", "provenance": {}, "verdict": "Yes.",
        "agrees": True,
        "measured": Estimated(name="slope", value=0.5, low=0.25, high=0.75, way="bootstrap"),
        "proved": (Proved(name="the bound", value=1.0, direction="at most", source="Theorem 1"),),
        "found": (Found(name="solved", count=3, of=1234),),
        "estimated": (Estimated(name="k50", value=None, low=6.0, high=None, way=WAY),),
        "not_measured": (NotMeasured(name="longer prompts", why="they take hours"),),
        "control": Control(
            name="planted", solved=9, of=10, least=0.875, meaning="What it means.",
            share=Interval(value=0.9, low=0.5, high=0.99, way=WAY),
        ),
    }  # fmt: skip
    return Experiment(**(given | changes))


def words(page):
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def test_the_page_says_every_number_and_which_sort_it_is(tmp_path):
    (tmp_path / "scaling-k50.svg").write_text("<svg/>")
    page = write_papers([record()], tmp_path).read_text()
    said = words(page[page.index("<main>") :])
    for part in (
        "Published k in O(m_p/m)", "slope: 0.5 (0.25 to 0.75)", "Agrees. Yes.",
        "Proved the bound: at most 1 . Theorem 1", "Found solved: 3 of 1,234",
        "unknown (6 to no limit)", "9 of 10 solved", "0.875 where fewest",
        "longer prompts: they take hours", "promptlimits reproduce scaling --quick",
    ):  # fmt: skip
        assert part in said, part
    assert "A &lt;claim&gt;." in page
    assert 'src="data:image/svg+xml;base64,PHN2Zy8+"' in page
    assert "http" not in re.sub(r'http-equiv="[^"]*"', "", page)


def test_what_is_undecided_or_contradicted_is_said():
    images = {"scaling-k50": "data:,"}
    assert "Undecided." in words(render([record(agrees=None)], images))
    assert "Does not agree." in words(render([record(agrees=False)], images))
