"""`promptlimits fit`: one prompt for all the given pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptlimits.base.checks import require_positive_int
from promptlimits.cli import options
from promptlimits.cli.product import session

if TYPE_CHECKING:
    from promptlimits.base.typing import JsonObject


_DEFAULT_SECONDS = 600.0


def fit(
    model: options.Model = "smollm2-135m",
    pairs: options.Pairs = "capitals",
    columns: options.Columns = None,
    answer: options.Answer = None,
    choices: options.Choices = None,
    prompt_tokens: Annotated[int, typer.Option("--prompt-tokens", help="Prompt length.")] = 1,
    kind: options.Kind = "soft",
    out: options.Out = Path("runs/fit"),
    budget: options.Budget = None,
    steps: options.Steps = None,
    template: options.Template = None,
    chat: options.Chat = False,
    joiner: options.Joiner = "auto",
    limit: options.Limit = None,
    starts: options.Starts = 3,
    learning_rate: options.LearningRate = 1.0,
    max_steps: options.MaxSteps = 600,
    patience: options.Patience = 150,
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
    """Train one prompt for all the pairs, save it as a PEFT adapter, and confirm it.

    Exit code 0 if every pair is confirmed, 1 if some are not, 3 if the budget was used up before
    anything could be held; what was held is saved anyway. The same command goes on where it
    stopped.
    """
    require_positive_int("--starts", starts)
    kind = options.prompt_kind(kind)
    budgets = session.budgets_of(budget, steps, default_seconds=_DEFAULT_SECONDS)
    options.require_dtype(dtype)
    options.require_threads(threads)
    budget_bytes = options.memory_bytes(memory)
    training = session.training_config(
        prompt_tokens=prompt_tokens,
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

    from promptlimits.base.writing import replace_file
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
        search=SearchConfig(training=training, starts=starts),
        order=Order.GIVEN,
        in_context_tokens=0,
        budget_bytes=budget_bytes,
        budget_seconds=budgets.seconds,
        budget_steps=budgets.steps,
        control=control,
        command=session.command_line(),
        go_on=budgets.go_on,
    )
    with LiveListener(quiet=quiet) as listener, Store.open(session.store_path(out)) as store:
        frozen, task = session.load_model_and_pairs(
            model,
            source,
            dtype=dtype,
            device=device,
            threads=threads,
            offline=offline,
            listener=listener,
        )
        record = fit_all(frozen, task, request, folder=out, store=store, listener=listener)
    text = json.dumps(record, indent=1, ensure_ascii=False)
    replace_file(out / "fit.json", (text + "\n").encode("utf-8", errors="backslashreplace"))
    if as_json:
        typer.echo(text)
    else:
        _show(record, out, model)
    session.require_confirmed(record)
    if record["state"] == "not_searched":
        raise typer.Exit(session.NOT_SEARCHED)
    raise typer.Exit(0 if record["pairs"] == record["of"] else 1)


def _show(record: JsonObject, out: Path, model: str) -> None:
    """Print what was confirmed and, where something is missing, what is known of the reason."""
    from promptlimits.report.record import parse_control
    from promptlimits.report.wording import clean, control_sentence

    if record["text_tokens"] is None:
        both = record["also_answered_unprompted"]
        without = f" ({both} of them also without a prompt)" if both else ""
        typer.echo(f"{record['pairs']} of {record['of']} pairs found and confirmed{without}")
    else:
        whole = "found and confirmed" if record["pairs"] else "not held as a whole"
        typer.echo(f"the {record['text_tokens']} tokens of the text: {whole}")
    if record["witness"]:
        from promptlimits.cli.render import check_line

        typer.echo(check_line(out / str(record["witness"]), model))
    if record["pairs"] != record["of"]:
        typer.echo(f"Ended {record['outcome']}: {record['remedy']}")
    if record["go_on"]:
        typer.echo(f"Go on:  {record['go_on']}")
    said = control_sentence(parse_control(record["control"]))
    if said:
        typer.echo(clean(said))
