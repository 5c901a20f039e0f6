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

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from promptlimits.errors import UserError
from promptlimits.tasks.encoded import EncodedTask
from promptlimits.tasks.files import file_name, read_text, shown

if TYPE_CHECKING:
    from promptlimits.models.protocol import TextCodec

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, kw_only=True)
class TextSpec:
    """A text as far as it is known without a model.

    Attributes:
        text: The text, without white space at its ends.
        file: Name of its file, for people.
        tokens: How many of its first tokens are to be held; None for all.
    """

    text: str
    file: str
    tokens: int | None = None


def read_text_spec(path: Path | str, *, tokens: int | None = None) -> TextSpec:
    """Read a text from a UTF-8 file.

    Args:
        path: The file, of any ending.
        tokens: How many of its first tokens are to be held; None for all.

    Returns:
        The text.

    Raises:
        UserError: There is no such file, it is blank, or it is not UTF-8 text.
    """
    path = Path(path)
    text = read_text(path, holds="a text", remedy="write it there, or name another file")
    return TextSpec(text=text.strip(), file=file_name(Path(path.name)), tokens=tokens)


def text_task(spec: TextSpec, codec: TextCodec, *, start: str | None = None) -> EncodedTask:
    """Pose a text as one pair: its beginning asks for the first tokens of it.

    Args:
        spec: The text.
        codec: The model's codec.
        start: Text behind which the text is to come; by default the model's beginning of text.

    Returns:
        The pair. Its value is the text of the tokens that are held, which is what a check by
        stock tools compares with.

    Raises:
        UserError: The text has no tokens or fewer than asked for, holds the end marker or
            another special token, or the start has no token to read an answer from.
    """
    from promptlimits.models.protocol import EncodedPair

    key = codec.start_text if start is None else start
    key_ids = tuple(codec.encode_key(key))
    if not key_ids:
        raise UserError(
            "the start of the text",
            "have at least one token",
            got=shown(key),
            remedy="give another one: the first token is read out behind it",
        )
    every = tuple(codec.encode_value(spec.text))
    value_ids = _first(spec, every, codec)
    value = codec.decode(value_ids)
    name = spec.file if spec.tokens is None else f"{spec.file},{spec.tokens}"
    return EncodedTask(
        name=f"text:{name}",
        pairs=(
            EncodedPair(
                key=key, value=value, key_ids=key_ids, value_ids=(*value_ids, codec.end_id)
            ),
        ),
        places=(spec.file,),
        answer_set_size=1,
        answer_set_text="this one text",
        answers_random=False,
        source=f"file {spec.file}",
        notes=_notes(spec, value, held=len(value_ids), of=len(every)),
        text_tokens=len(value_ids),
    )


def _first(spec: TextSpec, every: tuple[int, ...], codec: TextCodec) -> tuple[int, ...]:
    """The tokens to hold, checked."""
    if not every:
        raise UserError(
            spec.file,
            "have at least one token",
            got=f"{shown(spec.text)}, of which the tokenizer leaves nothing",
            remedy="give another text",
        )
    if spec.tokens is not None and spec.tokens > len(every):
        raise UserError(
            spec.file,
            f"have the {spec.tokens:,} tokens asked for",
            got=f"{len(every):,}",
            remedy="ask for fewer, or give a longer text",
        )
    first = every[: spec.tokens]
    if codec.end_id in first:
        raise UserError(
            spec.file,
            "not contain the end marker, at which answers stop",
            got=f"it as token {first.index(codec.end_id) + 1:,}",
            remedy="delete the marker: it is added behind the text",
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
    # Between others, for decoding takes away white space at the ends.
    around = codec.plain_token_ids()[:1]
    nothing = codec.decode((*around, *around))
    silent = {one for one in set(ids) if codec.decode((*around, one, *around)) == nothing}
    return next((place for place, one in enumerate(ids) if one in silent), None)


def _notes(spec: TextSpec, value: str, *, held: int, of: int) -> tuple[str, ...]:
    """How much of the text is held, and where its tokens say something else."""
    notes = [f"the first {held:,} of {of:,} tokens of the text, and the end marker"]
    if not spec.text.startswith(value):
        cut = value.rstrip(_REPLACEMENT)
        notes.append(
            "the last token ends inside a character"
            if held < of and spec.text.startswith(cut)
            else "the text changes when it is encoded and decoded: answers are compared as tokens"
        )
    return tuple(notes)
