"""The codec gives what stock tools give, and says which tokens are plain text."""

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from promptlimits.base.errors import UserError
from promptlimits.nets.load.codec import HuggingFaceCodec
from promptlimits.testing.tiny_models import WORDS, tiny_tokenizer

END = 0


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def codec(tokenizer):
    return HuggingFaceCodec(tokenizer, END)


def with_markers(template):
    """A tokenizer that puts markers around a text: ids 1 (open) and 2 (close)."""
    words = {"<end>": 0, "<open>": 1, "<close>": 2, "a": 3, "b": 4}
    backend = Tokenizer(models.WordLevel(words, unk_token="<end>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<open>", 1), ("<close>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<end>", bos_token="<open>", sep_token="<close>"
    )


def test_a_key_is_what_the_stock_tokenizer_gives(codec, tokenizer):
    for key in ("France", "the moon and the sun", "Côte d'Ivoire", " x"):
        assert codec.encode_key(key) == tuple(tokenizer(key).input_ids)


def test_a_value_reads_as_the_next_word(codec, tokenizer):
    assert codec.encode_key("France") + codec.encode_value(" Paris") == tuple(
        tokenizer("France Paris").input_ids
    )


@pytest.mark.parametrize(
    "text",
    [
        *WORDS[:4],
        *("Yamoussoukro", "São Tomé", "東京", "กรุงเทพฯ", "a, b. c!", "🗼 Paris"),
        *(" Paris", "  Paris ", "\treturn -a", "    return a + b\n", "\n\n\tx\r\n", " "),
    ],
)
def test_a_value_comes_back_to_the_last_blank(codec, text):
    ids = codec.encode_value(text)
    assert codec.decode_value(ids) == text
    assert codec.decode(ids) == text
    assert codec.decode([*ids, codec.end_id]) == text
    assert codec.decode([END, *ids]) == text
    assert codec.encode_text(text) == ids


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("<open> $A", (1, 3, 4)),
        ("<open> $A <close>", (1, 3, 4)),
        ("$A <close> <close>", (3, 4)),
        ("$A", (3, 4)),
    ],
)
def test_an_opening_marker_stays_and_a_closing_one_goes(template, key):
    codec = HuggingFaceCodec(with_markers(template), END)
    assert codec.encode_key("a b") == key
    assert codec.encode_value("a b") == (3, 4)


def test_a_text_that_ends_like_a_marker_keeps_its_end(codec):
    assert codec.encode_key("Rome<|end|>")[-1] == END


def test_plain_tokens_are_one_token_of_text_each(codec, tokenizer):
    plain = codec.plain_token_ids()
    assert list(plain) == sorted(set(plain))
    for token in plain:
        text = tokenizer.decode([token])
        assert tokenizer(text).input_ids == [token]
        assert text.strip().isprintable()
        assert text.strip()
    texts = {tokenizer.decode([token]) for token in plain}
    assert {"Paris", " Paris", "!", "a"} <= texts
    assert codec.plain_token_ids() is plain


def test_markers_spaces_and_parts_of_characters_are_not_plain(codec, tokenizer):
    plain = set(codec.plain_token_ids())
    for text in (" ", "\n", "é"):  # é is two tokens, each half a character
        assert plain.isdisjoint(tokenizer(text).input_ids)
    assert END not in plain


def test_an_added_token_is_not_plain():
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["zzz"])
    [added] = tokenizer("zzz").input_ids
    assert added not in HuggingFaceCodec(tokenizer, END).plain_token_ids()


def test_a_token_without_an_embedding_is_refused_and_not_plain(tokenizer):
    [paris] = tokenizer("Paris").input_ids
    codec = HuggingFaceCodec(tokenizer, END, vocabulary=paris)
    assert max(codec.plain_token_ids()) < paris
    with pytest.raises(UserError, match=rf"got token {paris} of {paris} in 'Paris'"):
        codec.encode_key("Paris")
    assert HuggingFaceCodec(tokenizer, END, vocabulary=paris + 1).encode_key("Paris") == (paris,)


def test_a_token_that_its_own_text_does_not_give_is_not_plain():
    vocabulary = {"a": 0, "b": 1, "ab": 2, "\N{REPLACEMENT CHARACTER}": 3}
    backend = Tokenizer(models.BPE(vocabulary, []))  # nothing merges a and b
    codec = HuggingFaceCodec(PreTrainedTokenizerFast(tokenizer_object=backend), 9)
    assert codec.plain_token_ids() == (0, 1)


VOCABULARY = {"a": 0, "▁": 1, "▁a": 2, "\n": 3, "東": 4}


def spacing_by_itself():
    """As Llama 2: a space before every text, whether or not it begins with one."""
    backend = Tokenizer(models.BPE(VOCABULARY, [("▁", "a")]))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def metaspace(scheme):
    backend = Tokenizer(models.BPE(VOCABULARY, [("▁", "a")]))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def spaced_bytes():
    """As RoBERTa: bytes, with a space before a text that does not begin with one."""
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


