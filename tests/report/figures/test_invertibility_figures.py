"""The figures of the invertibility experiments: their numbers, and that they draw."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from promptlimits.report.figures import invertibility_threshold, prompt_norm_growth


def test_threshold() -> None:
    shown = invertibility_threshold.data((0.1, 1.0), (0.4, 0.0), (0.5, 0.2), (0.0, 1e-16))
    assert shown.scales == (0.1, 1.0)
    assert "scale 0.1: 0.4 proved, 0.5 found, 0 at the invertible target" in shown.description
    drawing = shown.svg()
    assert ET.fromstring(drawing).tag.endswith("svg")
    assert "proved for every prompt" in drawing
    assert shown.svg() == drawing


def test_threshold_without_anything_proved() -> None:
    shown = invertibility_threshold.data((1.0,), (0.0,), (0.2,), (0.1,))
    assert ET.fromstring(shown.svg()).tag.endswith("svg")


@pytest.mark.parametrize(
    "numbers",
    [
        ((), (), (), ()),
        ((1.0,), (0.1, 0.2), (0.1,), (0.1,)),
        ((1.0, 1.0), (0.1, 0.2), (0.1, 0.1), (0.1, 0.1)),
    ],
)
def test_threshold_of_lists_that_do_not_fit(numbers: tuple[tuple[float, ...], ...]) -> None:
    with pytest.raises(ValueError, match="scale"):
        invertibility_threshold.data(*numbers)


def test_growth() -> None:
    shown = prompt_norm_growth.data((1.0, 0.1, 0.0), (0.2, 1.0, 3.0), (0.1, 0.9, 2.0), 0.5)
    assert shown.left_at == 1
    assert "step 2: loss 0, norm 3" in shown.description
    assert "longer from step 1 on" in shown.description
    drawing = shown.svg()
    assert ET.fromstring(drawing).tag.endswith("svg")
    assert "spectral norm of the prompt" in drawing
    assert prompt_norm_growth.data((1.0, 0.5), (1.0, 2.0), (0.1, 0.2), 5.0).left_at is None
    with pytest.raises(ValueError, match="two steps"):
        prompt_norm_growth.data((1.0,), (1.0,), (1.0,), 1.0)
