"""The figures of the papers' questions: their numbers, what they refuse, and that they draw."""

import math
import xml.etree.ElementTree as ET

import pytest

from promptlimits.report.figures import reachable_segment
from promptlimits.report.figures.invertibility_threshold import InvertibilityThreshold
from promptlimits.report.figures.prompt_error import PromptError
from promptlimits.report.figures.prompt_norm_growth import PromptNormGrowth
from promptlimits.report.figures.universal_prompt import UniversalPrompt

THRESHOLD = InvertibilityThreshold((0.1, 1.0), (0.4, 0.0), (0.5, 0.2), (0.0, 1e-16))
GROWTH = PromptNormGrowth((1.0, 0.1, 0.0), (0.2, 1.0, 3.0), (0.1, 0.9, 2.0), 0.5)
ERRORS = PromptError((1, 2, 64), (0.5, 0.25, math.pi), (0.2, 0.1, 0), name="a < b")
MAP = UniversalPrompt(
    [0, 1, 2], [0, 0.5, 0], [0.1, 0.4, 0],
    name="a < b", bound=0.2, largest_error=0.1, prompt_tokens=1_234,
)  # fmt: skip
SEGMENT = reachable_segment.data(
    [1, 0, 0], [1, 4, 0], [1, 1, 2], {8: [(0.25, 0.5)], 1: [(0.5, 0.5)], 2: []}
)
PARTS = ("a < b by a prompt", "proved: within this band", "the map", "behind the prompt")


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (THRESHOLD, ["proved for every prompt"]),
        (InvertibilityThreshold((1.0,), (0.0,), (0.2,), (0.1,)), ["invertible target, found"]),
        (GROWTH, ["spectral norm of the prompt"]),
        (ERRORS, ["prompt tokens", "a < b"]),
        (SEGMENT, ["8 prompt tokens", "second target, 2 away"]),
        (MAP, PARTS),
    ],
)
def test_it_is_drawn_the_same_every_time_and_says(shown, words):
    drawing = shown.svg()
    assert shown.svg() == drawing
    root = ET.fromstring(drawing)
    assert root.tag.endswith("svg")
    text = " ".join(root.itertext())
    for word in (*words, shown.title, shown.description):
        assert word in text


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (THRESHOLD, "scale 0.1: 0.4 proved, 0.5 found, 0 at the invertible target"),
        (GROWTH, "step 2: loss 0, norm 3"),
        (GROWTH, "longer from step 1 on"),
        (ERRORS, "1 prompt tokens: 0.5 found, 0.2 proved"),
        (SEGMENT, "2 prompt tokens: nothing"),
        (MAP, "largest error found 0.1, proved to be at most 0.2"),
        (MAP, "at 3 inputs from 0 to 2"),
    ],
)
def test_the_description_holds_the_numbers(shown, words):
    assert words in shown.description


def test_what_was_not_found_is_not_told():
    assert "found" not in PromptError((1,), (), (0.2,), name="error").description
    assert MAP.title == "a < b by a prompt of 1,234 tokens"


def test_the_first_token_beyond_the_limit():
    assert GROWTH.left_at == 1
    assert PromptNormGrowth((1.0, 0.5), (1.0, 2.0), (0.1, 0.2), 5.0).left_at is None


def test_the_geometry_of_a_segment():
    assert (SEGMENT.length, SEGMENT.target, SEGMENT.distance) == (4, (1, 2), 2)
    assert SEGMENT.parts == ((1, ((2, 2),)), (2, ()), (8, ((1, 2),)))
    for end in ([3, 0], [0, 0]):
        beyond = reachable_segment.data([0, 0], end, [end[0] + 3, 4], {})
        assert beyond.distance == pytest.approx(5)


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: InvertibilityThreshold((), (), (), ()), "scale"),
        (lambda: InvertibilityThreshold((1.0,), (0.1, 0.2), (0.1,), (0.1,)), "scale"),
        (lambda: InvertibilityThreshold((1.0, 1.0), (0.1, 0.2), (0.1, 0.1), (0.1, 0.1)), "scale"),
        (lambda: PromptNormGrowth((1.0,), (1.0,), (1.0,), 1.0), "two steps"),
        (lambda: PromptError((1, 2), (0.5,), (0.2, 0.1), "error"), "lengths"),
        (lambda: PromptError((), (), (), "error"), "lengths"),
        (lambda: PromptError((2, 1), (), (0.2, 0.1), "error"), "lengths"),
    ],
)
def test_lists_that_do_not_fit_are_refused(make, rule):
    with pytest.raises(ValueError, match=rule):
        make()
