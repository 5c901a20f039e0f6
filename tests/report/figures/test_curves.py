"""Curves: their numbers in words, their files, and what does not fit."""

import re

import pytest

from promptlimits.report.figures.curves import Curve, Curves

MEASURED = Curve(
    name="measured", sort="estimated", across=(1, 2, 3), up=(0.5, 0.05, 0.0), low=(0.4, 0.04, 0.0),
    high=(0.6, 0.06, 0.01),
)  # fmt: skip
BOUND = Curve(name="bound", sort="proved", across=(1, 2, 3), up=(1, 0.2, 0.02), marks=False)


def drawing(**changes):
    given = {"name": "Shares", "below": "k", "beside": "share", "curves": (MEASURED, BOUND)}
    return Curves(**(given | changes))


def test_every_number_is_in_the_words():
    words = drawing().description
    assert "measured, estimated: k 1: 0.5 (0.4 to 0.6), k 2: 0.05 (0.04 to 0.06)" in words
    assert "bound, proved: k 1: 1, k 2: 0.2, k 3: 0.02." in words


@pytest.mark.parametrize("log_scale", [False, True])
def test_it_is_drawn_with_the_names_of_the_curves(log_scale):
    svg = drawing(log_scale=log_scale, whole=True).svg()
    for word in ("measured", "bound", "Shares", "share"):
        assert re.search(f">{word}<", svg), word


@pytest.mark.parametrize(
    ("form", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG")]
)
def test_the_same_data_give_the_same_bytes(form, start):
    first, second = (drawing().file(form) for _ in range(2))
    assert first == second
    assert first.startswith(start)


def test_lists_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one of each"):
        Curve(name="x", sort="found", across=(1, 2), up=(1,))
    with pytest.raises(ValueError, match="one of each"):
        Curve(name="x", sort="found", across=(1,), up=(1,), low=(0,), high=())
