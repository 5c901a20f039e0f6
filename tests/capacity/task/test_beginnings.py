"""A text as the list of its beginnings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from promptlimits.capacity.task.beginnings import Beginnings, beginnings, trained_for, unit_of
from promptlimits.capacity.task.random_tokens import random_pairs
from promptlimits.capacity.task.resolve import load_task

TEXT = "once upon"


@pytest.fixture
def text(codec: Any, tmp_path: Path) -> Beginnings:
    (tmp_path / "f").write_text(TEXT, encoding="utf-8")
    found = beginnings(load_task(f"text:{tmp_path / 'f'}", codec), codec)
    assert found is not None
    return found


def test_there_is_one_for_each_token_and_the_last_alone_is_ended(
    text: Beginnings, codec: Any
) -> None:
    assert len(text) == len(TEXT)
    for number, pair in enumerate(text, start=1):
        ended = (codec.end_id,) if number == len(TEXT) else ()
        assert pair.value_ids == (*map(ord, TEXT[:number]), *ended)
        assert (pair.value, pair.key) == (TEXT[:number], "^")
    assert text[-1] == text.longest
    with pytest.raises(IndexError):
        text[len(TEXT)]


def test_the_first_of_them_are_beginnings_again(text: Beginnings, codec: Any) -> None:
    first = text[:4]
    assert isinstance(first, Beginnings)
    assert list(first) == list(text)[:4]
    assert codec.end_id not in first.longest.value_ids
    assert text[: len(TEXT)] == text
    assert list(text[2:4]) == list(text)[2:4]
    assert list(text[:0]) == []


def test_the_longest_is_trained_for_and_tokens_are_counted(text: Beginnings, codec: Any) -> None:
    assert trained_for(text[:4]) == (text[3],)
    assert (unit_of(text), unit_of([text.longest])) == ("tokens", "pairs")
    pairs = random_pairs(codec, count=3, seed=0)
    assert beginnings(pairs, codec) is None
    assert trained_for(pairs.pairs) == pairs.pairs


@pytest.mark.parametrize(
    ("in_a_row", "of_four", "of_all"), [(0, 0, 0), (3, 3, 3), (4, 4, 4), (8, 4, 8), (9, 4, 8)]
)
def test_the_last_token_of_a_text_counts_with_its_end_marker(
    in_a_row: int, of_four: int, of_all: int, text: Beginnings
) -> None:
    assert text.held_by(in_a_row) == tuple(range(of_all))
    assert text.held_by(10) == tuple(range(9))
    first = text[:4]
    assert isinstance(first, Beginnings)
    assert first.held_by(min(in_a_row, 4)) == tuple(range(of_four))
