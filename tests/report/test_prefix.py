"""Soft prompts and prefixes stand in one table, in bits per stored bit."""

import re
from collections.abc import Callable

import pytest
from tests.report.views import parsed, printed, render, summary_lines

from promptlimits.base.errors import UserError
from promptlimits.base.files import JsonObject
from promptlimits.report import wording

MakeRecord = Callable[..., JsonObject]


@pytest.fixture
def mixed(make_record):
    """Prefixes of 1 and 2 tokens of 30 rows' width, then soft prompts of the same lengths."""
    soft, wide = make_record(held={1: 40, 2: 71}), make_record(held={1: 100, 2: 120})
    for bracket in wide["brackets"]:
        tokens = bracket["prompt_tokens"]
        bracket |= {"kind": "prefix", "stored_bits": 32 * 30 * 576 * tokens}
        bracket["floor"]["witness"] = f"witness-prefix-{tokens}-tokens"
        bracket["floor"]["bits_per_stored_bit"] = bracket["floor"]["bits"] / bracket["stored_bits"]
    return {**soft, "brackets": [*wide["brackets"], *soft["brackets"]]}


def test_soft_prompts_come_first(mixed):
    found = parsed(mixed).brackets
    assert [(row.kind, row.prompt_tokens) for row in found] == [
        ("soft", 1),
        ("soft", 2),
        ("prefix", 1),
        ("prefix", 2),
    ]
    assert found[1].stored_bits == 32 * 2 * 576
    assert found[2].stored_bits == 32 * 30 * 576


def test_the_table_compares_them_and_fits_80_columns(mixed):
    text = printed(mixed)
    lines = [line.split() for line in text.splitlines()]
    assert ["soft,", "1", "40", "found", "2,329", "proved", "316.9", "18,432", "0.0171"] in lines
    assert next(line for line in lines if line[:2] == ["prefix,", "2"])[-2:] == [
        "1,105,920",
        "0.000859",
    ]
    assert "per stored" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "of that kind and length" in " ".join(text.split())


def test_a_sentence_names_the_kind(mixed):
    said = [line for line in summary_lines(mixed) if "held exactly" in line]
    assert [line.split(":")[0] for line in said] == [
        "1 prompt token",
        "2 prompt tokens",
        "prefix of 1 token",
        "prefix of 2 tokens",
    ]


def test_the_page_shows_both_and_no_name_twice(mixed):
    page = render(mixed)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert "Prefix of 2 tokens</h3>" in page
    assert "Stored bits" in page
    assert page.count("<svg") == 2
    assert "Above soft prompts, below prefixes" in page
    assert '<th scope="row">prefix, 1 token</th>' in page
    assert "<code><bdi>witness-prefix-2-tokens</bdi></code>" in page


def test_title_and_heading_name_the_kinds_that_are_there(mixed, make_record):
    def heads(record):
        page = render(record).replace("<bdi>", "").replace("</bdi>", "")
        title, heading = (re.search(rf"<{tag}>(.*?)</{tag}>", page) for tag in ("title", "h1"))
        lead = page.split('class="lead">')[1][:20]
        return f"{title[1]} {heading[1]} {lead}"

    assert "what a soft prompt or a prefix holds" in heads(mixed)
    assert "can a soft prompt or a prefix of" in heads(mixed)
    only = heads({**mixed, "brackets": [b for b in mixed["brackets"] if b.get("kind") == "prefix"]})
    assert "what a prefix holds" in only
    assert "can a prefix of" in only
    assert only.endswith("A prefix is a kind o")
    assert "soft" not in only
    assert "prefix" not in heads(make_record(held={1: 40}))


def test_a_page_without_prefixes_speaks_of_none(make_record):
    page = render(make_record(held={1: 40}))
    assert "prefix" not in page.split("</style>")[1].split("<script")[0].lower().split("base64")[0]
    assert page.count("<svg") == 1


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(0.0, "0"), (0.017199, "0.0171"), (1.0, "1.00"), (0.99999, "0.999"), (5e-7, "0.000000500")],
)
def test_a_ratio_has_three_digits_and_is_never_rounded_up(ratio, text):
    assert wording.ratio_down(ratio) == text


@pytest.mark.parametrize("change", [{"kind": "lora"}, {"stored_bits": 0}, {"stored_bits": 1.5}])
def test_a_kind_that_is_none_is_refused(mixed, change):
    mixed["brackets"][0] |= change
    with pytest.raises(UserError, match=next(iter(change))):
        parsed(mixed)
