"""One text to be reproduced from its first token on: cramming, as a task of a single pair.

The key is the text's beginning and nothing else: the model's beginning-of-text token, which
stands behind the prompt, as stock PEFT lays them out. Were nothing there, the answer's first
token would be read out at the prompt's last vector, and with one vector that is position 0,
where no prompt was ever seen to control it (15 of 16 and 31 of 32 tokens of SmolLM2-135M held,
whatever the optimiser). Here every token of the text is scored, the first one too, and the end
marker behind the last.

A text of random tokens needs no file: it is `random:1,1,TOKENS`, behind a random key.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from promptlimits.base.errors import UserError
from promptlimits.base.files import open_regular
from promptlimits.capacity.tables.files import file_name, read_text, shown
from promptlimits.capacity.task.encoded import EncodedTask
from promptlimits.capacity.task.random_tokens import MAX_TOKENS
from promptlimits.capacity.task.targets import TextTargets

if TYPE_CHECKING:
    from promptlimits.nets.protocol import TextCodec

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_BYTES_A_TOKEN: Final = 32
"""Bytes that are read at first for each token wanted: several times what most texts take."""
_LEAST_BYTES: Final = 4096
_GROWTH: Final = 4


@dataclass(frozen=True, kw_only=True)
class TextSpec:
    """A text as far as it is known without a model."""

    text: str  # the text as it stands in the file, or its beginning
    file: str  # name of its file, for people
    tokens: int | None = None  # how many of its first tokens are to be held; None for all
    more: Path | None = None  # the file, if it holds more than `text`; None if that is all


def read_text_spec(path: Path | str, *, tokens: int | None = None) -> TextSpec:
    """Read a text from a UTF-8 file: of a long one the beginning, in which the tokens are."""
    path = Path(path)
    most = max(_LEAST_BYTES, _BYTES_A_TOKEN * (tokens or MAX_TOKENS))
    beginning = _beginning(path, most)
    return TextSpec(
        text=_whole(path) if beginning is None else beginning,
        file=file_name(Path(path.name)),
        tokens=tokens,
        more=None if beginning is None else path,
    )


def _whole(path: Path) -> str:
    return read_text(path, holds="a text", remedy="write it there, or name another file")


def _beginning(path: Path, most: int) -> str | None:
    """The first bytes of a long file as text; None where it is short, or something is wrong.

    Then it is read as a whole, which says what is wrong.
    """
    try:
        with open_regular(path) as stream:
            data = stream.read(most + 1)
        # A character that the end cuts in two is left out.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(data[:most])
    except (OSError, ValueError):
        return None
    return text if len(data) > most and "\0" not in text else None


@dataclass(frozen=True, kw_only=True)
class TextTask(EncodedTask):
    """One text behind the token that texts begin with, held token by token."""

    # From token ids to their text.
    decode: Callable[[Sequence[int]], str] = field(compare=False, repr=False)

    @property
    def targets(self) -> TextTargets:
        """The tokens of the text, from the first one on."""
        return TextTargets(every=self.pairs, size=self.text_tokens, decode=self.decode)

    @property
    def text_tokens(self) -> int:
        """Tokens of the text, without the end marker."""
        return len(self.pairs[0].value_ids) - 1


def text_task(spec: TextSpec, codec: TextCodec) -> TextTask:
    """Pose a text as one pair: its beginning asks for the first tokens of it."""
    from promptlimits.nets.protocol import EncodedPair

    read = _read(spec, codec)
    value_ids = _first(spec, read, codec)
    value, behind = codec.decode(value_ids), codec.decode_value(value_ids)
    name = spec.file if spec.tokens is None else f"{spec.file},{spec.tokens}"
    return TextTask(
        name=f"text:{name}",
        pairs=(
            EncodedPair(
                key=codec.start_text,
                value=value,
                key_ids=codec.encode_key(codec.start_text),
                value_ids=(*value_ids, codec.end_id),
                # Some tokenizers put a space in front of every text.
                joiner=behind.removesuffix(value) if behind.endswith(value) else "",
            ),
        ),
        places=(spec.file,),
        answer_set_size=1,
        answer_set_text="this one text",
        source=f"file {spec.file}",
        notes=_notes(read, value, behind, held=len(value_ids)),
        decode=codec.decode,
    )


@dataclass(frozen=True, kw_only=True)
class _Read:
    """A beginning of a text whose first tokens are known."""

    text: str  # as much as was read
    ids: tuple[int, ...]  # its tokens
    whole: bool  # whether that is the whole text


def _read(spec: TextSpec, codec: TextCodec) -> _Read:
    """Read as much of a text as its first tokens depend on, and no more.

    Where a text is cut, the tokens before the cut are others than in the whole text: as far back
    as the tokenizer joins what stands side by side, which is a word in most, and a line or more
    in those that know no words. So the first tokens of beginnings of three lengths are compared:
    one, the half of it, and one character less, which tells a tokenizer that counts from the end.
    If they agree although the cuts are so far apart, no cut reaches them; if they do not, more is
    read, up to the whole text.
    """
    wanted = spec.tokens or MAX_TOKENS + 1
    text, more = spec.text, spec.more
    while more is not None:
        ids = codec.encode_text(text)
        shorter = [codec.encode_text(text[:end]) for end in (len(text) // 2, len(text) - 1)]
        if all(len(cut) > wanted and cut[:wanted] == ids[:wanted] for cut in shorter):
            return _Read(text=text, ids=ids, whole=False)
        longer = _beginning(more, _GROWTH * len(text.encode()))
        text, more = (_whole(more), None) if longer is None else (longer, more)
    return _Read(text=text, ids=codec.encode_text(text), whole=True)


def _first(spec: TextSpec, read: _Read, codec: TextCodec) -> tuple[int, ...]:
    """The tokens to hold, checked."""
    every = read.ids
    if not every:
        raise UserError(
            spec.file,
            "have at least one token",
            got=f"{shown(read.text)}, of which the tokenizer leaves nothing",
            remedy="give another text",
        )
    if spec.tokens is None and len(every) > MAX_TOKENS:
        raise UserError(
            spec.file,
            f"have at most {MAX_TOKENS:,} tokens",
            got="more",
            remedy=f"ask for its first ones, as in text:{spec.file},48",
        )
    if spec.tokens is not None and spec.tokens > len(every):
        raise UserError(
            spec.file,
            f"have the {spec.tokens:,} tokens asked for",
            got=f"{len(every):,}",
            remedy="ask for fewer, or give a longer text",
        )
    first = every[: spec.tokens]
    ends = [place for place, one in enumerate(first) if one in codec.end_ids]
    if ends:
        raise UserError(
            spec.file,
            "not contain an end marker, at which answers stop",
            got=f"one as token {ends[0] + 1:,}",
            remedy="delete it: the model's own is added behind the text",
        )
    silent = _silent(first, codec)
    if silent is not None:
        raise UserError(
            spec.file,
            "not contain special tokens of the model, which say no text",
            got=f"one as token {silent + 1:,}",
            remedy="delete it: no answer with it in it can be confirmed as this text",
        )
    return first


def _silent(ids: tuple[int, ...], codec: TextCodec) -> int | None:
    """Where the first token stands that leaves nothing in the decoded text; None if none does."""
    # Between others, for some decoders take away a space at the beginning.
    around = codec.encode_text("a")
    nothing = codec.decode((*around, *around))
    silent = {one for one in set(ids) if codec.decode((*around, one, *around)) == nothing}
    return next((place for place, one in enumerate(ids) if one in silent), None)


def _notes(read: _Read, value: str, behind: str, *, held: int) -> tuple[str, ...]:
    """How much of the text is held, and where its tokens say something else."""
    of = f" of {len(read.ids):,}" if read.whole else ""
    notes = [f"the first {held:,}{of} tokens of the text, and the end marker"]
    if not read.text.startswith((value, behind)):
        cut = value.rstrip(_REPLACEMENT)
        notes.append(
            "the last token ends inside a character"
            if held < len(read.ids) and read.text.startswith(cut)
            else "the text changes when it is encoded and decoded: answers are compared as tokens"
        )
    return tuple(notes)
