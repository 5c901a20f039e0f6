"""The drawings of one layer: their numbers, and that they are drawn."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import pytest

from promptlimits.report.figures import prompt_error, reachable_segment


def test_segment_data() -> None:
    shown = reachable_segment.data(
        [1, 0, 0], [1, 4, 0], [1, 1, 2], {8: [(0.25, 0.5)], 1: [(0.5, 0.5)], 2: []}
    )
    assert shown.length == 4
    assert shown.target == (1, 2)
    assert shown.distance == 2
    assert shown.parts == ((1, ((2, 2),)), (2, ()), (8, ((1, 2),)))
    assert "2 prompt tokens: nothing" in shown.description
    beyond = reachable_segment.data([0, 0], [3, 0], [6, 4], {})
    assert beyond.distance == pytest.approx(5)
    point = reachable_segment.data([0, 0], [0, 0], [3, 4], {})
    assert point.distance == pytest.approx(5)


def test_error_data() -> None:
    shown = prompt_error.data((1, 2), (0.5, 0.25), (0.2, 0.1), name="error")
    assert "1 prompt tokens: 0.5 found, 0.2 proved" in shown.description
    assert "found" not in prompt_error.data((1,), (), (0.2,), name="error").description
    for wrong in (((1, 2), (0.5,), (0.2, 0.1)), ((), (), ()), ((2, 1), (), (0.2, 0.1))):
        with pytest.raises(ValueError, match="lengths"):
            prompt_error.data(*wrong, name="error")


def test_they_are_drawn_the_same_every_time() -> None:
    lines = prompt_error.data((1, 2, 64), (0.5, 0.25, math.pi), (0.2, 0.1, 0), name="a < b")
    parts = reachable_segment.data(
        [1, 0, 0], [1, 4, 0], [1, 1, 2], {1: [(0.5, 0.5)], 8: [(0.25, 0.5)]}
    )
    for drawn, again in (
        (lines.svg(), lines.svg()),
        (parts.svg(), parts.svg()),
    ):
        assert drawn == again
        root = ET.fromstring(drawn)
        assert root.tag.endswith("svg")
        assert "prompt" in "".join(root.itertext())
