"""The main job, `promptlimits bracket`, with `fit` (one prompt for all pairs) and `report`.

`promptlimits pairs` shows what a list asks a model and wants to hear, to the last blank.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from promptlimits.base.errors import UserError
from promptlimits.base.files import JsonObject, write_json
from promptlimits.cli import options
from promptlimits.cli.output import as_text, require_writable, write_whole
from promptlimits.cli.product import session

if TYPE_CHECKING:
    from promptlimits.capacity.task.encoded import EncodedTask
    from promptlimits.nets.protocol import EncodedPair, TextCodec
    from promptlimits.record.record import Fit, Record


@options.with_groups
def bracket(
    model: session.Model = "smollm2-135m",
    asked: session.Asked = session.Asked(),
    prompt_tokens: Annotated[
        str,
        typer.Option("--prompt-tokens", metavar="N,..", help="Prompt lengths, such as 1,2,4."),
    ] = "1",
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="What prompts are: soft (input vectors), prefix (keys and values of every "
            "layer), or soft,prefix for both in one table.",
        ),
    ] = "soft",
    out: options.Out = Path("runs/bracket"),
    training: session.Training = session.Training(starts=2, max_steps=400, patience=80),
    order: Annotated[
        Literal["easiest", "given", "shuffled"],
        typer.Option(
            "--order",
            metavar="ORDER",
            help="Order in which pairs are tried: easiest, given, shuffled.",
        ),
    ] = "easiest",
    first_size: Annotated[
        int | None,
        typer.Option(
            "--first-size",
            min=1,
            help="Pairs that the search begins with (24), or tokens of a text (8).",
        ),
    ] = None,
    in_context_tokens: Annotated[
        int,
        typer.Option(
            "--in-context-tokens",
            min=0,
            help="Most tokens of the in-context baseline; 0 leaves it out.",
        ),
    ] = 2048,
    machine: session.Machine = session.Machine(),
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Find how many pairs a prompt holds, and prove a limit.

    For each prompt length it gives two numbers. The floor is a prompt that was found, saved, and
    confirmed by stock PEFT. The ceiling is a theorem about random answers. Stop it whenever you
    like: the same command goes on where it stopped.

    Exit code 0 if every prompt length was searched, 3 if the budget was used up before.

    Example: promptlimits bracket --pairs capitals --prompt-tokens 1,2
    """
    lengths = session.prompt_lengths(prompt_tokens)
    kinds = session.prompt_kinds(kind)
    budgets = training.budgets(default_seconds=240.0)
    config = training.config(lengths[0], seed=asked.seed, dtype=machine.dtype)
    source = asked.read()
    options.require_folder(out)

    from promptlimits.capacity.measure import measure
    from promptlimits.capacity.store.sqlite import Store
    from promptlimits.cli.live import LiveListener

    request = training.request(
        source,
        config,
        budgets,
        prompt_tokens=lengths,
        kinds=kinds,
        order=order,
        in_context_tokens=in_context_tokens,
        first_size=first_size,
    )
    with (
        LiveListener(quiet=quiet, noun=session.noun_of(source)) as listener,
        Store.open(session.store_path(out)) as store,
    ):
        frozen, task = machine.load(model, source, listener)
        request = training.on(frozen, request)
        record = measure(frozen, task, request, folder=out, store=store, listener=listener)
    show(record, out, as_json=as_json)
    session.require_confirmed(record)
    searched = all(each.searched for each in record.brackets)
    raise typer.Exit(0 if searched else session.NOT_SEARCHED)


def show(record: Record, out: Path, *, as_json: bool) -> None:
    """Write the report; print the record, or a table, a sentence a length, and where to look."""
    from promptlimits.report.html import write_report
    from promptlimits.report.tables import BracketTable, summary_lines
    from promptlimits.report.wording import where_seconds_went

    page = write_report(record, out)
    if as_json:
        typer.echo(as_text(record.to_json()))
        return
    console = Console(highlight=False)
    console.print(BracketTable(record))
    for line in summary_lines(record):
        console.print(line, markup=False)
    console.print(f"Where the seconds went: {where_seconds_went(record)}", markup=False)
    console.print(f"\nReport: {page}", markup=False, soft_wrap=True)
    if record.go_on:
        console.print(f"Go on:  {record.go_on}", markup=False, soft_wrap=True)
    for bracket in record.brackets:
        if bracket.floor.witness:
            line = session.check_line(out / bracket.floor.witness, record.model.reference)
            console.print(line, markup=False, soft_wrap=True)


