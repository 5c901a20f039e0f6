import itertools
import math
import re
from xml.etree import ElementTree

import matplotlib
import pytest
from matplotlib.figure import Figure
from tests.report.views import data


def words(drawing):
    return "".join(ElementTree.fromstring(drawing).itertext())


def test_data(record):
    shown = data(record)
    assert shown.prompt_tokens == (1, 2)
    assert shown.floors == (40, 71)
    assert shown.ceilings == (2329, 4655)
    assert shown.levels == (("no prompt", 3), ("in context", 200), ("whole list", 246))
    assert shown.title == "Pairs held against prompt length, 246 capitals"
    assert shown.share == "1 in 1,048,576"
    assert "1 prompt token: floor 40 found, ceiling for random lists 2,329 proved" in (
        shown.description
    )
    assert "proved, but for at most 1 in 1,048,576" in shown.description
    assert "in context: 200" in shown.description


def test_data_without_a_ceiling(record):
    for bracket in record["brackets"]:
        bracket["ceiling"]["pairs"] = None
    shown = data(record)
    assert shown.ceilings == ()
    assert "no ceiling" in shown.description
    assert "cannot be answered" not in words(shown.inline())
    assert "cannot be answered" not in shown.description


def test_the_label_of_the_ceilings_is_about_random_lists_but_for_a_share(record):
    drawn = words(data(record).inline())
    assert "proved: random lists longer than this" in drawn
    assert "cannot be answered (but for 1 in 1,048,576)" in drawn


@pytest.mark.parametrize("lengths", [(1,), (1, 2), (2, 4, 8), (8, 9), (1, 1024, 1025)])
def test_nothing_is_proved_off_the_lengths_that_were_asked(make_record, lengths):
    """The ceiling between two lengths, or past the last, is another: no wash, no line there."""
    axes = Figure().add_subplot()
    data(make_record(held=dict.fromkeys(lengths, 3))).draw(axes)
    places = [math.log2(length) for length in lengths]
    left, right = axes.get_xlim()
    washes = [wash.get_paths()[0].get_extents() for wash in axes.collections]
    bars = [line.get_xdata() for line in axes.lines if line.get_linewidth() == 2.4]
    bars = [bar for bar in bars if bar[0] != bar[1]]
    assert len(washes) == len(bars) == len(lengths)
    for place, wash, bar in zip(places, washes, bars, strict=True):
        assert (wash.x0 + wash.x1) / 2 == pytest.approx(place)
        assert [wash.x0, wash.x1] == pytest.approx(list(bar))
        assert wash.x1 - wash.x0 <= 0.13 * (right - left)


@pytest.mark.parametrize(
    "held", [{1: 0}, {1: 40}, {1: 40, 2: 71}, {8: 3, 9: 4}, {2**i: 9 * i for i in range(9)}]
)
def test_it_draws(make_record, held):
    drawing = data(make_record(held=held)).inline()
    text = words(drawing)
    assert "prompt tokens" in text
    assert "whole list: 246" in text
    assert f"{next(iter(held.values()))}" in text


def test_it_draws_on_axes_that_somebody_else_made(record):
    axes = Figure().add_subplot()
    data(record).draw(axes)
    assert axes.get_xlabel() == "prompt tokens"
    bottom, top = axes.get_ylim()
    assert bottom < 0 < 4655 < top


def test_marks_stand_at_the_numbers(record):
    axes = Figure().add_subplot()
    data(record).draw(axes)
    floors = [line for line in axes.lines if line.get_marker() == "o"]
    assert [list(line.get_ydata()) for line in floors] == [[40], [71]]
    assert [list(line.get_xdata()) for line in floors] == [[0], [1]]
    level = [line for line in axes.lines if len(set(line.get_xdata())) == 2]
    heavy = [line.get_ydata() for line in level if line.get_linewidth() == 2.4]
    assert [list(ends) for ends in heavy] == [[2329, 2329], [4655, 4655]]


def test_the_scale_is_logarithmic_above_one_and_shows_zero(record):
    axes = Figure().add_subplot()
    data(record).draw(axes)
    zero, *decades = (float(axes.transData.transform((0, y))[1]) for y in (0, 1, 10, 100, 1000))
    steps = [b - a for a, b in itertools.pairwise(decades)]
    assert steps == pytest.approx([steps[0]] * 3)
    assert 0 < decades[0] - zero < steps[0]


def test_names_of_close_levels_do_not_overlap(record):
    record["baselines"][1]["pairs"] = 244
    drawing = ElementTree.fromstring(data(record).inline())
    heights = {
        "".join(group.itertext()).strip(): float(text.get("y") or 0)
        for group in drawing.iter("g")
        for text in group.findall("text")
    }
    near = [heights[name] for name in ("in context: 244", "whole list: 246")]
    # 9.5 points of type; the view box counts in points.
    assert near[0] - near[1] >= 9.5


def test_the_same_data_give_the_same_bytes_and_leave_no_setting_behind(record):
    before = dict(matplotlib.rcParams)
    first = data(record).inline()
    assert data(record).inline() == first
    assert dict(matplotlib.rcParams) == before
    assert not re.search(r"\d{4}-\d{2}-\d{2}T", first)


def test_it_scales_speaks_and_follows_the_page(record):
    drawing = data(record).inline()
    root = ElementTree.fromstring(drawing)
    assert root.get("viewBox") == "0 0 360 309.6"
    assert root.get("width") is None
    assert root.get("role") == "img"
    ids = {element.get("id") for element in root.iter()}
    assert set(root.get("aria-labelledby").split()) <= ids
    assert [child.tag for child in root][:2] == ["title", "desc"]
    for name in ("--ink", "--muted", "--rule", "--found", "--proved", "--proved-wash"):
        assert f"var({name}, #" in drawing
    # A colour outside the palette would not follow the dark page.
    bare = re.sub(r"var\(--[a-z-]+, #[0-9a-f]{6}\)", "", drawing)
    assert not re.findall(r"#[0-9a-f]{6}(?![0-9a-f])", bare)
    assert "http" not in drawing
    assert "<style" not in drawing


def test_hostile_names_are_text(record):
    record["baselines"][0]["name"] = "</svg><script>$x$\u202e\U0001f600"
    drawing = data(record).inline()
    assert "<script" not in drawing
    assert "&lt;/svg&gt;&lt;script" in drawing
