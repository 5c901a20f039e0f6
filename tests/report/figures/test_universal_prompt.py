"""The drawing of a map and its network: its numbers, and that it is drawn."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from promptlimits.report.figures import universal_prompt


def shown() -> universal_prompt.UniversalPromptData:
    return universal_prompt.data(
        [0, 1, 2],
        [0, 0.5, 0],
        [0.1, 0.4, 0],
        name="a < b",
        bound=0.2,
        largest_error=0.1,
        prompt_tokens=1_234,
    )


def test_data() -> None:
    found = shown()
    assert found.title == "a < b by a prompt of 1,234 tokens"
    assert "largest error found 0.1, proved to be at most 0.2" in found.description
    assert "at 3 inputs from 0 to 2" in found.description
    assert found.answered == (0.1, 0.4, 0)


def test_it_is_drawn_the_same_every_time() -> None:
    first = shown().svg()
    assert first == shown().svg()
    root = ET.fromstring(first)
    words = " ".join(root.itertext())
    for part in ("a < b by a prompt", "proved: within this band", "the map", "behind the prompt"):
        assert part in words
