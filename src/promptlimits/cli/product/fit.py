"""`promptlimits fit`: one prompt for all the given pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from promptlimits.base.writing import write_json
from promptlimits.cli import options
from promptlimits.cli.output_file import as_text
from promptlimits.cli.product import session

if TYPE_CHECKING:
    from promptlimits.record.record import Fit


_DEFAULT_SECONDS = 600.0


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
    budgets = training.budgets(default_seconds=_DEFAULT_SECONDS)
    config = training.config(prompt_tokens, seed=asked.seed, dtype=machine.dtype)
    source = asked.read()
    options.require_folder(out)

    from promptlimits.capacity.fit import fit_all
    from promptlimits.capacity.search.ordering import Order
    from promptlimits.capacity.search.request import Request
    from promptlimits.capacity.search.search import SearchConfig
    from promptlimits.capacity.store.sqlite import Store
    from promptlimits.cli.live import LiveListener
    from promptlimits.nets.protocol import PromptKind

    request = Request(
        prompt_tokens=(prompt_tokens,),
        kinds=(PromptKind(kind),),
        search=SearchConfig(training=session.suited_to(source, config), starts=training.starts),
        order=Order.GIVEN,
        in_context_tokens=0,
        budget_bytes=training.memory,
        budget_seconds=budgets.seconds,
        budget_steps=budgets.steps,
        control=training.control,
        command=session.command_line(),
        go_on=budgets.go_on,
    )
    with LiveListener(quiet=quiet) as listener, Store.open(session.store_path(out)) as store:
        frozen, task = machine.load(model, source, listener)
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
        from promptlimits.cli.product.render import check_line

        typer.echo(check_line(out / record.witness, model))
    if record.pairs != record.of:
        typer.echo(f"Ended {record.outcome}: {record.remedy}")
    if record.go_on:
        typer.echo(f"Go on:  {record.go_on}")
    said = control_sentence(record.control)
    if said:
        typer.echo(clean(said))
