"""`promptlimits verify`: decode a saved prompt again with stock tools."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptlimits.cli import options
from promptlimits.cli.output_file import show

if TYPE_CHECKING:
    from collections.abc import Iterator

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
