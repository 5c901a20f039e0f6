"""An answer is exact if its ids came and say what was recorded, and not otherwise."""

import pytest

from promptlimits.capacity.witness.answer_check import check_answer
from promptlimits.capacity.witness.format import WitnessAnswer, WitnessPair

# --- what a value may be recorded as ------------------------------------------------------


@pytest.fixture(scope="module")
def lossy():
    """A tokenizer that lowers the case and knows five words: 0 unknown, 1 end."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<unk>": 0, "<end>": 1, "spain": 2, "madrid": 3, "rome": 4}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>", model_max_length=99
    )


def recorded(value, ids, *, joiner="", also=(), key="Spain", key_ids=(2,)):
    others = tuple(WitnessAnswer(value=text, value_ids=these) for text, these in also)
    return WitnessPair(
        key=key, joiner=joiner, value=value, key_ids=key_ids, value_ids=ids, also=others
    )


@pytest.mark.parametrize(
    ("value", "ids", "exact"),
    [
        ("madrid", (3, 1), True),
        ("Madrid", (3, 1), True),
        (" MADRID ", (3, 1), True),
        ("São", (0, 1), True),
        ("Rome", (3, 1), False),
        ("madrid", (3, 0, 1), False),
        ("madrid", (0, 1), False),
        ("", (3, 1), False),
        ("madrid rome", (3, 1), False),
    ],
)
def test_a_tokenizer_that_loses_something_is_no_fault(lossy, value, ids, exact):
    pair = recorded(value, ids, joiner=" ")
    answer = check_answer(lossy, pair, ids, stops=(1,), keys_as_text=True)
    assert answer.exact is exact
    assert (answer.fault == "") is exact


def test_a_joiner_that_says_something_is_shown_as_answered(lossy):
    pair = recorded("rome", (3, 4, 1), joiner="madrid ")
    answer = check_answer(lossy, pair, (3, 4, 1), stops=(1,), keys_as_text=True)
    assert answer.exact
    assert answer.decoded.split() == ["madrid", "rome"]


@pytest.mark.parametrize(
    ("key", "key_ids", "as_text", "as_ids"),
    [
        ("Spain", (2,), True, True),
        ("spain <end>", (2, 1), True, True),
        ("Spain Rome", (2,), False, False),
        ("rome", (2,), False, False),
        # A marker that the ids have, or lack, is part of what was asked.
        ("spain <end>", (2,), False, False),
        ("spain", (2, 1), False, False),
    ],
)
def test_a_key_must_stand_for_its_ids(lossy, key, key_ids, as_text, as_ids):
    pair = recorded("rome", (4, 1), joiner=" ", key=key, key_ids=key_ids)
    for keys_as_text, exact in ((True, as_text), (False, as_ids)):
        answer = check_answer(lossy, pair, (4, 1), stops=(1,), keys_as_text=keys_as_text)
        assert answer.exact is exact
        assert (answer.fault == "the tokenizer reads the key as other ids") is not exact


@pytest.fixture(scope="module")
def spaced():
    """A tokenizer that puts a space before every text and drops one when it decodes."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    words = {"<end>": 0, "▁": 1, "a": 2, "b": 3, "\n": 4, "▁a": 5, "▁▁": 6}
    backend = Tokenizer(models.BPE(words, [("▁", "a"), ("▁", "▁")]))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")


@pytest.mark.parametrize(
    ("joiner", "value", "ids", "exact"),
    [
        (" ", "a", (5,), True),
        ("", " a", (5,), True),
        ("", "a", (2,), True),
        ("\n", "a", (4, 2), True),
        ("", "\n  a ", (4, 1, 5, 1), True),
        # None of these says what is claimed: a blank too many, one too few, one elsewhere.
        ("", "a", (5,), False),
        (" ", "a", (2,), False),
        (" ", " a", (5,), False),
        (" ", "a", (1, 5), False),
        ("", "a ", (2,), False),
        ("", "a", (2, 1), False),
        ("", "\na", (2,), False),
        ("\n", "a", (2,), False),
        ("", "ab", (2, 1, 3), False),
    ],
)
def test_white_space_is_part_of_what_is_claimed(spaced, joiner, value, ids, exact):
    key_ids = tuple(spaced("a").input_ids)
    pair = recorded(value, (*ids, 0), joiner=joiner, key="a", key_ids=key_ids)
    answer = check_answer(spaced, pair, (*ids, 0), stops=(0,), keys_as_text=True)
    assert answer.exact is exact
    assert answer.fault == ("" if exact else "the recorded value is not what its tokens say")


@pytest.mark.parametrize(("key", "exact"), [("a", True), (" a", False), ("a ", False)])
def test_white_space_of_a_key_is_part_of_it(spaced, key, exact):
    pair = recorded("a", (2, 0), key=key, key_ids=tuple(spaced("a").input_ids))
    for keys_as_text in (True, False):
        answer = check_answer(spaced, pair, (2, 0), stops=(0,), keys_as_text=keys_as_text)
        assert answer.exact is exact


def test_the_beginning_of_a_text_has_no_other_answer(spaced):
    key_ids = tuple(spaced("a").input_ids)
    pair = recorded("a", (2,), also=[("b", (3,))], key="a", key_ids=key_ids)
    for said, exact in (((2,), True), ((3,), False)):
        answer = check_answer(spaced, pair, said, stops=(0,), keys_as_text=True, beginning=True)
        assert answer.exact is exact


# --- other answers that count ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "came"), [((2, 0), "a"), ((3, 0), "b"), ((5, 0), None), ((3,), None), ((3, 3), None)]
)
def test_any_accepted_answer_counts_and_is_named(spaced, said, came):
    key_ids = tuple(spaced("a").input_ids)
    pair = recorded("a", (2, 0), also=[("b", (3, 0))], key="a", key_ids=key_ids)
    answer = check_answer(spaced, pair, said, stops=(0,), keys_as_text=True)
    assert (answer.exact, answer.came) == (came is not None, came)


@pytest.mark.parametrize(
    ("also", "fault"),
    [
        (("a", (3, 0)), "the recorded value is not what its tokens say"),
        (("b ", (3, 0)), "the recorded value is not what its tokens say"),
        (("b", (3,)), "the recorded value does not end in an end marker of the model"),
        (("b", (3, 0, 0)), "the recorded value has an end marker of the model inside"),
    ],
)
def test_an_accepted_answer_must_say_its_text(spaced, also, fault):
    key_ids = tuple(spaced("a").input_ids)
    pair = recorded("a", (2, 0), also=[also], key="a", key_ids=key_ids)
    for said in ((2, 0), also[1]):
        answer = check_answer(spaced, pair, said, stops=(0,), keys_as_text=True)
        assert (answer.exact, answer.came, answer.fault) == (False, None, fault)
