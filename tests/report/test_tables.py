import pytest
from tests.report.views import printed, summary_lines


def test_every_number_carries_its_status(record):
    text = printed(record)
    for words in ("40 found", "2,329 proved", "71 found", "4,655 proved", "200 measured"):
        assert words in text
    for words in ("SyntheticLM-135M: 246 capitals", "316.9", "no prompt", "in context (246"):
        assert words in text


def test_the_row_of_a_length(record):
    (row,) = [line.split() for line in printed(record).splitlines() if "1 token" in line]
    assert row == ["1", "token", "40", "found", "2,329", "proved", "316.9", "100.2"]


def test_the_ceilings_are_said_to_be_about_random_lists_but_for_a_share(record):
    text = " ".join(printed(record).split())
    assert "ceiling for" in text
    assert "random lists*" in text
    assert (
        "* random lists longer than this cannot be answered by any prompt of that length "
        "(proved, but for at most 1 in 1,048,576 of them); never about these facts" in text
    )


@pytest.mark.parametrize(("drawn", "words"), [(True, "bits per"), (False, "list bits per")])
def test_bits_of_facts_are_those_of_the_list(record, drawn, words):
    record["task"]["answers_random"] = drawn
    text = printed(record)
    assert words in text
    assert ("list bits" in text) is not drawn
    assert ("these facts" in text) is not drawn


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_it_fits_80_columns_with_large_numbers(make_record, encoding):
    record = make_record(held={1: 246, 1024: 246})
    record["brackets"][1]["ceiling"]["pairs"] = 12_345_678
    record["brackets"][1]["seconds"] = 123_456.7
    text = printed(record, encoding=encoding)
    assert max(map(len, text.splitlines())) <= 80
    for words in ("12,345,678 proved", "1,024 tokens", "123,456.7"):
        assert words in text


def test_ascii_is_enough(record):
    record["model"]["name"] = "Mod\u00e8le \U0001f600"
    text = printed(record, encoding="ascii")
    assert "Mod\\xe8le \\U0001f600" in text
    assert "40 found" in text


def test_hostile_names_cannot_act_on_the_terminal(record):
    record["model"]["name"] = "\x1b[2J[bold red]name[/]"
    record["baselines"][0]["name"] = "\x1b]0;title\x07"
    text = printed(record)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold red]name[/]" in text


def test_a_task_without_a_ceiling(record):
    for bracket in record["brackets"]:
        bracket["ceiling"]["pairs"] = None
    assert "none" in printed(record)
    assert "cannot be answered" not in printed(record)


def test_summary_lines(record):
    record["brackets"][0]["floor"]["confirmed_by"] = "other\x1btool"
    first, second = summary_lines(record)
    assert first.startswith("1 prompt token: 40 of 246 capitals held exactly (found, confirmed by")
    assert "\x1b" not in first
    assert second.startswith("2 prompt tokens: 71 of 246")


def test_without_baselines(record):
    record["baselines"] = []
    assert "measured" not in printed(record)
