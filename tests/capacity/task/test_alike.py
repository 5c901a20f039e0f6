"""Notes on texts that look alike, and on what does not show."""

from __future__ import annotations

import pytest

from promptlimits.capacity.task.pairs import Pair, notes_on_texts


def pairs(*texts: tuple[str, str]) -> list[Pair]:
    return [Pair(key=key, value=value, where=f"f {n}") for n, (key, value) in enumerate(texts, 1)]


def test_ordinary_texts_need_no_note() -> None:
    # Emoji, Persian and Hindi need characters of no width.
    assert notes_on_texts(pairs(("a b", "c"), ("👨‍👩‍👧", "می‌روم"), ("Curaçao", "c"))) == ()


def test_two_unicode_forms_of_a_key() -> None:
    (note,) = notes_on_texts(pairs(("Cura\xe7ao", "a"), ("Curac\u0327ao", "b")))
    assert note == (
        "keys that look like an earlier one, in another Unicode form or with characters that do "
        r"not show: 1, the first are 'Cura\xe7ao', f 1, and 'Curac\u0327ao', f 2"
    )


@pytest.mark.parametrize("hidden", ["\u200b", "\u00ad", "\ufeff", "\u2060", "\u202e"])
def test_characters_that_do_not_show(hidden: str) -> None:
    holds, alike = notes_on_texts(pairs(("ab", "x"), (f"a{hidden}b", "y")))
    assert holds.startswith("keys and values with characters that do not show, kept as they are: 1")
    assert "f 2" in holds
    assert alike.startswith("keys that look like an earlier one")


@pytest.mark.parametrize("second", ["paris", "PARIS", "Ｐaris"])
def test_values_alike_but_for_case_or_form(second: str) -> None:
    (note,) = notes_on_texts(pairs(("a", "Paris"), ("b", second), ("c", "Paris")))
    assert note.startswith("values that differ from an earlier one only in case, white space or")
    assert f": 1, the first are 'Paris', f 1, and {second!a}, f 2" in note


def test_white_space_at_the_ends_makes_keys_alike() -> None:
    ends, alike = notes_on_texts(pairs(("Peru", "a"), ("Peru ", "b")))
    assert ends.startswith("keys and values that begin or end in white space, kept as they are: 1")
    assert alike.startswith("keys that differ from an earlier one only in case, white space")
