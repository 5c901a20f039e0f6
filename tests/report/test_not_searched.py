"""What was not searched for is told from a measured zero, in every view of a record."""

import pytest
from matplotlib.figure import Figure
from tests.report.views import data, parsed, printed, render, summary_lines

from promptlimits.base.errors import RunFailed

GO_ON = "promptlimits bracket --out 'a b' --budget 480"


@pytest.fixture
def cut(make_record):
    """One token with 40 pairs, two tokens of which the budget left nothing."""
    record = make_record(held={1: 40, 2: 0})
    late = record["brackets"][1]
    late |= {
        "state": "not_searched",
        "complete": False,
        "stopped_because": "the budget was used up",
    }
    late["floor"]["status"] = "not measured"
    late["search"] = late["search"][:1]
    late["search"][0] |= {"steps": 5, "held": 0, "outcome": "out_of_budget"}
    context = record["baselines"][1]
    context |= {"status": "not measured", "pairs": None, "asked": 100, "note": ""}
    return {**record, "complete": False, "go_on": GO_ON}


def test_the_table_says_not_searched_and_not_measured(cut):
    lines = [line.split() for line in printed(cut).splitlines()]
    assert ["2", "tokens", "not", "searched", "4,655", "proved", "-", "200.5"] in lines
    assert "not measured" in printed(cut)
    assert " 0 found" not in printed(cut)


def test_the_sentence_is_a_banner(cut):
    held, late = summary_lines(cut)
    assert "40 of 246 capitals held exactly" in held
    assert late.startswith(
        "2 prompt tokens: NOT SEARCHED: the budget was used up after 5 training steps; of random"
    )


def test_the_figure_has_no_point_for_it(cut):
    shown = data(cut)
    assert shown.floors == (40, None)
    assert "2 prompt tokens: not searched, ceiling for random lists 4,655" in shown.description
    # Nothing was searched for, so no search is at its limit.
    assert shown.fewer == (False, False)
    assert "fewer than" not in shown.description
    assert [name for name, _ in shown.levels] == ["no prompt", "whole list"]
    axes = Figure().add_subplot()
    shown.draw(axes)
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in marks] == [([0], [40])]
    assert ">not searched<" in shown.inline()


def test_the_page_says_so_and_how_to_go_on(cut):
    page = render(cut)
    assert '<span class="tag">Not searched</span>' in page
    assert "this is no measured zero" in page
    assert "not measured, the budget was used up after 100 of 246 pairs" in page
    assert "promptlimits bracket --out &#39;a b&#39; --budget 480" in page
    assert "Nothing was searched for, so there is no floor." in page


def test_a_search_that_found_nothing_is_a_zero(make_record):
    record = make_record(held={1: 0})
    assert [each.searched for each in parsed(record).brackets] == [True]
    assert " 0 found" in printed(record)
    assert data(record).floors == (0,)


def test_a_longer_prompt_that_holds_fewer_says_that_the_search_is_the_limit(make_record):
    record = make_record(held={1: 40, 2: 12, 4: 50})
    _, fewer, more = summary_lines(record)
    assert "confirmed by stock PEFT), fewer than the 40 of 1 prompt token: the search" in fewer
    assert "fewer than" not in more
    shown = data(record)
    assert shown.fewer == (False, True, False)
    assert "floor 12 found, ceiling for random lists 4,655 proved, fewer than the 40" in (
        shown.description
    )
    assert ">the search\u2019s limit<" in shown.inline()
    page = render(record)
    assert "Fewer than the 40 of 1 prompt token: the search found no prompt of this" in page


@pytest.mark.parametrize(
    ("part", "change"),
    [("bracket", {"state": "found"}), ("floor", {"status": "found"}), ("floor", {"pairs": 3})],
)
def test_a_state_that_its_numbers_contradict_is_refused(part, change, cut):
    late = cut["brackets"][1]
    late |= change if part == "bracket" else {"floor": {**late["floor"], **change}}
    with pytest.raises(RunFailed, match="contradicts itself"):
        parsed(cut)
