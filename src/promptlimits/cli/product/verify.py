"""Prompts decoded again with stock tools: `promptlimits verify` and `promptlimits score`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from promptlimits.base.errors import UserError
from promptlimits.base.files import write_json
from promptlimits.cli import options
from promptlimits.cli.output import as_text, show
from promptlimits.cli.product import session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from promptlimits.base.files import JsonObject
    from promptlimits.capacity.witness.format import Witness
    from promptlimits.capacity.witness.verification import Answer, Verification


def verify(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the witness.")],
    model: Annotated[
        str | None,
        typer.Option("--model", help="The model, if not where the witness says it is."),
    ] = None,
    any_weights: Annotated[
        bool, typer.Option("--any-weights", help="Decode with other weights, too.")
    ] = False,
    device: options.Device = "cpu",
    as_json: options.AsJson = False,
) -> None:
    """Decode a saved prompt again with stock PEFT, and compare.

    It runs in a fresh process, decodes greedily, and says with which model. Exit code 0 if every
    pair it was confirmed for is answered exactly again, 1 if not.

    Example: promptlimits verify runs/bracket/witness-1-tokens
    """
    from promptlimits.capacity.witness.format import read_prompt, read_witness

    options.require_unicode("DIR", directory)
    # What is wrong with the folder shows now, not after seconds in the fresh process.
    witness = read_witness(directory)
    read_prompt(directory, witness)
    found = _decoded(
        directory, model, any_weights=any_weights, device=device, pairs=len(witness.pairs)
    )
    lost = [
        answer
        for answer, claimed in zip(found.answers, witness.counted, strict=True)
        if claimed and not answer.exact
    ]
    record = {
        **found.to_json(),
        "model": None if found.model is None else found.model.to_json(),
        "beginning": witness.beginning,
        "lost": len(lost),
    }
    show(record, _lines(found, witness, lost), as_json=as_json)
    raise typer.Exit(1 if lost else 0)


def _lines(found: Verification, witness: Witness, lost: list[Answer]) -> Iterator[str]:
    for answer in lost:
        yield f"NOT CONFIRMED {answer.key!r}: {answer.decoded!r} ({answer.fault})"
    held = f"{found.pairs_exact} of {found.of} pairs exact"
    others = sum(answer.exact and answer.came != answer.value for answer in found.answers)
    if others:
        held += f", {others} by another accepted answer"
    if witness.beginning:
        held = _beginning(len(witness.pairs[0].value_ids), exact=bool(found.pairs_exact))
    yield f"{held}: {found.confirmed_by}"
    for joiner in dict.fromkeys(pair.joiner for pair in witness.pairs if pair.joiner.strip()):
        yield f"Answers begin with {joiner!r}, which the witness calls the joiner"
    yield _model_line(found)


def _decoded(
    directory: Path, model: str | None, *, any_weights: bool, device: str, pairs: int
) -> Verification:
    """What stock tools answer, with progress for whoever watches."""
    from promptlimits.capacity.witness.fresh_process import verify_in_fresh_process
    from promptlimits.cli.live import LiveListener

    with LiveListener(quiet=not sys.stderr.isatty()) as listener, options.named_as_typed():
        listener.stage("decoding with stock tools in a fresh process", total=pairs)
        return verify_in_fresh_process(
            directory,
            model_path=model,
            any_weights=any_weights,
            device=device,
            on_progress=lambda done, _of: listener.advanced(done),
        )


def _model_line(found: Verification) -> str:
    """Which model answered, where it came from, and whether it is the witness's own."""
    used = found.model
    assert used is not None
    own = "" if found.same_weights else "; NOT the weights that the witness was found with"
    return f"Model: {used.name!r}, from {used.source!r}, SHA-256 {used.hash}{own}"


def _beginning(tokens: int, *, exact: bool) -> str:
    """What came of the beginning of a text."""
    first = "first token" if tokens == 1 else f"first {tokens} tokens"
    return f"the {first} of the text {'exact' if exact else 'not written'}, no end marker asked for"


SCORE_FILE: Final = "score.json"
WITNESS_FOLDER: Final = "witness"
_MOST_SHOWN: Final = 10


