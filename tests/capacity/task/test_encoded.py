"""Pairs as token ids, the set of answers, and what a model's tokenizer cannot take."""

from dataclasses import fields, replace

import pytest

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.form import Asking
from promptlimits.capacity.task.encoded import encode, require_fits
from promptlimits.capacity.task.pairs import Pair, PairTask
from promptlimits.capacity.task.resolve import load_task
from promptlimits.capacity.task.text import TextTask


def task(*pairs):
    return PairTask(
        name="t",
        pairs=tuple(
            Pair(key=key, value=value, where=f"t.csv line {line}")
            for line, (key, value) in enumerate(pairs, start=2)
        ),
        source="file t.csv",
        notes=("a note",),
    )


def refused(call, *words):
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert " must " in message
    assert "; " in message
    for word in words:
        assert word in message


def test_encode(codec):
    encoded = encode(task(("ab", "x"), ("c", "yz"), ("d", "x")), codec)
    first = encoded.pairs[0]
    assert first.key_ids == (97, 98)
    assert (first.joiner, first.value_ids) == (" ", (32, 120, codec.end_id))
    assert first.input_ids == (97, 98, 32, 120)
    assert encoded.answer_set_size == 2
    assert encoded.answer_set_text == "the 2 distinct values of the list"
    assert encoded.answers_random is False
    assert encoded.places == ("t.csv line 2", "t.csv line 3", "t.csv line 4")
    assert encoded.notes == ("a note", "a space stands between key and value")
    assert encoded.source == "file t.csv"


def test_values_alike_as_tokens_count_once(codec_class):
    encoded = encode(task(("a", "x"), ("b", "x~")), codec_class(silent="~"))
    assert encoded.answer_set_size == 1
    assert "'x~' to 'x'" in encoded.notes[-1]
    assert encoded.notes[-1].startswith("1 values change")


def test_the_hash_tells_apart_all_that_decides_a_result(codec):
    one = encode(task(("ab", "x"), ("c", "y")), codec)
    assert one.hash == encode(task(("ab", "x"), ("c", "y")), codec).hash
    others = [
        task(("c", "y"), ("ab", "x")),  # order
        task(("a", "bx"), ("c", "y")),  # the same characters, cut elsewhere
        task(("ab", "x"), ("c", "z")),
        task(("ab", "x")),
        accepting(("ab", "x", ["z"]), ("c", "y", [])),
        accepting(("ab", "x", ["w"]), ("c", "y", [])),
        accepting(("ab", "x", ["z", "w"]), ("c", "y", [])),
        task(("ab", " x"), ("c", " y")),  # the same tokens, the space being the value's own
    ]
    hashes = {one.hash, *(encode(other, codec).hash for other in others)}
    hashes.add(encode(task(("ab", "x"), ("c", "y")), codec, Asking(joiner="")).hash)
    assert len(hashes) == len(others) + 2


def accepting(*pairs):
    plain = task(*((key, value) for key, value, _ in pairs))
    found = zip(plain.pairs, pairs, strict=True)
    return replace(
        plain, pairs=tuple(replace(pair, also=tuple(also)) for pair, (_, _, also) in found)
    )


