"""Text to token ids and back, as stock tools do it when the prompt is used.

A key is tokenised alone, as a stock user tokenises what they ask. A value is tokenised alone
too, behind a joiner (a space), because it is what the model generates after the key: `generate`
emits ids one by one and never sees the two texts as one. To replay a pair with stock tools::

    ids = tokenizer(key, return_tensors="pt").input_ids   # less a closing marker, if one is added
    out = model.generate(input_ids=ids, eos_token_id=end_id, do_sample=False)
    tokenizer.decode(out[0, ids.shape[1]:], skip_special_tokens=True).strip() == value
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from promptlimits.errors import UserError

_PROBE = "a"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class HuggingFaceCodec:
    """The codec of a stock tokenizer; a `promptlimits.models.protocol.TextCodec`.

    Args:
        tokenizer: The stock tokenizer.
        end_id: The token at which stock `generate` stops.
        joiner: What stands between a key and its value, seen as part of the value.
        vocabulary: Rows of the embedding; ids at or beyond it are refused. By default those
            the tokenizer has.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        end_id: int,
        joiner: str = " ",
        *,
        vocabulary: int | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._end_id = end_id
        self._joiner = joiner
        self._vocabulary = 1 + max(tokenizer.get_vocab().values())
        if vocabulary is not None:
            self._vocabulary = min(self._vocabulary, vocabulary)

    @property
    def end_id(self) -> int:
        """The end marker: the token at which stock `generate` stops."""
        return self._end_id

    @property
    def joiner(self) -> str:
        """What stands between a key and its value."""
        return self._joiner

    @cached_property
    def start_text(self) -> str:
        """Return the text whose key is the beginning-of-text token alone.

        It is empty where the tokenizer puts that token before every text by itself. Where it
        knows none, the token that ends a text stands for it, as in GPT-2's training.

        Raises:
            UserError: The tokenizer has neither, or reads them as something else.
        """
        markers = (self._tokenizer.bos_token, self._tokenizer.eos_token)
        for text in ("", *(marker for marker in markers if marker is not None)):
            ids = tuple(self._tokenizer(text).input_ids)
            ids = ids[: len(ids) - self._closing_markers]
            if len(ids) == 1 and ids[0] < self._vocabulary:
                return str(text)
        raise UserError(
            "the tokenizer",
            "read a beginning-of-text marker as one token",
            got="one that has none",
            remedy="put the text into a file of pairs, with a key of your own",
        )

    def encode_key(self, text: str) -> tuple[int, ...]:
        """Return what the stock tokenizer gives for the bare text.

        An opening marker that it adds is kept. A closing one is left out: behind it the model
        would take the text as finished.

        Raises:
            UserError: The text holds a token that the model has no embedding for.
        """
        ids = self._ids(text, markers=True)
        return ids[: len(ids) - self._closing_markers]

    def encode_value(self, text: str) -> tuple[int, ...]:
        """Return the ids of joiner and text, without markers.

        Raises:
            UserError: The text holds a token that the model has no embedding for.
        """
        return self._ids(self._joiner + text, markers=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids without special tokens and without space around it."""
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text.strip()

    def plain_token_ids(self) -> tuple[int, ...]:
        """Return the ids that are ordinary text, in order.

        Such a token is not special or added, shows as printable text that is more than space,
        and is one token again when its text is encoded. Found once, then remembered.
        """
        return self._plain_token_ids

    @cached_property
    def _plain_token_ids(self) -> tuple[int, ...]:
        special = set(self._tokenizer.all_special_ids) | set(self._tokenizer.added_tokens_decoder)
        known = sorted(set(self._tokenizer.get_vocab().values()) - special - {self._end_id})
        ids = [token for token in known if token < self._vocabulary]
        texts = self._tokenizer.batch_decode(
            [[token] for token in ids],
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )
        shown = [(token, text) for token, text in zip(ids, texts, strict=True) if _is_plain(text)]
        if not shown:
            return ()
        encoded = self._tokenizer([text for _, text in shown], add_special_tokens=False).input_ids
        pairs = zip(shown, encoded, strict=True)
        return tuple(token for (token, _), again in pairs if list(again) == [token])

    @cached_property
    def _closing_markers(self) -> int:
        """How many ids the tokenizer adds behind a text."""
        bare = list(self._ids(_PROBE, markers=False))
        marked = list(self._ids(_PROBE, markers=True))
        for start in range(len(marked) - len(bare) + 1):
            if marked[start : start + len(bare)] == bare:
                return len(marked) - len(bare) - start
        return 0

    def _ids(self, text: str, *, markers: bool) -> tuple[int, ...]:
        # `markers` chooses between the tokenizer's own default and no markers at all.
        options = {} if markers else {"add_special_tokens": False}
        ids = tuple(self._tokenizer(text, **options).input_ids)
        if ids and max(ids) >= self._vocabulary:
            raise UserError(
                "text",
                "hold only tokens that the model has an embedding for",
                got=f"token {max(ids)} of {self._vocabulary} in {text[:40]!r}",
                remedy="leave that text out",
            )
        return ids


def joiner_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the joiner with which key and value read as two words.

    It is a space, unless the tokenizer puts one before every text by itself: then a second
    one would be a token of its own.
    """
    apart = tokenizer("a a", add_special_tokens=False).input_ids
    word = tokenizer("a", add_special_tokens=False).input_ids
    spaced = tokenizer(" a", add_special_tokens=False).input_ids
    if list(apart) == [*word, *word] and list(spaced) != list(word):
        return ""
    return " "


def _is_plain(text: str) -> bool:
    word = text.strip()
    return bool(word) and word.isprintable() and _REPLACEMENT not in word
