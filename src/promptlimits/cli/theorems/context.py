"""`promptlimits context`: what prompts of any length can do, as published and as it holds."""

from __future__ import annotations

import itertools
from decimal import ROUND_CEILING, Context, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from promptlimits.base.errors import UserError
from promptlimits.cli import options
from promptlimits.cli.output import as_text, require_writable, write_whole
from promptlimits.cli.theorems.generated import named

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from promptlimits.base.files import JsonObject
    from promptlimits.bounds.context.layers import LayerConstants
    from promptlimits.bounds.core import Theorem

SHORT_PROMPTS: Final = "promptlimits.bounds.context.whole_output:ShortPromptCapacity"
"""The theorem whose fields are the options."""

_HEADINGS = {
    "published": "Theorem 4.10 as published (C = 1, not proved)",
    "put_right": "the same with its 3 put right (C = 1, not proved)",
    "2a": "Theorem 2a: whole outputs",
    "2a_rogers": "Theorem 2a with Rogers' cover",
    "2b": "Theorem 2b: whole outputs, short prompts",
    "2c": "Theorem 2c: the last tokens",
}
_MEANING = (
    "K: more than K pairs cannot all be served. Of the lists of k > K targets, a share below 1 is",
    "within the error for some prompt, of whatever length: some list is beyond every prompt.",
)
_DIGITS = Context(prec=4, rounding=ROUND_CEILING)


def context(
    layers_json: Annotated[
        Path | None,
        typer.Option(
            "--layers-json",
            metavar="FILE",
            help="Limits of each layer: a list of radius, mlp_lipschitz and heads "
            "([||V||, ||A||] each), numbers in quotes.",
        ),
    ] = None,
    unmasked: Annotated[
        bool, typer.Option("--unmasked", help="Attention sees all tokens; one layer only.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write the certificate: Theorem 2c's, or 2b's."),
    ] = None,
    as_json: options.AsJson = False,
    **typed: str,
) -> None:
    """What prompts of any length can do: Theorem 4.10, 2a to 2c.

    Theorem 4.10 is given as published. Closed form, no model. Above K pairs some lists of targets
    cannot be served by any prompt of any length with tokens in the ball.

    Example: promptlimits context --dim 64 --lipschitz 10 --radius 1 --eps 0.01
    """
    if out is not None:
        require_writable("--out", out)
    record, certificate = _record(_theorems(typed, layers_json, masked=not unmasked))
    if out is not None:
        write_whole("--out", out, as_text(certificate) + "\n")
    if as_json:
        typer.echo(as_text(record))
    else:
        _print(record, typed.get("tokens", "1"))


def _print(record: Any, tokens: str) -> None:
    for line in _MEANING:
        typer.echo(line)
    for name, heading in _HEADINGS.items():
        if found := record.get(name):
            typer.echo(f"  {heading:<52} K = {_power(found['log10'])}")
    lengths = record.get("washout", [])
    for row in lengths:
        typer.echo(
            f"  Theorem W: behind {row['prompt_tokens']:,} prompt tokens the outputs of two "
            f"queries of {tokens} tokens that end alike differ by at most {_power(row['log10'])}"
        )
    stated = {
        "Theorems 2a and 2b": record["2a"]["assumptions"],
        "Theorem 2b alone": record["2b"]["assumptions"][len(record["2a"]["assumptions"]) :],
        "Theorem 2c": record.get("2c", {}).get("assumptions", []),
        "Theorem W": lengths[0]["assumptions"] if lengths else [],
    }
    for name, texts in stated.items():
        for text in texts:
            typer.echo(f"Assumed for {name}: {text}")
    for note in record["notes"]:
        typer.echo(f"Note: {note}")


def _power(log10: float) -> str:
    """An upper limit as a power of ten, of four digits, rounded up."""
    digits = _DIGITS.create_decimal(log10)
    if abs(digits) < 1:
        digits = digits.quantize(Decimal("0.0001"), ROUND_CEILING)
    return f"10^{float(digits):,.4g}"