@options.with_groups
def fit(
    model: session.Model = "smollm2-135m",
    asked: session.Asked = session.Asked(),
    prompt_tokens: Annotated[int, typer.Option("--prompt-tokens", help="Prompt length.")] = 1,
    kind: Annotated[
        Literal["soft", "prefix"],
        typer.Option(
            "--kind",
            metavar="KIND",
            help="What a prompt is: soft (input vectors), prefix (keys and values of every layer).",
        ),
    ] = "soft",
    out: options.Out = Path("runs/fit"),
    training: session.Training = session.Training(),
    machine: session.Machine = session.Machine(),
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Train one prompt for all the pairs, and confirm it.

    The prompt is saved as a PEFT adapter. Exit code 0 if every pair is confirmed, 1 if some are
    not, 3 if the budget was used up before anything could be held; what was held is saved anyway.
    The same command goes on where it stopped.

    Example: promptlimits fit --pairs pairs.csv --prompt-tokens 2
    """
    budgets = training.budgets(default_seconds=600.0)
    config = training.config(prompt_tokens, seed=asked.seed, dtype=machine.dtype)
    source = asked.read()
    options.require_folder(out)

    from promptlimits.capacity.fit import fit_all
    from promptlimits.capacity.store.sqlite import Store
    from promptlimits.cli.live import LiveListener

    request = training.request(
        source,
        config,
        budgets,
        prompt_tokens=(prompt_tokens,),
        kinds=(kind,),
        order="given",
        in_context_tokens=0,
    )
    with LiveListener(quiet=quiet) as listener, Store.open(session.store_path(out)) as store:
        frozen, task = machine.load(model, source, listener)
        request = training.on(frozen, request)
        record = fit_all(frozen, task, request, folder=out, store=store, listener=listener)
    write_json(out / "fit.json", record.to_json())
    if as_json:
        typer.echo(as_text(record.to_json()))
    else:
        _show(record, out, model)
    session.require_confirmed(record)
    if record.state == "not_searched":
        raise typer.Exit(session.NOT_SEARCHED)
    raise typer.Exit(0 if record.pairs == record.of else 1)


def _show(record: Fit, out: Path, model: str) -> None:
    """Print what was confirmed and, where something is missing, what is known of the reason."""
    from promptlimits.report.wording import clean, control_sentence

    if record.text_tokens is None:
        both = record.also_answered_unprompted
        without = f" ({both} of them also without a prompt)" if both else ""
        typer.echo(f"{record.pairs} of {record.of} pairs found and confirmed{without}")
    else:
        whole = "found and confirmed" if record.pairs else "not held as a whole"
        typer.echo(f"the {record.text_tokens} tokens of the text: {whole}")
    if record.witness:
        typer.echo(session.check_line(out / record.witness, model))
    if record.pairs != record.of:
        typer.echo(f"Ended {record.outcome}: {record.remedy}")
    if record.go_on:
        typer.echo(f"Go on:  {record.go_on}")
    said = control_sentence(record.control)
    if said:
        typer.echo(clean(said))


def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of a bracket.")],
    plot: options.Plot = None,
    as_json: options.AsJson = False,
) -> None:
    """Draw report.html again from the records of a bracket.

    Example: promptlimits report runs/bracket
    """
    from promptlimits.record.record import read_record

    require_writable("--plot", plot)
    path = directory / "bracket.json"
    document = options.read_json(
        path,
        name=str(path),
        rule="be a record that can be read",
        got="one that cannot",
        remedy="give the --out folder of a `promptlimits bracket` that has ended",
    )
    record = read_record(document)
    _require_whole(record, directory)
    if plot is not None:
        from promptlimits.report.figures.pairs_held import PairsHeld

        write_whole("--plot", plot, PairsHeld(record).svg())
    show(record, directory, as_json=as_json)


def _require_whole(record: Record, directory: Path) -> None:
    """A page must not show a floor beside files that are no longer its own."""
    from promptlimits.capacity.record import is_whole

    if not is_whole(record, directory):
        raise UserError(
            str(directory),
            "hold the witnesses and certificates that its bracket.json speaks of",
            got="other ones, or none",
            remedy="run its bracket command again: it is quick. Or use a folder for each command",
        )


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
    _show_pairs(task, codec)


def _document(task: EncodedTask) -> JsonObject:
    return {
        "pairs": [
            {**pair.to_json(), "where": where}
            for pair, where in zip(task.pairs, task.places, strict=True)
        ],
        "notes": list(task.notes),
    }


def _show_pairs(task: EncodedTask, codec: TextCodec) -> None:
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
