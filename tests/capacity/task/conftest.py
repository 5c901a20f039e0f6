"""A codec that needs no model: one token for each character, `|` being the end marker."""

import pytest
from hypothesis import settings

# The same examples on each run, and no deadline: machines are shared.
settings.register_profile("promptlimits", deadline=None, derandomize=True)
settings.load_profile("promptlimits")


class CharCodec:
    """One token for each character: id = code point; keys are read in lower case if asked.

    Attributes:
        fold: Read keys without regard to case, so that some look alike.
        silent: Characters that the tokenizer drops.
        merges: Pairs of characters that become one token when read together.
    """

    end_id = ord("|")
    end_ids = (end_id,)
    start_text = "^"

    def __init__(self, *, fold=False, silent="", merges=None):
        self.fold = fold
        self.silent = silent
        self.merges = merges or {}
        self.plain = tuple(range(ord("a"), ord("z") + 1))

    def encode_key(self, text):
        return self._ids(text.lower() if self.fold else text)

    def encode_value(self, text):
        return self._ids(text)

    def encode_text(self, text):
        return self._ids(text)

    def decode_value(self, ids):
        return self.decode(ids)

    def chat(self, turns):
        return "".join(f"<{role}>{content}\n" for role, content in turns) + "<assistant>\n"

    def decode(self, ids):
        back = {number: pair for pair, number in self.merges.items()}
        return "".join(back.get(i, chr(i)) for i in ids if i != self.end_id)

    def plain_token_ids(self):
        return self.plain

    def _ids(self, text):
        ids = []
        while text:
            if text[:2] in self.merges:
                ids.append(self.merges[text[:2]])
                text = text[2:]
                continue
            if text[0] not in self.silent:
                ids.append(ord(text[0]))
            text = text[1:]
        return tuple(ids)


@pytest.fixture
def codec():
    return CharCodec()


@pytest.fixture
def codec_class():
    return CharCodec
