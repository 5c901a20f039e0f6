"""`promptlimits context`: what prompts of any length can do, as published and as it holds."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptlimits.base.errors import UserError
from promptlimits.base.files import read_regular_text
from promptlimits.cli import options
from promptlimits.cli.numbers import count, positive, positive_of_any_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from promptlimits.base.bound import Certificate, Exact, LogBound
    from promptlimits.base.typing import JsonObject
    from promptlimits.theory.layer_constants import LayerConstants

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


@dataclass(frozen=True, kw_only=True)
class _Case:
    dim: int
    lipschitz: Exact | LogBound
    radius: Fraction
    eps: Fraction
    order: Fraction
    tokens: int
    layers: Sequence[LayerConstants]
    masked: bool


def context(
    dim: Annotated[str, typer.Option("--dim", metavar="D", help="Numbers per token.")],
    lipschitz: Annotated[
        str, typer.Option("--lipschitz", metavar="L", help="Of the mean-field map, for W_q.")
    ],
    radius: Annotated[
        str,
        typer.Option(
            "--radius", metavar="R", help="Of the ball of all tokens (2a, 2b); of targets (2c)."
        ),
    ],
    eps: Annotated[str, typer.Option("--eps", metavar="E", help="The error allowed, below R/2.")],
    order: Annotated[
        str, typer.Option("--order", metavar="Q", help="q of the distance W_q, 1 or more.")
    ] = "2",
    tokens: Annotated[
        str, typer.Option("--tokens", metavar="N", help="Tokens of each query, and target (2c).")
    ] = "1",
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
) -> None:
    """What prompts of any length can do: Theorem 4.10 as published, 2a, 2b, and 2c.

    Closed form, no model. Above K pairs some lists of targets cannot be served by any prompt of
    any length with tokens in the ball.
    """
    case = _case(dim, lipschitz, radius, eps, order, tokens, layers_json, masked=not unmasked)
    record, certificate = _record(case)
    if out is not None:
        _write(out, certificate)
    if as_json:
        typer.echo(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False))
        return
    _print(case, record)


def _print(case: _Case, record: Any) -> None:
    for line in _MEANING:
        typer.echo(line)
    for name, heading in _HEADINGS.items():
        if found := record.get(name):
            typer.echo(f"  {heading:<52} K = {_power(found['log10'])}")
    lengths = record.get("washout", [])
    for row in lengths:
        typer.echo(
            f"  Theorem W: behind {row['prompt_tokens']:,} prompt tokens the outputs of two "
            f"queries of {case.tokens} tokens that end alike differ by at most "
            f"{_power(row['log10'])}"
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


def _record(case: _Case) -> tuple[JsonObject, Certificate]:
    """The answer as plain JSON, and the certificate of the strongest theorem."""
    from promptlimits.theory.context_published import published_threshold
    from promptlimits.theory.last_tokens_capacity import last_tokens_capacity
    from promptlimits.theory.washout import washout
    from promptlimits.theory.whole_output_capacity import (
        short_prompt_capacity,
        whole_output_capacity,
    )

    given: dict[str, Any] = {
        "dim": case.dim,
        "lipschitz": case.lipschitz,
        "radius": case.radius,
        "eps": case.eps,
        "order": case.order,
    }
    whole = whole_output_capacity(**given)
    record: JsonObject = {
        "published": _shown(published_threshold(**given)),
        "put_right": _shown(published_threshold(**given, threes_put_right=True)),
        "2a": _shown(whole.threshold),
    }
    if case.dim >= 3:
        rogers = whole_output_capacity(**given, cover="rogers", choice=whole.choice)
        record["2a_rogers"] = _shown(rogers.threshold)
    short = short_prompt_capacity(**given, tokens=case.tokens)
    record["2b"], certificate = _shown(short.threshold), short.certificate
    if case.layers:
        last = last_tokens_capacity(
            dim=case.dim,
            layers=case.layers,
            eps=case.eps,
            tokens=case.tokens,
            target_radius=case.radius,
            masked=case.masked,
        )
        record["2c"], certificate = _shown(last.threshold), last.certificate
        if case.tokens > 1:
            record["washout"] = [
                {"prompt_tokens": length}
                | _shown(
                    washout(
                        layers=case.layers, query_tokens=case.tokens, prompt_tokens=length
                    ).difference
                )
                for length in (10, 100, 1000, 10_000, 100_000, 1_000_000)
            ]
    record["notes"] = list(_notes(case.layers))
    return record, certificate


def _notes(layers: Sequence[LayerConstants]) -> Iterator[str]:
    """Layers whose radius is an assumption of its own: limits on the layer before yield more.

    None is impossible: all limits are upper ones, and an MLP may map all to 0.
    """
    from promptlimits.theory.prompt_setting import short

    for place, (layer, after) in enumerate(itertools.pairwise(layers), start=2):
        if after.radius < layer.next_radius():
            yield (
                f"the radius {short(after.radius)} of layer {place} is below "
                f"{short(layer.next_radius())}, what the limits of the layer before yield if its "
                "MLP maps 0 to 0: that it covers every context is taken on trust."
            )


def _shown(bound: LogBound) -> JsonObject:
    """An upper limit as log10, rounded up."""
    log10 = bound.upper_log10()
    if not math.isfinite(log10):
        raise UserError(
            "the threshold", "be below 10^(10^308)", got="more", remedy="take a smaller --dim"
        )
    return {
        "log10": log10,
        "radius": 0.0,
        "form": bound.source.form,
        "statement": bound.source.statement,
        "assumptions": [assumption.text for assumption in bound.assumptions],
    }


def _case(
    dim: str,
    lipschitz: str,
    radius: str,
    eps: str,
    order: str,
    tokens: str,
    layers_json: Path | None,
    *,
    masked: bool,
) -> _Case:
    exact_radius, exact_eps = positive("--radius", radius), positive("--eps", eps)
    if 2 * exact_eps >= exact_radius:
        raise UserError(
            "--eps",
            "be below half of --radius",
            got=f"{eps} with a radius of {radius}",
            remedy="such an error leaves too few targets that differ",
        )
    exact_order = positive("--order", order)
    if not 1 <= exact_order <= 1000:
        raise UserError("--order", "be from 1 to 1,000", got=order, remedy="write 1 or 2")
    size = count("--dim", dim)
    if size > 10**6:
        raise UserError("--dim", "be at most 1,000,000", got=dim, remedy="give numbers per token")
    return _Case(
        dim=size,
        lipschitz=positive_of_any_size("--lipschitz", lipschitz),
        radius=exact_radius,
        eps=exact_eps,
        order=exact_order,
        tokens=count("--tokens", tokens),
        layers=() if layers_json is None else _layers(layers_json),
        masked=masked,
    )


def _layers(path: Path) -> list[LayerConstants]:
    from promptlimits.theory.layer_constants import LayerConstants

    try:
        record = json.loads(
            read_regular_text(path), parse_float=str, object_pairs_hook=_without_repeats
        )
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            "--layers-json",
            "be a file of JSON that can be read",
            got=f"{path} ({reason})",
            remedy='write [{"radius": "1", "mlp_lipschitz": "1", "heads": [["1", "1"]]}]',
        ) from error
    if not isinstance(record, list) or not record:
        raise UserError(
            "--layers-json", "be a list of layers", got=str(path), remedy="put them in [ ]"
        )
    return [LayerConstants.from_json(layer) for layer in record]


def _without_repeats(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of a field given twice, a person might mean the other one."""
    record = dict(fields)
    if len(record) != len(fields):
        raise ValueError("a field is given twice")
    return record


def _write(path: Path, certificate: Certificate) -> None:
    try:
        path.write_text(json.dumps(certificate.to_json(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(
            "--out",
            "be a file that can be written",
            got=f"{path} ({error.strerror or error})",
            remedy="choose another place",
        ) from error
