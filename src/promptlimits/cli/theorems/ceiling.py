"""Theorem 4.7 of arXiv 2509.00421: `promptlimits ceiling`, and its inverse, `plan`."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from promptlimits.base.errors import UserError, quoted
from promptlimits.cli import options
from promptlimits.cli.options import positive, rounded
from promptlimits.cli.output import as_text, require_writable, show, write_whole
from promptlimits.cli.theorems.generated import named

if TYPE_CHECKING:
    from promptlimits.base.files import JsonObject
    from promptlimits.bounds.prompt_plan import Plan


NET: Final = "promptlimits.bounds.prompt_capacity:PromptCapacity"
"""The theorem whose fields are the options of `ceiling` and `plan`."""

Pairs = Annotated[
    str | None,
    typer.Option("--pairs", metavar="N", help="Share at N pairs; the threshold if not given."),
]
Storage = Annotated[
    str,
    typer.Option(
        "--storage", metavar="FORMAT", help="Format that prompts are kept in: the counting cap."
    ),
]
Vocabulary = Annotated[
    str | None, typer.Option("--vocabulary", metavar="N", help="Count hard prompts as well.")
]
OutFile = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write the winner's certificate.")
]


def ceiling(
    pairs: Pairs = None,
    storage: Storage = "float32",
    vocabulary: Vocabulary = None,
    out: OutFile = None,
    as_json: options.AsJson = False,
    **typed: str,
) -> None:
    """What no prompt can reach: Theorem 4.7 and the counting cap.

    Theorem 4.7 is given as published and as it holds. Closed form, no model. Targets are vectors in
    a ball; a list of pairs counts as reached if one prompt brings every output within the error.
    Above the threshold some lists are not.

    Example: promptlimits ceiling --dim 768 --lipschitz 10 --radius 1 --eps 0.1 --prompt-tokens 20
    """
    require_writable("--out", out)
    sizes = typed if pairs is None else {**typed, "pairs": pairs}
    record, certificate = ceiling_record(
        plan_of(sizes, storage, vocabulary), at_threshold=pairs is None
    )
    if out is not None:
        write_whole("--out", out, as_text(certificate) + "\n")
    if as_json:
        typer.echo(as_text(record))
    else:
        _print(record, out)


def plan_of(typed: dict[str, str], storage: str, vocabulary: str | None) -> Plan:
    """The case that the options describe: Theorem 1, and counts of prompts of its sizes."""
    from promptlimits.bounds.counting import VectorCounting
    from promptlimits.bounds.prompt_capacity import PromptCapacity
    from promptlimits.bounds.prompt_plan import Plan

    net = PromptCapacity.model_validate(typed)
    names = VectorCounting.model_fields.keys() & PromptCapacity.model_fields.keys()
    shared = {name: getattr(net, name) for name in names}
    with named(values="--storage"):
        caps = [VectorCounting.model_validate({**shared, "values": storage})]
    if vocabulary is not None:
        with named(values="--vocabulary"):
            hard = {**shared, "values": vocabulary, "per_token": True}
            caps.append(VectorCounting.model_validate(hard))
    return Plan(net=net, caps=tuple(caps))


def ceiling_record(plan: Plan, *, at_threshold: bool) -> tuple[JsonObject, JsonObject]:
    """The answer as plain JSON, and the certificate of the bound that wins."""
    from promptlimits.base.exact import (
        dyadic_value,
        grid_up,
        grid_value,
        log10_up,
        recorded,
    )
    from promptlimits.bounds.prompt_capacity import published_capacity

    most = [plan.net.most_pairs(), *(cap.most_pairs() for cap in plan.caps)]
    if at_threshold:
        plan = plan.at(pairs=min(most) + 1)
    net, said = plan.net, published_capacity(plan.net)
    mantissa, place = net.threshold()
    kappa = dyadic_value([mantissa + 1, place])
    by_net, by_centre = net.log_shares()
    shares = [min(by_net, by_centre), *(grid_up(cap.log_share) for cap in plan.caps)]
    kappas = [kappa, *(grid_value(grid_up(cap.kappa)) for cap in plan.caps)]

    def log10(point: int | None) -> JsonObject | None:
        return None if point is None else {"log10": log10_up(point), "radius": 0.0}

    def up(value: Fraction | None) -> float | str | None:
        return None if value is None else recorded(value, up=True)

    corrected, *counting = (
        {
            "kappa": up(bound),
            "threshold_pairs": up(bound * Fraction(net.prompt_tokens, net.tokens)),
            "first_pairs_excluded": pairs + 1,
            "proportion": log10(share),
        }
        for bound, pairs, share in zip(kappas, most, shares, strict=True)
    )
    names = ["corrected", *(cap.prompts for cap in plan.caps)]
    best = min(range(len(names)), key=shares.__getitem__)
    record: JsonObject = {
        "pairs": net.pairs,
        "published": {
            "kappa": up(said.kappa),
            "threshold_pairs": up(said.threshold_pairs),
            "printed_threshold_pairs": up(said.printed_pairs),
            "proportion": log10(said.log_share),
            "false_here": said.false_here,
            "reason": said.reason,
        },
        "corrected": {
            **corrected,
            "kappa_lower": recorded(dyadic_value([mantissa, place]), up=False),
            "delta": up(dyadic_value(net.delta(kappa))),
            "one_centre": net.one_centre(),
            "slope": log10(grid_up(net.log_slope)),
            "rule": "one centre" if by_centre <= by_net else "net",
        },
        "counting": [
            {"prompts": name, **row} for name, row in zip(names[1:], counting, strict=True)
        ],
        "winner": names[best],
        "excluded": shares[best] < 0,
    }
    return record, [net, *plan.caps][best].certificate()


def _print(record: Any, out: Path | None) -> None:
    """A table, and what it means in plain sentences."""
    console = Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("bound")
    for heading in ("kappa", "threshold k", f"share at k = {record['pairs']:,}"):
        table.add_column(heading, justify="right")
    table.add_row("Theorem 4.7 as published", *_cells(record["published"]))
    table.add_row("Theorem 1, corrected", *_cells(record["corrected"]))
    for counted in record["counting"]:
        table.add_row(f"counting ({counted['prompts']})", *_cells(counted))
    console.print(table)
    for line in _sentences(record, record["published"], record["corrected"]):
        console.print(line, markup=False)
    if out is not None:
        console.print(f"Check:  promptlimits check {quoted(out)}", markup=False, soft_wrap=True)


def _cells(bound: Any) -> tuple[str, str, str]:
    if bound["kappa"] is None:
        return "-", "-", "-"
    log10 = bound["proportion"]["log10"]
    return (
        rounded(bound["kappa"], up=True, digits=6),
        rounded(bound["threshold_pairs"], up=True, digits=6),
        f"10^{rounded(log10, up=True)}" if log10 < 0 else "says nothing",
    )


def _sentences(record: Any, published: Any, corrected: Any) -> list[str]:
    lines = []
    delta, slope = rounded(corrected["delta"], up=True), corrected["slope"]["log10"]
    if published["reason"]:
        lines.append(f"As published: {published['reason']}.")
    if corrected["one_centre"]:
        lines.append(
            "eps + L rho < r: all prompts give nearly the same outputs, and from 1 pair on some "
            "lists cannot be answered, below the threshold too."
        )
    lines.append(
        f"Best delta at the threshold: {delta}. With each pair more the limit on the share falls "
        f"by a factor of at least 10^{rounded(-slope, up=False)}."
        if slope < 0
        else f"Best delta at the threshold: {delta}."
    )
    which = {"corrected": "the corrected theorem"}.get(
        record["winner"], f"counting ({record['winner']})"
    )
    lines.append(
        f"At k = {record['pairs']:,} the least share is proved by {which}"
        + (": some lists cannot be answered." if record["excluded"] else ", and excludes nothing.")
    )
    return lines


def plan(
    pairs: Annotated[str, typer.Option("--pairs", metavar="N", help="Pairs to be held.")],
    prompt_tokens: Annotated[
        str | None,
        typer.Option(
            "--prompt-tokens", metavar="N", help="Tokens of the prompt; the shortest if not given."
        ),
    ] = None,
    storage: Storage = "float32",
    vocabulary: Vocabulary = None,
    share: Annotated[
        str, typer.Option("--share", help="Share of lists that must be in reach; 1: all.")
    ] = "1",
    as_json: options.AsJson = False,
    **typed: str,
) -> None:
    """The shortest prompt and least error that are not excluded.

    And the longest answers, by the corrected Theorem 4.7 and the counting cap. What is not excluded
    may still be impossible; what is excluded is proved to be.

    Example: promptlimits plan --pairs 64 --dim 768 --lipschitz 10 --radius 1 --eps 0.1
    """
    from dataclasses import replace

    asked = positive("--share", share)
    if asked > 1:
        raise UserError("--share", "be above 0 and at most 1", got=share, remedy="write 1 or 1e-6")
    sizes = {**typed, "pairs": pairs, "prompt_tokens": prompt_tokens or "1"}
    case = replace(plan_of(sizes, storage, vocabulary), share=asked)
    record = plan_record(case, length_given=prompt_tokens is not None)
    show(record, _plan_sentences(record), as_json=as_json)


def plan_record(case: Plan, *, length_given: bool) -> JsonObject:
    """The answers as plain JSON."""
    from promptlimits.base.exact import recorded
    from promptlimits.bounds.prompt_plan import tokens_for_exact_access

    shortest = case.shortest_prompt()
    sized = case if length_given else case.at(prompt_tokens=shortest or 1)
    excluded, not_excluded = sized.error_floor()
    return {
        "pairs": case.net.pairs,
        "share": str(case.share),
        "shortest_prompt": shortest,
        "exact_access_prompt": tokens_for_exact_access(
            pairs=case.net.pairs, tokens=case.net.tokens
        ),
        "at_prompt_tokens": sized.net.prompt_tokens,
        "excluded_by": sized.excluded_by(),
        "largest_error_excluded": None if excluded is None else recorded(excluded, up=False),
        "error_not_excluded": recorded(not_excluded, up=True),
        "longest_answers": sized.longest_answers(),
        "most_pairs": sized.most_pairs(),
    }


def _plan_sentences(record: Any) -> list[str]:
    pairs, length = record["pairs"], record["at_prompt_tokens"]
    shortest = record["shortest_prompt"]
    if shortest is None:
        lines = [f"{pairs:,} pairs: no length of prompt will do."]
    elif shortest == 1:
        lines = [f"{pairs:,} pairs: no length of prompt is excluded."]
    else:
        lines = [f"{pairs:,} pairs: a prompt of fewer than {shortest:,} tokens will not do."]
    lines.append(
        f"Without error, fewer than {record['exact_access_prompt']:,} prompt tokens answer only a "
        "set of lists of measure 0."
    )
    verdict = record["excluded_by"]
    lines.append(
        f"With {length:,} prompt tokens: "
        + ("not excluded." if verdict is None else f"excluded ({verdict}).")
    )
    floor = record["largest_error_excluded"]
    lines.append(
        "  errors: none of r/2^4096 or more is excluded."
        if floor is None
        else f"  errors: up to {rounded(floor, up=False, digits=6)} excluded."
    )
    lines.append(f"  tokens per answer: more than {record['longest_answers']:,} excluded.")
    lines.append(f"  pairs: more than {record['most_pairs']:,} excluded.")
    return lines
