"""`promptlimits pairs`: what a list asks a model, and what it wants to hear, to the last blank."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from promptlimits.cli import options
from promptlimits.cli.output_file import as_text
from promptlimits.cli.product import session

if TYPE_CHECKING:
    from promptlimits.base.typing import JsonObject
    from promptlimits.capacity.task.encoded import EncodedTask
    from promptlimits.nets.protocol import EncodedPair, TextCodec

_MOST_SHOWN = 20


@options.with_groups
def pairs(
    model: session.Model = "smollm2-135m",
    asked: session.Asked = session.Asked(),
    offline: options.Offline = False,
    as_json: options.AsJson = False,
) -> None:
    """Show what a model will be asked, as text and as token ids.

    It says what was changed, too. Only the model's tokenizer is read. An answer's ids are of what
    joins it to the key, of the value, and of the end marker.

    Example: promptlimits pairs --pairs capitals --limit 3
    """
    source = asked.read()

    from promptlimits.nets.load.load import load_codec

    with options.named_as_typed():
        codec = load_codec(model, allow_hub=not offline)
    task = session.encode_pairs(source, codec)
    if as_json:
        typer.echo(as_text(_document(task)))
        return
    _show(task, codec)


def _document(task: EncodedTask) -> JsonObject:
    return {
        "pairs": [
            {**pair.to_json(), "where": where}
            for pair, where in zip(task.pairs, task.places, strict=True)
        ],
        "notes": list(task.notes),
    }


def _show(task: EncodedTask, codec: TextCodec) -> None:
    """Print the first pairs, every blank visible, and the notes."""
    for pair, where in zip(task.pairs[:_MOST_SHOWN], task.places, strict=False):
        typer.echo(f"{where}:")
        for name, text, ids in _lines(pair):
            typer.echo(f"  {name:<5} {text}  {' '.join(map(str, ids))}")
    left_out = len(task.pairs) - _MOST_SHOWN
    if left_out > 0:
        typer.echo(f"and {left_out:,} more; --json prints all of them")
    plural = "" if len(task.pairs) == 1 else "s"
    typer.echo(
        f"{len(task.pairs):,} pair{plural} of {task.source}; an answer ends in {codec.end_id}"
    )
    for note in task.notes:
        typer.echo(f"  {note}")


def _lines(pair: EncodedPair) -> list[tuple[str, str, tuple[int, ...]]]:
    """What is shown of a pair: name, text and token ids; a joiner stands before a plus."""
    joined = f"{pair.joiner!r} + " if pair.joiner else ""
    return [
        ("key", repr(pair.key), pair.key_ids),
        ("value", f"{joined}{pair.value!r}", pair.value_ids),
        *(("or", f"{joined}{value!r}", ids) for value, ids in pair.also),
    ]
