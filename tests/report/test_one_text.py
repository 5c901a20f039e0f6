"""The bracket of one text counts its tokens, in the terminal, the figure and the page."""

import re

import pytest
from tests.report.views import data, parsed, printed, render, summary_lines

from promptlimits.base.errors import RunFailed
from promptlimits.report import wording

TOKENS, PART = 48, 12


@pytest.fixture
def text(make_record):
    """A text of 48 tokens: one prompt token holds none of it, two hold a part, four hold all."""
    record = make_record(held={1: 0, 2: 1, 4: 1}, number=1)
    record["task"] |= {"name": "text:poem.txt,48", "text_tokens": TOKENS}
    for bracket, tokens in zip(record["brackets"], (0, PART, TOKENS), strict=True):
        bracket["floor"] |= {
            "tokens": tokens,
            "pairs": int(tokens == TOKENS),
            "bits": 0.0,
            "bits_per_prompt_token": 0.0,
        }
        bracket["ceiling"] |= {"pairs": None, "every_list_pairs": None}
    for baseline in record["baselines"]:
        baseline["tokens"] = 0
    return record


def words(page):
    return " ".join(re.sub(r"<[^>]+>", "", page).split())


def test_a_text_is_held_from_its_first_token_on(text):
    short, part, long = summary_lines(text)
    theorem = "the theorem is about lists of random answers and gives no ceiling for one text"
    assert short == (
        f"1 prompt token: no prompt was confirmed to hold the first of the 48 tokens of the "
        f"text; {theorem}"
    )
    assert part == (
        "2 prompt tokens: 12 of 48 tokens of the text held exactly, from the first one on (found, "
        f"confirmed by stock PEFT); {theorem}"
    )
    assert long == (
        "4 prompt tokens: 48 of 48 tokens of the text held exactly, from the first one on (found, "
        f"confirmed by stock PEFT); {theorem}"
    )


def test_the_table_counts_tokens_and_no_bits(text):
    shown = printed(text)
    assert "SyntheticLM-135M: 48 tokens of the text" in shown
    assert "bits per" not in shown
    assert "list bits" not in shown
    rows = [line.split() for line in shown.splitlines() if line.strip().startswith("soft,")]
    assert rows == [
        ["soft,", "1", "0", "found", "none", "0", "18,432", "100.2"],
        ["soft,", "2", "12", "found", "none", "6.00", "36,864", "200.5"],
        ["soft,", "4", "48", "found", "none", "12.0", "73,728", "401.0"],
    ]
    assert re.search(r"no prompt +0 measured ", shown)
    text["baselines"][0]["tokens"] = 3
    assert re.search(r"no prompt +3 measured ", printed(text))
    assert all(len(line) <= 80 for line in printed(text).splitlines())


def test_the_figure_counts_tokens(text):
    shown = data(text)
    assert (shown.unit, shown.floors, shown.ceilings) == ("tokens", (0, PART, TOKENS), ())
    assert shown.levels == (("no prompt", 0), ("in context", 0), ("whole text", TOKENS))
    assert shown.title == "Tokens held against prompt length, 48 tokens of the text"
    assert "2 prompt tokens: floor 12 found, no ceiling" in shown.description
    assert "tokens held" in shown.inline()
    assert "pairs held" not in shown.inline()
    text["baselines"][0]["tokens"] = 3
    assert data(text).levels[0] == ("no prompt", 3)


def test_the_page_counts_tokens_and_claims_no_ceiling(text):
    page = words(render(text))
    assert "How many tokens of the text can a soft prompt of SyntheticLM-135M hold?" in page
    assert "12 of 48 tokens, from the first one on, held exactly, confirmed by" in page
    assert "48 of 48 tokens, from the first one on, held exactly, confirmed by" in page
    assert "6.00 tokens per prompt token." in page
    assert "confirmed to hold the first of the 48 tokens of the text." in page
    assert "2 prompt tokens: 1 held, 0 wrong, 0 not counted" in page
    assert 'adapter = "witness-4-tokens"' in page.replace("'", '"').replace("&#39;", '"')
    assert "one text is none: it does not limit how many tokens are held." in page
    assert "ist bits" not in page
    assert "per stored bit" not in page


def test_a_page_of_a_list_says_nothing_of_a_text(record):
    page = words(render(record))
    assert "Tokens held" not in page
    assert "whole text" not in page
    assert "List bits per stored bit" in page


@pytest.mark.parametrize(
    ("pairs", "tokens"), [(1, 1), (1, 47), (1, None), (0, 48), (0, 49), (1, 49), (0, None)]
)
def test_a_record_whose_tokens_are_not_its_text_is_refused(pairs, tokens, text):
    text["brackets"][2]["floor"] |= {"tokens": tokens, "pairs": pairs}
    with pytest.raises(RunFailed, match="contradicts itself: "):
        parsed(text)


@pytest.mark.parametrize("change", [{"witness": None}, {"tokens": 0}])
def test_tokens_without_a_witness_and_a_witness_without_tokens_are_refused(change, text):
    text["brackets"][1]["floor"] |= change
    with pytest.raises(RunFailed, match="contradicts itself: "):
        parsed(text)


def test_sizes_and_the_control_are_in_tokens(text):
    control = {
        "status": "measured",
        "tokens": 13,
        "recovered": 5,
        "outcome": "stalled",
        "finished": True,
        "steps": 40,
        "seconds": 1.0,
        "seed": 0,
        "distinct_answers": 7,
        "list_distinct_answers": 11,
        "answer_entropy_bits": 2.5,
        "answered_unprompted": 0,
        "token_norm": 9.0,
        "conclusion": "the rest",
    }
    bracket = text["brackets"][1]
    attempt = {"tokens": 13, "held": 12, "outcome": "stalled", "remedy": ""}
    attempt |= {"steps": 4, "seconds": 1.0, "seed": 0}
    bracket |= {"control": control, "search": [attempt]}
    assert parsed(text).brackets[1].search[0].size == 13
    said = (
        "planted control (measured): 5 of 13 tokens of what a known prompt writes recovered in 40 "
        "steps; the rest"
    )
    assert said in summary_lines(text)
    page = words(render(text))
    assert said[1:] in page
    assert "Planted text: 7 distinct tokens (11 in as much of the real one), entropy 2.5" in page
    control["recovered"] = 14
    with pytest.raises(RunFailed, match="14 of 13 planted"):
        parsed(text)


def test_one_token_is_one(text):
    text["task"]["text_tokens"] = 1
    for bracket, tokens in zip(text["brackets"], (0, 1, 1), strict=True):
        bracket["floor"] |= {"tokens": tokens, "pairs": tokens}
    assert wording.all_of(parsed(text).task) == "1 token of the text"