@options.with_groups
def score(
    adapter: Annotated[
        Path,
        typer.Argument(metavar="ADAPTER", help="Folder of a PEFT adapter.", show_default=False),
    ],
    model: session.Model,
    asked: session.Asked = session.Asked(pairs=options.REQUIRED),
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the record, and the witness where there is one."),
    ] = None,
    machine: session.Machine = session.Machine(),
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Count the pairs that an adapter trained elsewhere answers.

    Stock PEFT decodes each pair, which must be exact. The folder is not trusted: nothing is loaded
    but the tensors that PEFT would save for such an adapter, and the model is the one of --model.
    Exit code 0 whenever it was scored.

    Example: promptlimits score adapter --model smollm2-135m --pairs capitals
    """
    source = asked.read()
    if session.noun_of(source) == "token":
        raise UserError(
            "--pairs",
            "be a list of pairs",
            got=asked.pairs,
            remedy="put the text into a .csv file, as the value of a key",
        )
    if out is not None:
        options.require_folder(out)

    from promptlimits.capacity.adapter.folder import read_foreign_adapter
    from promptlimits.capacity.adapter.score import save_scored_witness, score_adapter
    from promptlimits.capacity.witness.files import require_replaceable
    from promptlimits.cli.live import LiveListener

    # What is wrong with the folder shows now, before a model is loaded.
    foreign = read_foreign_adapter(adapter)
    if out is not None and foreign.kind.is_prompt:
        require_replaceable(out / WITNESS_FOLDER)
    with LiveListener(quiet=quiet) as listener:
        frozen, task = machine.load(model, source, listener)
        card = frozen.card
        del frozen  # the fresh process loads its own

        def advanced(done: int, _of: int) -> None:
            listener.advanced(done)

        listener.stage("decoding with and without it in a fresh process", 2 * len(task.pairs))
        found = score_adapter(
            foreign,
            task,
            card,
            device=machine.device,
            allow_hub=not machine.offline,
            on_progress=advanced,
        )
        witness: JsonObject = {"witness": None, "reason": _no_witness(foreign.kind.value, out)}
        if out is not None and foreign.kind.is_prompt:
            listener.stage("decoding the witness in a fresh process", len(task.pairs))
            folder = out / WITNESS_FOLDER
            verified = save_scored_witness(
                folder,
                foreign,
                found,
                task,
                card,
                device=machine.device,
                extra={"seed": asked.seed, "command": session.command_line()},
                on_progress=advanced,
            )
            witness = {
                "witness": str(folder),
                "reason": "",
                "witness_exact": verified.pairs_exact,
            }
    record: dict[str, Any] = {
        **found.to_json(),
        "adapter": {"folder": str(adapter), **foreign.to_json()},
        "model": {
            "name": card.name,
            "reference": model,
            "model_hash": card.model_hash,
            "compute_dtype": card.compute_dtype,
        },
        "task": {"name": task.name, "hash": task.hash, "source": task.source},
        **witness,
        "notes": [*card.notes, *task.notes, *foreign.notes, *found.notes],
    }
    if out is not None:
        write_json(out / SCORE_FILE, record)
    if as_json:
        typer.echo(as_text(record))
    else:
        _show(record)


def _no_witness(kind: str, out: Path | None) -> str:
    """Why no witness is written, where none is."""
    if kind in ("LORA", "IA3"):
        return f"there is no kind of witness for {kind} yet"
    return "" if out is not None else "no folder was named with --out"


def _show(record: dict[str, Any]) -> None:
    """Print the count, what was decoded with what, and how to check it."""
    wrong = [answer for answer in record["answers"] if not answer["exact"]]
    for answer in wrong[:_MOST_SHOWN]:
        typer.echo(f"NOT EXACT {answer['key']!r}: {answer['decoded']!r} ({answer['fault']})")
    if len(wrong) > _MOST_SHOWN:
        typer.echo(f"and {len(wrong) - _MOST_SHOWN} more (--json lists all)")
    both = record["exact"] - record["credited"]
    without = f" ({both} of them also without the adapter)" if both else ""
    typer.echo(f"{record['exact']} of {record['of']} pairs exact{without}: {record['tools']}")
    adapter, model = record["adapter"], record["model"]
    tokens = adapter["virtual_tokens"]
    size = f", {tokens} token{'' if tokens == 1 else 's'}" if tokens else ""
    typer.echo(f"Adapter:  {adapter['kind']}{size}, {adapter['numbers']:,} numbers")
    if adapter["replaces"]:
        typer.echo(f"  tensors in place of the model's own: {len(adapter['replaces'])}")
    typer.echo(f"Model:  {model['name']} ({model['model_hash'][:12]}...)")
    if record["witness"]:
        typer.echo(f"Witness:  {record['witness']} ({record['witness_exact']} pairs exact)")
        typer.echo(session.check_line(Path(record["witness"]), model["reference"]))
    else:
        typer.echo(f"Witness:  none ({record['reason']})")
    for note in record["notes"]:
        typer.echo(f"Note:  {note}")
