"""`promptlimits bracket`: the main job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptlimits.base.checks import require_positive_int
from promptlimits.base.errors import UserError
from promptlimits.cli import options
from promptlimits.cli.product import session

if TYPE_CHECKING:
    from promptlimits.base.typing import JsonObject

_ORDERS = ("easiest", "given", "shuffled")
_DEFAULT_SECONDS = 240.0


def bracket(
    model: options.Model = "smollm2-135m",
    pairs: options.Pairs = "capitals",
    columns: options.Columns = None,
    answer: options.Answer = None,
    choices: options.Choices = None,
    prompt_tokens: Annotated[
        str, typer.Option("--prompt-tokens", help="Prompt lengths, such as 1,2,4.")
    ] = "1",
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            help="What prompts are: soft (input vectors), prefix (keys and values of every "
            "layer), or soft,prefix for both in one table.",
        ),
    ] = "soft",
    out: options.Out = Path("runs/bracket"),
    budget: options.Budget = None,
    steps: options.Steps = None,
    order: Annotated[
        str, typer.Option("--order", help="Order in which pairs are tried: " + ", ".join(_ORDERS))
    ] = "easiest",
    template: options.Template = None,
    chat: options.Chat = False,
    joiner: options.Joiner = "auto",
    limit: options.Limit = None,
    first_size: Annotated[
        int,
        typer.Option(
            "--first-size", help="Pairs, or tokens of a text, that the search begins with."
        ),
    ] = 8,
    starts: options.Starts = 2,
    learning_rate: options.LearningRate = 1.0,
    max_steps: options.MaxSteps = 400,
    patience: options.Patience = 80,
    in_context_tokens: Annotated[
        int,
        typer.Option(
            "--in-context-tokens", help="Most tokens of the in-context baseline; 0 leaves it out."
        ),
    ] = 2048,
    control: options.Control = True,
    seed: options.Seed = 0,
    dtype: options.Dtype = "float32",
    device: options.Device = "cpu",
    memory: options.Memory = None,
    threads: options.Threads = None,
    offline: options.Offline = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Find how many pairs a prompt holds, and prove a ceiling for random answers.

    For each prompt length: the floor, a prompt that was found, saved, and confirmed by stock
    PEFT; and the ceiling, a theorem about random answers. Stop it whenever you like: the same
    command goes on where it stopped.

    Exit code 0 if every prompt length was searched, 3 if the budget was used up before.
    """
    lengths = options.prompt_lengths(prompt_tokens)
    kinds = options.prompt_kinds(kind)
    if order not in _ORDERS:
        raise UserError(
            "--order", f"be one of {', '.join(_ORDERS)}", got=order, remedy="use easiest"
        )
    if in_context_tokens < 0:
        raise UserError(
            "--in-context-tokens", "be 0 or more", got=in_context_tokens, remedy="give 0 or more"
        )
    require_positive_int("--first-size", first_size)
    require_positive_int("--starts", starts)
    budgets = session.budgets_of(budget, steps, default_seconds=_DEFAULT_SECONDS)
    options.require_dtype(dtype)
    options.require_threads(threads)
    budget_bytes = options.memory_bytes(memory)
    training = session.training_config(
        prompt_tokens=lengths[0],
        learning_rate=learning_rate,
        max_steps=max_steps,
        patience=patience,
        seed=seed,
        dtype=dtype,
    )
    source = session.read_pairs(
        pairs,
        columns=columns,
        answer=answer,
        choices=choices,
        template=template,
        chat=chat,
        joiner=joiner,
        seed=seed,
        limit=limit,
    )
    training = session.suited_to(source, training)
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
        search=SearchConfig(training=training, first_size=first_size, starts=starts),
        order=Order(order),
        budget_seconds=budgets.seconds,
        budget_steps=budgets.steps,
        in_context_tokens=in_context_tokens,
        control=control,
        kinds=tuple(map(PromptKind, kinds)),
        budget_bytes=budget_bytes,
        command=session.command_line(),
        go_on=budgets.go_on,
    )
    with (
        LiveListener(quiet=quiet, noun=session.noun_of(source)) as listener,
        Store.open(session.store_path(out)) as store,
    ):
        frozen, task = session.load_model_and_pairs(
            model,
            source,
            dtype=dtype,
            device=device,
            threads=threads,
            offline=offline,
            listener=listener,
        )
        record = measure(frozen, task, request, folder=out, store=store, listener=listener)
    _show(record, out, as_json=as_json)
    session.require_confirmed(record)
    from promptlimits.report.rows import as_record

    searched = all(bracket.searched for bracket in as_record(record).brackets)
    raise typer.Exit(0 if searched else session.NOT_SEARCHED)


def _show(record: JsonObject, out: Path, *, as_json: bool) -> None:
    """Write the report and print the result on standard output."""
    from promptlimits.report.html import write_report

    page = write_report(record, out)
    if as_json:
        typer.echo(json.dumps(record, indent=1, ensure_ascii=False))
        return
    from promptlimits.cli.render import print_bracket

    print_bracket(record, out, page)
