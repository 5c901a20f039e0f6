"""Text to token ids and back, as stock tools do it when the prompt is used.

A key is tokenised alone, as a stock user tokenises what they ask. A value is tokenised by itself
too, with what joins it to the key in front of it, because it is what the model generates after
the key: `generate` emits ids one by one and never sees the two texts as one. Nothing is added to
either text, and nothing taken away. To replay a pair with stock tools::

    ids = tokenizer(key, return_tensors="pt").input_ids   # less a closing marker, if one is added
    out = model.generate(input_ids=ids, eos_token_id=end_id, do_sample=False)
    tokenizer.decode(out[0]) == tokenizer.decode(ids[0]) + joiner + value + end_marker
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from promptlimits.base.errors import UserError
from promptlimits.nets.load.spelling import Spelling

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class HuggingFaceCodec:
    """The codec of a stock tokenizer; a `promptlimits.nets.protocol.TextCodec`.

    Stock `generate` stops at `end_id`, the end marker of every value, and at `other_end_ids`. The
    embedding has `vocabulary` rows, by default as many as the tokenizer knows tokens: ids at or
    beyond it are refused.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        end_id: int,
        *,
        other_end_ids: Sequence[int] = (),
        vocabulary: int | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._spelling = Spelling(tokenizer)
        self.end_id: Final = end_id
        self.end_ids: Final = tuple(dict.fromkeys((end_id, *other_end_ids)))
        self._vocabulary = 1 + max(tokenizer.get_vocab().values())
        if vocabulary is not None:
            self._vocabulary = min(self._vocabulary, vocabulary)

    @cached_property
    def start_text(self) -> str:
        """Return the text whose key is the beginning-of-text token alone.

        It is empty where the tokenizer puts that token before every text by itself. Where it
        knows none, the token that ends a text stands for it, as in GPT-2's training.
        """
        markers = (self._tokenizer.bos_token, self._tokenizer.eos_token)
        for text in ("", *(marker for marker in markers if marker is not None)):
            ids = self._spelling.asked(text)
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
        """
        return self._known(text, self._spelling.asked(text))

    def encode_value(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text that stands behind a key, without markers."""
        return self._known(text, self._spelling.ids_behind(text))

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text that begins where the model begins, without markers."""
        return self._known(text, self._spelling.ids_alone(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids that stand alone, without special tokens."""
        return self._spelling.alone(ids, special=False)

    def decode_value(self, ids: Sequence[int]) -> str:
        """Return the text of ids as they stand behind a key, special tokens shown."""
        return self._spelling.behind(ids)

    def chat(self, turns: Sequence[tuple[str, str]]) -> str:
        """Return messages as the tokenizer's chat template writes them, up to the answer.

        What `tokenizer(text)` gives for it are the ids of the template: a beginning-of-text
        marker that the tokenizer adds by itself is left out of the text.
        """
        messages = [{"role": role, "content": content} for role, content in turns]
        if not self._tokenizer.chat_template:
            raise UserError(
                "the tokenizer",
                "have a chat template to write messages with",
                got="one without",
                remedy="use the model that was trained for chats (often named -Instruct), or "
                "write the messages out in the keys and leave --chat out",
            )
        try:
            text = str(
                self._tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True
                )
            )
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            said = " ".join(str(error).split())[:200]
            raise UserError(
                "the messages",
                "fit the chat template of the tokenizer",
                got=f"roles {', '.join(role for role, _ in turns)} ({said})",
                remedy="use the roles that it knows, in the order that it asks for",
            ) from error
        ids = self._spelling.read(text)
        bare = text.removeprefix(self._tokenizer.bos_token or "")
        for form in (text, bare):
            if self._spelling.asked(form) == ids:
                return form
        raise UserError(
            "the chat template",
            "give a text that the tokenizer reads as the template's own tokens",
            got=f"other ones for {text[:40]!r}",
            remedy="write the messages out in the keys and leave --chat out",
        )

    def plain_token_ids(self) -> tuple[int, ...]:
        """Return the ids that are ordinary text, in order.

        Such a token is not special or added, shows as printable text that is more than space,
        and is one token again when its text is encoded. Found once, then remembered.
        """
        return self._plain_token_ids

    @cached_property
    def _plain_token_ids(self) -> tuple[int, ...]:
        special = set(self._tokenizer.all_special_ids) | set(self._tokenizer.added_tokens_decoder)
        known = sorted(set(self._tokenizer.get_vocab().values()) - special - {*self.end_ids})
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

    def _known(self, text: str, ids: tuple[int, ...]) -> tuple[int, ...]:
        if ids and max(ids) >= self._vocabulary:
            raise UserError(
                "text",
                "hold only tokens that the model has an embedding for",
                got=f"token {max(ids)} of {self._vocabulary} in {text[:40]!r}",
                remedy="leave that text out",
            )
        return ids


def _is_plain(text: str) -> bool:
    word = text.strip()
    return bool(word) and word.isprintable() and _REPLACEMENT not in word