def _theorems(
    typed: dict[str, str], layers_json: Path | None, *, masked: bool
) -> dict[str, Theorem]:
    """The theorems of the case that the options describe; the strongest is the last."""
    from promptlimits.bounds.context.last_tokens import LastTokensCapacity
    from promptlimits.bounds.context.whole_output import ShortPromptCapacity, WholeOutputCapacity

    short = ShortPromptCapacity.model_validate(typed)
    shared = WholeOutputCapacity.model_fields.keys() & ShortPromptCapacity.model_fields.keys()
    sizes = {name: getattr(short, name) for name in shared - {"choice"}}
    whole = WholeOutputCapacity(**sizes)
    found: dict[str, Theorem] = {"2a": whole}
    if short.dim >= 3:
        found["2a_rogers"] = WholeOutputCapacity(**sizes, cover="rogers", choice=whole.choice)
    found["2b"] = short
    if layers_json is not None:
        layers = _layers(layers_json, masked=masked)
        radius = {"target_radius": short.radius, "eps": short.eps}
        with named(target_radius="--radius"):
            found["2c"] = LastTokensCapacity.model_validate(
                {"dim": short.dim, "layers": layers, "tokens": short.tokens, **radius}
            )
    return found


def _record(theorems: dict[str, Any]) -> tuple[JsonObject, JsonObject]:
    """The answer as plain JSON, and the certificate of the strongest theorem."""
    from promptlimits.bounds.context.layers import Washout
    from promptlimits.bounds.context.whole_output import ASSUMPTION, published_log_threshold

    record: JsonObject = {}
    for name, right in (("published", False), ("put_right", True)):
        log = published_log_threshold(theorems["2a"], threes_put_right=right)
        statement = "Theorem 4.10" + ", 1/(3 eps) for 3/eps" * right
        record[name] = _shown(log, ("as published", statement), [ASSUMPTION])
    for name, theorem in theorems.items():
        certificate = theorem.certificate()
        log, said = certificate["value"]["log_threshold"], ("corrected", f"Theorem {name[:2]}")
        record[name] = _shown(log, said, theorem.rests_on())
    layers = theorems["2c"].layers if "2c" in theorems else ()
    tokens = theorems["2b"].tokens
    if layers and tokens > 1:
        behind = (
            Washout(layers=layers, query_tokens=tokens, prompt_tokens=10**power)
            for power in range(1, 7)
        )
        record["washout"] = [
            {"prompt_tokens": each.prompt_tokens}
            | _shown(each.value()["log_difference"], ("proved here", "Theorem W"), each.rests_on())
            for each in behind
        ]
    record["notes"] = list(_notes(layers))
    return record, certificate


def _notes(layers: Sequence[LayerConstants]) -> Iterator[str]:
    """Layers whose radius is an assumption of its own: limits on the layer before yield more.

    None is impossible: all limits are upper ones, and an MLP may map all to 0.
    """
    from promptlimits.base.exact import shown

    for place, (layer, after) in enumerate(itertools.pairwise(layers), start=2):
        if after.radius < layer.next_radius():
            yield (
                f"the radius {shown(after.radius)} of layer {place} is below "
                f"{shown(layer.next_radius())}, what the limits of the layer before yield if its "
                "MLP maps 0 to 0: that it covers every context is taken on trust."
            )


def _shown(log: int, said: tuple[str, str], assumptions: Sequence[str]) -> JsonObject:
    """An upper limit as log10, rounded up, and what it is."""
    from promptlimits.base.exact import log10_up

    form, statement = said
    return {
        "log10": log10_up(log),
        "radius": 0.0,
        "form": form,
        "statement": statement,
        "assumptions": list(assumptions),
    }


def _layers(path: Path, *, masked: bool) -> list[Any]:
    """What a file says of each layer, to be read by the theorem."""
    record = options.read_json(
        path,
        name="--layers-json",
        rule="be a file of JSON that can be read",
        remedy='write [{"radius": "1", "mlp_lipschitz": "1", "heads": [["1", "1"]]}]',
        floats_as_text=True,
    )
    if not isinstance(record, list) or not record:
        raise UserError(
            "--layers-json", "be a list of layers", got=str(path), remedy="put them in [ ]"
        )
    if len(record) > 1 and not masked:
        raise UserError(
            "layers",
            "be one without a mask",
            got=len(record),
            remedy="beyond it the prompt's tokens see the query, and Theorem 2c does not hold",
        )
    return record