SPACING = pytest.mark.parametrize(
    "tokenizer",
    [
        tiny_tokenizer(),
        metaspace("never"),
        metaspace("first"),
        metaspace("always"),
        spacing_by_itself(),
        spaced_bytes(),
    ],
    ids=["bytes", "never", "first", "always", "Llama 2", "RoBERTa"],
)


@SPACING
def test_key_and_value_read_as_two_words_however_the_tokenizer_spaces(tokenizer):
    codec = HuggingFaceCodec(tokenizer, 9)
    assert codec.encode_key("a") + codec.encode_value(" a") == tuple(tokenizer("a a").input_ids)


@SPACING
@pytest.mark.parametrize("key", ["a", "東", "a\n", "\n "])
@pytest.mark.parametrize("value", ["a", " a", "  a", "東", "   a \n", "\n\na", "a a ", " "])
def test_key_and_value_stand_side_by_side_as_they_were_given(tokenizer, key, value):
    """No tokenizer's habit puts a blank in, or takes one out, where the two meet."""
    codec = HuggingFaceCodec(tokenizer, 9)
    asked, ids = codec.encode_key(key), codec.encode_value(value)
    assert codec.decode_value(ids) == value
    assert tokenizer.decode([*asked, *ids]) == tokenizer.decode(asked) + value


@SPACING
def test_a_text_from_its_beginning_reads_as_stock_tools_read_it(tokenizer):
    codec = HuggingFaceCodec(tokenizer, 9)
    for text in ("a a", "東a", "\na"):
        assert codec.decode(codec.encode_text(text)) == text
    assert codec.encode_text(" a a") == tuple(tokenizer(" a a").input_ids)


# --- chats ----------------------------------------------------------------------------------

CHATML = (
    "{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] + '|' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<assistant>\n' }}{% endif %}"
)


def test_a_chat_is_what_the_template_makes_of_it():
    chatting = tiny_tokenizer()
    chatting.chat_template = CHATML
    turns = [("system", "be brief"), ("user", "one?"), ("assistant", " two"), ("user", "three?")]
    codec = HuggingFaceCodec(chatting, END)
    key = codec.chat(turns)
    assert key == "<system>be brief|<user>one?|<assistant> two|<user>three?|<assistant>\n"
    messages = [{"role": role, "content": content} for role, content in turns]
    asked = chatting.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert codec.encode_key(key) == tuple(asked)


@pytest.mark.parametrize("template", ["<open> $A", "$A <close>", "$A"])
def test_the_marker_of_a_chat_stands_once(template):
    """A template writes the marker that the tokenizer adds, too: typed as it is, it came twice."""
    chatting = with_markers(template)
    chatting.chat_template = "{{ bos_token }}{% for m in messages %} {{ m['content'] }}{% endfor %}"
    codec = HuggingFaceCodec(chatting, END)
    key = codec.chat([("user", "a b")])
    assert codec.encode_key(key) == (1, 3, 4)
    assert key == (" a b" if template == "<open> $A" else "<open> a b")


def test_a_chat_that_no_text_gives_is_refused():
    chatting = with_markers("<open> $A")
    chatting.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(UserError, match=r"chat template must give a text .* leave --chat out"):
        HuggingFaceCodec(chatting, END).chat([("user", "a b")])


def test_chats_that_cannot_be_written_are_refused(tokenizer):
    with pytest.raises(UserError, match=r"must have a chat template .* -Instruct"):
        HuggingFaceCodec(tokenizer, END).chat([("user", "a")])
    strict = tiny_tokenizer()
    strict.chat_template = "{{ raise_exception('roles must\nalternate') }}"
    with pytest.raises(UserError, match=r"got roles user, tool \(roles must alternate\)"):
        HuggingFaceCodec(strict, END).chat([("user", "a"), ("tool", "b")])


def test_a_text_begins_with_the_marker_that_the_tokenizer_names(codec):
    # GPT-2's way: one marker ends a text and begins the next, and no text gets it by itself.
    assert codec.encode_key(codec.start_text) == (END,)
    assert codec.start_text != ""


@pytest.mark.parametrize("template", ["<open> $A", "<open> $A <close>"])
def test_a_marker_that_every_text_gets_is_the_key_of_no_text(template):
    codec = HuggingFaceCodec(with_markers(template), END)
    assert codec.start_text == ""
    assert codec.encode_key("") == (1,)


def test_a_tokenizer_without_a_marker_to_begin_with_is_refused():
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="read a beginning-of-text marker as one token"):
        _ = HuggingFaceCodec(tokenizer, END).start_text


def test_a_marker_beyond_the_embedding_is_no_beginning():
    tokenizer = with_markers("$A")
    tokenizer.bos_token = "b"
    codec = HuggingFaceCodec(tokenizer, END, vocabulary=4)
    # "b" is id 4, which the model has no row for; "<end>" is id 0.
    assert codec.start_text == "<end>"