def test_other_accepted_answers_are_encoded_once_each(codec_class):
    codec = codec_class(silent="~")
    encoded = encode(accepting(("k", "x", ["yz", "x", "x~", "yz", "w"]), ("l", "x", [])), codec)
    first, second = encoded.pairs
    assert first.value_ids == (32, 120, codec.end_id)
    assert first.also == (
        ("yz", (32, 121, 122, codec.end_id)),
        ("w", (32, 119, codec.end_id)),
    )
    assert second.also == ()
    assert "1 pair has further answers that count as well; the first is trained for" in (
        encoded.notes
    )
    assert encoded.answer_set_size == 1
    assert [pair.value for pair in first.answers] == ["x", "yz", "w"]
    assert [pair.value_ids for pair in first.answers[1:]] == [ids for _, ids in first.also]
    # The longest answer that counts has to fit, whichever is trained for.
    assert first.longest == 1 + 3
    require_fits(encoded, context_length=9, prompt_tokens=4)
    refused(lambda: require_fits(encoded, context_length=8, prompt_tokens=4), "t.csv line 2")
    refused(lambda: encode(accepting(("k", "x", ["a|"])), codec), "end marker", "'a|'")
    refused(lambda: encode(accepting(("k", "x", ["~"])), codec), "at least one token", "'~'")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("def f():\n", "    return 1\n"),
        ("a ", "b"),
        ("a", "\tb "),
        ("a\u00a0", "b"),
        ("日本", "東京"),
        ("Japan:", "東京"),
        ("日本", "Tokyo"),
        ("首都：", "Paris"),
        ("ไทย", "กรุงเทพฯ"),
        ("k:", "ﾄｳｷｮｳ"),
        ("k", "ភ្នំពេញ"),
        ("k", "རྒྱལ་ས"),
        ("k", "「東京」"),
    ],
)
def test_no_space_is_put_where_none_belongs(codec, key, value):
    encoded = encode(task((key, value)), codec)
    (pair,) = encoded.pairs
    assert (pair.key, pair.joiner, pair.value) == (key, "", value)
    assert pair.input_ids == tuple(map(ord, key + value))
    assert encoded.notes == ("a note", "nothing stands between key and value")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("France:", "Paris"),
        ("مصر", "القاهرة"),
        ("भारत", "नई दिल्ली"),
        ("한국", "서울"),
        ("Ελλάδα", "Αθήνα"),
        ("🇫🇷", "🗼 Paris"),
        ("7 times 6 is", "42"),
        ("日本:", "Tokyo"),
        ("한국", "ﾡ"),
    ],
)
def test_words_of_a_spaced_script_are_joined_by_one(codec, key, value):
    (pair,) = encode(task((key, value)), codec).pairs
    assert pair.joiner == " "
    assert pair.input_ids == tuple(map(ord, f"{key} {value}"))


def test_a_joiner_of_ones_own_stands_in_every_pair(codec):
    for joiner in ("", " ", "\n", " => "):
        encoded = encode(task(("a", "b"), ("日本", " 東京")), codec, Asking(joiner=joiner))
        assert [pair.joiner for pair in encoded.pairs] == [joiner, joiner]
        assert encoded.pairs[1].input_ids == tuple(map(ord, f"日本{joiner} 東京"))
    assert encoded.notes[-1] == "' => ' stands between key and value"


def test_joiners_that_differ_are_counted(codec):
    encoded = encode(task(("a", "b"), ("日本", "東京"), ("c", "d")), codec)
    assert encoded.notes[-1] == "a space stands between key and value in 2 of 3 pairs"


def test_nothing_follows_a_special_token(codec):
    """Behind a marker the answer begins: the end marker of this codec says no text."""
    (pair,) = encode(task(("a|", "b")), codec).pairs
    assert pair.joiner == ""


def test_a_chat_asks_the_key_as_a_message(codec):
    encoded = encode(task(("a", "b")), codec, Asking(template="{key}?", chat=True))
    (pair,) = encoded.pairs
    assert (pair.key, pair.joiner) == ("<user>a?\n<assistant>\n", "")
    assert pair.key_ids == codec.encode_key(pair.key)
    assert encoded.notes[1:3] == (
        "keys are put to the model as '{key}?'",
        "keys are written by the tokenizer's chat template, up to the answer",
    )


def test_a_conversation_is_asked_as_it_is(codec):
    turns = (("system", "s"), ("user", "u"), ("assistant", "v"), ("user", "w"))
    plain = task(("w", "b"))
    talk = replace(plain, pairs=(replace(plain.pairs[0], turns=turns),))
    for asking in (Asking(), Asking(chat=True), Asking(template="{key}:")):
        encoded = encode(talk, codec, asking)
        assert encoded.pairs[0].key == "<system>s\n<user>u\n<assistant>v\n<user>w\n<assistant>\n"
        assert not any("are put to the model as" in note for note in encoded.notes)
        assert any(note.startswith("conversations are written") for note in encoded.notes)


