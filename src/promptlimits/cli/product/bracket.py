"""`promptlimits bracket`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from promptlimits.cli import options
from promptlimits.cli.output_file import as_text
from promptlimits.cli.product import session

if TYPE_CHECKING:
    from promptlimits.record.record import Record

_DEFAULT_SECONDS = 240.0


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
        int,
        typer.Option(
            "--first-size", min=1, help="Pairs, or tokens of a text, that the search begins with."
        ),
    ] = 8,
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
    budgets = training.budgets(default_seconds=_DEFAULT_SECONDS)
    config = training.config(lengths[0], seed=asked.seed, dtype=machine.dtype)
    source = asked.read()
    options.require_folder(out)

    from promptlimits.capacity.measure import measure
    from promptlimits.capacity.search.ordering import Order
    from promptlimits.capacity.search.request import Request
    from promptlimits.capacity.search.search import SearchConfig
    from promptlimits.capacity.store.sqlite import Store
    from promptlimits.cli.live import LiveListener
    from promptlimits.nets.protocol import PromptKind

    request = Request(
        prompt_tokens=lengths,
        search=SearchConfig(
            training=session.suited_to(source, config),
            first_size=first_size,
            starts=training.starts,
        ),
        order=Order(order),
        budget_seconds=budgets.seconds,
        budget_steps=budgets.steps,
        in_context_tokens=in_context_tokens,
        control=training.control,
        kinds=tuple(map(PromptKind, kinds)),
        budget_bytes=training.memory,
        command=session.command_line(),
        go_on=budgets.go_on,
    )
    with (
        LiveListener(quiet=quiet, noun=session.noun_of(source)) as listener,
        Store.open(session.store_path(out)) as store,
    ):
        frozen, task = machine.load(model, source, listener)
        record = measure(frozen, task, request, folder=out, store=store, listener=listener)
    show(record, out, as_json=as_json)
    session.require_confirmed(record)
    searched = all(each.searched for each in record.brackets)
    raise typer.Exit(0 if searched else session.NOT_SEARCHED)


def show(record: Record, out: Path, *, as_json: bool) -> None:
    """Write the report and print the result on standard output."""
    from promptlimits.report.html import write_report

    page = write_report(record, out)
    if as_json:
        typer.echo(as_text(record.to_json()))
        return
    from promptlimits.cli.product.render import print_bracket

    print_bracket(record, out, page)
