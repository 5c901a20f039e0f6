"""What is asked of a prompt: a list in an order, or a text by its beginnings."""

from dataclasses import replace

import pytest

from promptlimits.capacity.task.random_tokens import random_pairs
from promptlimits.capacity.task.resolve import load_task

TEXT = "once upon"


@pytest.fixture
def text(codec, tmp_path):
    (tmp_path / "f").write_text(TEXT, encoding="utf-8")
    return load_task(f"text:{tmp_path / 'f'}", codec).targets


@pytest.fixture
def pairs(codec):
    return random_pairs(codec, count=4, value_tokens=2, seed=0).targets


def test_a_text_has_a_beginning_for_each_token_and_the_last_alone_is_ended(text, codec):
    assert len(text) == len(TEXT)
    for index in range(len(TEXT)):
        said, ended = TEXT[: index + 1], (codec.end_id,) if index + 1 == len(TEXT) else ()
        pair = text.member(index)
        assert (pair.key, pair.value) == ("^", said)
        assert pair.value_ids == (*map(ord, said), *ended)
        assert text.is_beginning((index,)) == (not ended)
        # The beginning is trained for alone.
        first = text.first(index + 1)
        assert (len(first), first.trained) == (index + 1, (pair,))


@pytest.mark.parametrize(
    ("right", "of_four", "of_all"), [(0, 0, 0), (3, 3, 3), (4, 4, 4), (8, 4, 8), (9, 4, 8)]
)
def test_the_last_token_of_a_text_counts_with_its_end_marker(right, of_four, of_all, text):
    assert text.held([right]) == tuple(range(of_all))
    assert text.held([10]) == tuple(range(9))
    first = text.first(4)
    assert first.held([min(right, 4)]) == tuple(range(of_four))
    assert first.held_in_training((), min(right, 4)) == tuple(range(of_four))
    assert first.held_in_training((0,), 4) == (0, 1, 2, 3)


def test_a_list_is_held_pair_by_pair_in_any_order(pairs):
    other = replace(pairs, order=(2, 0, 3, 1))
    assert other.trained == tuple(pairs.every[index] for index in (2, 0, 3, 1))
    assert other.first(2).order == (2, 0)
    # Of each pair in that order, the tokens that come; three with the end marker are all.
    assert other.held([3, 2, 3, 3]) == (2, 3, 1)
    # A list that was not asked to its end.
    assert other.held([3, 3]) == (2, 0)
    assert other.held_in_training((1, 2), 0) == (0, 3)
    assert other.held_first((3, 1)).order == (3, 1, 2, 0)
    assert other.shown((0, 1, 2)) == (2, 0, 1)


def test_what_is_counted_and_what_it_is_called(pairs, text):
    assert (pairs.units, text.units) == ("pairs", "tokens")
    assert (pairs.own_order, text.own_order) == (None, "from the first token on")
    assert (pairs.count((1, 3)), text.count((0, 1, 2)), text.count((4,))) == (2, 3, 5)
    assert (pairs.tokens((1, 3)), text.tokens((0, 1, 2))) == (None, 3)
    assert [text.pairs(tuple(range(held))) for held in (0, 8, 9)] == [0, 0, 1]
    assert pairs.tally(2, "exact") == "2 of 4 pairs exact"
    assert text.tally(2, "exact") == "2 of 9 tokens exact, from the first on"


def test_a_text_claims_its_longest_beginning_and_less_where_less_was_written(pairs, text):
    held = (0, 1, 2, 3, 4)
    assert (pairs.claim(held[:3]), text.claim(held)) == ((0, 1, 2), (4,))
    wanted = text.member(4).value_ids
    for written, smaller in ((5, ()), (3, (2,)), (1, (0,)), (0, ())):
        generated = [(*wanted[:written], 0, 0)[:5]]
        assert text.smaller_claim((4,), generated) == smaller
    assert pairs.smaller_claim((0, 1), [(1,), (2,)]) == ()
