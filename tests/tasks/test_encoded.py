"""Pairs as token ids, the set of answers, and what a model's tokenizer cannot take."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from promptlimits.errors import UserError
from promptlimits.tasks.encoded import encode, require_fits
from promptlimits.tasks.pairs import Pair, PairTask


def task(*pairs: tuple[str, str]) -> PairTask:
    return PairTask(
        name="t",
        pairs=tuple(
            Pair(key=key, value=value, where=f"t.csv line {line}")
            for line, (key, value) in enumerate(pairs, start=2)
        ),
        source="file t.csv",
        notes=("a note",),
    )


def refused(call: Any, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert " must " in message
    assert "; " in message
    for word in words:
        assert word in message


def test_encode(codec: Any) -> None:
    encoded = encode(task(("ab", "x"), ("c", "yz"), ("d", "x")), codec)
    first = encoded.pairs[0]
    assert first.key_ids == (97, 98)
    assert first.value_ids == (120, codec.end_id)
    assert first.input_ids == (97, 98, 120)
    assert encoded.answer_set_size == 2
    assert encoded.answer_set_text == "the 2 distinct values of the list"
    assert encoded.answers_random is False
    assert encoded.places == ("t.csv line 2", "t.csv line 3", "t.csv line 4")
    assert encoded.notes == ("a note",)
    assert encoded.source == "file t.csv"


def test_values_alike_as_tokens_count_once(codec_class: Any) -> None:
    encoded = encode(task(("a", "x"), ("b", "x~")), codec_class(silent="~"))
    assert encoded.answer_set_size == 1
    assert "'x~' to 'x'" in encoded.notes[-1]
    assert encoded.notes[-1].startswith("1 values change")


def test_hash_is_over_ids_in_order(codec: Any) -> None:
    one = encode(task(("ab", "x"), ("c", "y")), codec)
    assert one.hash == encode(task(("ab", "x"), ("c", "y")), codec).hash
    others = [
        task(("c", "y"), ("ab", "x")),  # order
        task(("a", "bx"), ("c", "y")),  # the same characters, cut elsewhere
        task(("ab", "x"), ("c", "z")),
        task(("ab", "x")),
    ]
    assert len({one.hash, *(encode(other, codec).hash for other in others)}) == 5
    ids = b"[[[97,98],[120,124]],[[99],[121,124]]]"
    assert one.hash == hashlib.sha256(ids).hexdigest()


def test_value_without_tokens(codec_class: Any) -> None:
    codec = codec_class(silent="~")
    refused(lambda: encode(task(("a", "b"), ("c", "~~")), codec), "t.csv line 3: value", "'~~'")


def test_key_without_tokens(codec_class: Any) -> None:
    codec = codec_class(silent="~")
    refused(lambda: encode(task(("~", "b")), codec), "t.csv line 2: key", "at least one token")


def test_value_with_the_end_marker(codec: Any) -> None:
    refused(lambda: encode(task(("a", "b|")), codec), "t.csv line 2: value", "end marker", "'b|'")


def test_keys_alike_as_tokens(codec_class: Any) -> None:
    refused(
        lambda: encode(task(("Ab", "x"), ("c", "y"), ("aB", "z")), codec_class(fold=True)),
        "t.csv line 4: key",
        "'aB'",
        "'Ab' of t.csv line 2",
    )


@pytest.mark.parametrize("template", ["", "key:", "{key}{key}", "a\nb"])
def test_bad_template(codec: Any, template: str) -> None:
    refused(lambda: encode(task(("a", "b")), codec, template=template), "template", "exactly once")


def test_braces_in_a_key_are_text(codec: Any) -> None:
    encoded = encode(task(("{key}", "b"), ("{0}", "c")), codec, template="<{key}>")
    assert [pair.key for pair in encoded.pairs] == ["<{key}>", "<{0}>"]


def test_fits(codec: Any) -> None:
    encoded = encode(task(("a", "b"), ("abc", "xy")), codec)
    # The longest pair reads 3 + 2 tokens; the end marker is never an input.
    require_fits(encoded, context_length=9, prompt_tokens=4)
    refused(
        lambda: require_fits(encoded, context_length=8, prompt_tokens=4),
        "t.csv line 3",
        "context of 8 tokens",
        "5 tokens behind 4 prompt tokens, 9 together",
    )
