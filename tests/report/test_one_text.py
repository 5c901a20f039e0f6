"""The bracket of one text counts its tokens, in the terminal, the figure and the page."""

from __future__ import annotations

import re

import pytest
from tests.report.conftest import MakeRecord
from tests.report.test_tables import printed

from promptlimits._typing import JsonObject
from promptlimits.errors import RunFailed
from promptlimits.report import wording
from promptlimits.report.figures.pairs_held import data, svg
from promptlimits.report.html import render
from promptlimits.report.record import parse_record
from promptlimits.report.tables import summary_lines

TOKENS = 48


@pytest.fixture
def text(make_record: MakeRecord) -> JsonObject:
    """A text of 48 tokens that two prompt tokens hold, and one does not."""
    record = make_record(held={1: 0, 2: 1}, number=1)
    record["task"] |= {"name": "text:poem.txt,48", "text_tokens": TOKENS}  # type: ignore[operator]
    for bracket, tokens in zip(record["brackets"], (0, TOKENS), strict=True):  # type: ignore[arg-type]
        bracket["floor"] |= {"tokens": tokens, "bits": 0.0, "bits_per_prompt_token": 0.0}  # type: ignore[index, operator, call-overload]
        bracket["ceiling"] |= {"pairs": None, "every_list_pairs": None}  # type: ignore[index, operator, call-overload]
    return record


def words(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", "", page).split())


def test_a_text_is_held_as_a_whole_or_not_at_all(text: JsonObject) -> None:
    short, long = summary_lines(text)
    theorem = "the theorem is about lists of random answers and gives no ceiling for one text"
    assert short == (
        f"1 prompt token: no prompt was confirmed to hold the 48 tokens of the text; {theorem}"
    )
    assert long == (
        "2 prompt tokens: the 48 tokens of the text held exactly, from the first one on (found, "
        f"confirmed by stock PEFT); {theorem}"
    )


def test_the_table_counts_tokens_and_no_bits(text: JsonObject) -> None:
    shown = printed(text)
    assert "SyntheticLM-135M: 48 tokens of the text" in shown
    assert "bits per" not in shown
    assert "list bits" not in shown
    rows = [line.split() for line in shown.splitlines() if line.strip().startswith("soft,")]
    assert rows == [
        ["soft,", "1", "0", "found", "none", "0", "18,432", "100.2"],
        ["soft,", "2", "48", "found", "none", "24.0", "36,864", "200.5"],
    ]
    # One text in one answer: how many of its tokens came out is not known.
    assert re.search(r"no prompt +whole ", shown)
    text["baselines"][0]["pairs"] = 0  # type: ignore[index, call-overload]
    assert re.search(r"no prompt +not whole ", printed(text))
    assert all(len(line) <= 80 for line in printed(text).splitlines())


def test_the_figure_counts_tokens(text: JsonObject) -> None:
    shown = data(text)
    assert (shown.unit, shown.floors, shown.ceilings) == ("tokens", (0, TOKENS), ())
    assert shown.levels == (("whole text", TOKENS),)
    assert shown.title == "Tokens held against prompt length, 48 tokens of the text"
    assert "2 prompt tokens: floor 48 found, no ceiling" in shown.description
    assert "tokens held" in svg(shown)
    assert "pairs held" not in svg(shown)


def test_the_page_counts_tokens_and_claims_no_ceiling(text: JsonObject) -> None:
    page = words(render(text))
    assert "How many tokens of the text can a soft prompt of SyntheticLM-135M hold?" in page
    assert "48 tokens, the whole text from its first one on, held exactly, confirmed by" in page
    assert "24.0 tokens per prompt token." in page
    assert "No prompt of this length was confirmed to hold the whole text of 48 tokens." in page
    assert "one text is none: it does not limit how many tokens are held." in page
    assert "ist bits" not in page
    assert "per stored bit" not in page


def test_a_page_of_a_list_says_nothing_of_a_text(record: JsonObject) -> None:
    page = words(render(record))
    assert "Tokens held" not in page
    assert "whole text" not in page
    assert "List bits per stored bit" in page


@pytest.mark.parametrize("tokens", [1, 47, None])
def test_a_record_whose_tokens_are_not_its_text_is_refused(
    tokens: int | None, text: JsonObject
) -> None:
    text["brackets"][1]["floor"]["tokens"] = tokens  # type: ignore[index, call-overload]
    with pytest.raises(RunFailed, match="contradicts itself: 1 texts of 48 tokens"):
        parse_record(text)


def test_one_token_is_one(text: JsonObject) -> None:
    text["task"]["text_tokens"] = text["brackets"][1]["floor"]["tokens"] = 1  # type: ignore[index, call-overload]
    assert wording.all_of(parse_record(text).task) == "1 token of the text"