def test_value_without_tokens(codec_class):
    codec = codec_class(silent="~")
    refused(lambda: encode(task(("a", "b"), ("c", "~~")), codec), "t.csv line 3: value", "'~~'")


def test_key_without_tokens(codec_class):
    codec = codec_class(silent="~")
    refused(lambda: encode(task(("~", "b")), codec), "t.csv line 2: key", "at least one token")


def test_value_with_the_end_marker(codec):
    refused(lambda: encode(task(("a", "b|")), codec), "t.csv line 2: value", "end marker", "'b|'")


def test_keys_alike_as_tokens(codec_class):
    refused(
        lambda: encode(task(("Ab", "x"), ("c", "y"), ("aB", "z")), codec_class(fold=True)),
        "t.csv line 4: key",
        "'aB'",
        "'Ab' of t.csv line 2",
    )


@pytest.mark.parametrize("template", ["", "key:", "{key}{key}", "a\nb"])
def test_bad_template(codec, template):
    refused(
        lambda: encode(task(("a", "b")), codec, Asking(template=template)),
        "template",
        "exactly once",
    )


def test_braces_in_a_key_are_text(codec):
    encoded = encode(task(("{key}", "b"), ("{0}", "c")), codec, Asking(template="<{key}>"))
    assert [pair.key for pair in encoded.pairs] == ["<{key}>", "<{0}>"]


def test_fits(codec):
    encoded = encode(task(("a", "b"), ("abc", "xy")), codec)
    # A key of 3 tokens, and 1 + 2 of an answer with its end marker.
    require_fits(encoded, context_length=11, prompt_tokens=4)
    refused(
        lambda: require_fits(encoded, context_length=10, prompt_tokens=4),
        "t.csv line 3",
        "context of 10 tokens",
        "3 tokens of the longest key (t.csv line 3), 4 of the prompt and 4 of the longest answer "
        "(t.csv line 3), 11 together",
    )


def test_every_key_fits_with_the_longest_answer_of_all(codec):
    """A verification decodes so many tokens behind each key: it may be answered wrongly."""
    encoded = encode(task(("a" * 9, "b"), ("c", "d" * 9)), codec, Asking(joiner=""))
    require_fits(encoded, context_length=9 + 10 + 2, prompt_tokens=2)
    refused(
        lambda: require_fits(encoded, context_length=9 + 10 + 1, prompt_tokens=2),
        "t.csv line 3 must fit",
        "key (t.csv line 2)",
    )


def test_no_end_marker_of_the_model_stands_in_a_value(codec_class):
    class Several(codec_class):
        end_ids = (ord("|"), ord("$"))

    refused(lambda: encode(task(("a", "b$")), Several()), "t.csv line 2: value", "end marker")


def test_a_text_and_a_list_of_it_are_two_tasks(codec):
    encoded = encode(task(("a", "b")), codec)
    facts = {one.name: getattr(encoded, one.name) for one in fields(encoded)}
    assert TextTask(**facts, decode=codec.decode).hash != encoded.hash


pytestmark = pytest.mark.slow  # imports transformers, several seconds


def test_tasks_with_a_stock_tokenizer():
    from promptlimits.nets.load.codec import HuggingFaceCodec
    from promptlimits.testing.tiny_models import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    codec = HuggingFaceCodec(tokenizer, end_id=tokenizer.eos_token_id)
    facts = load_task("capitals", codec)
    assert len(facts.pairs) == 246
    assert not any("change when they are encoded" in note for note in facts.notes)

    random_task = load_task("random:200,2,3", codec, seed=1)
    plain = set(codec.plain_token_ids())
    assert random_task.answer_set_size == len(plain) ** 3
    for pair in random_task.pairs:
        # What a stock user types is what was trained on.
        assert tuple(tokenizer(pair.key).input_ids) == pair.key_ids
        assert set(pair.value_ids[:-1]) <= plain
        assert pair.value_ids[-1] == codec.end_id
