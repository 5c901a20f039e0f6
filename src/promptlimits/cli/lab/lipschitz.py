"""`promptlimits lipschitz`: Lipschitz constants of a transformer, proved from above and found."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from promptlimits.base.errors import UserError
from promptlimits.cli import options
from promptlimits.cli.lab.constants import Case, of_model, of_weights
from promptlimits.cli.lab.weights_options import Transformer
from promptlimits.cli.options import positive
from promptlimits.cli.output import show
from promptlimits.cli.theorems.certify import raised

if TYPE_CHECKING:
    from promptlimits.base.files import JsonObject


@options.with_groups
def lipschitz(
    transformer: Transformer,
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Catalog name, directory or hub id of a causal LM."),
    ] = None,
    radius: Annotated[
        Fraction,
        options.parsed(
            "--radius", parser=positive, metavar="R", help="Greatest length of a token."
        ),
    ] = Fraction(1),
    tokens: Annotated[
        int, typer.Option("--tokens", min=2, max=256, help="Tokens, those of the prompt included.")
    ] = 8,
    prompt_tokens: Annotated[
        int, typer.Option("--prompt-tokens", min=1, help="Tokens of the prompt.")
    ] = 6,
    eps: Annotated[
        Fraction | None,
        options.parsed(
            "--eps",
            parser=positive,
            metavar="E",
            help="Error allowed in each output; a tenth of the targets' radius if not given.",
        ),
    ] = None,
    target_radius: Annotated[
        Fraction | None,
        options.parsed(
            "--target-radius",
            parser=positive,
            metavar="R",
            help="Greatest length of a target; --radius if not given.",
        ),
    ] = None,
    observed: Annotated[
        Path | None,
        typer.Option(
            "--observed", metavar="FILE", help="Record of a `bracket` of the same weights."
        ),
    ] = None,
    effort: Annotated[
        Literal["quick", "full"], typer.Option("--effort", help="Of ellipsoids and search.")
    ] = "quick",
    seed: options.Seed = 0,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """How far outputs can move when tokens do.

    Proved is an upper limit for all tokens within --radius; found is the largest Jacobian norm
    that a search met, at an explicit point. The constant lies between the two.

    K: of lists of more pairs than this, Theorem 1 excludes some. With what was only found in
    place of the constant it is an estimate and nothing is proved.

    Example: promptlimits lipschitz --random d=8,h=2,layers=2,scale=.5 --radius 1
    """
    if prompt_tokens >= tokens:
        raise UserError(
            "--prompt-tokens",
            f"be fewer than the {tokens} of --tokens",
            got=prompt_tokens,
            remedy="leave a token of input behind the prompt",
        )
    targets = target_radius or radius
    about, seen = (None, None) if observed is None else _seen(observed, prompt_tokens)
    case = Case(
        radius=radius,
        target_radius=targets,
        eps=eps or targets / 10,
        front=prompt_tokens,
        tokens=tokens,
        effort=effort,
        seed=seed,
        observed=about,
    )
    if case.eps >= targets:
        raise UserError(
            "--eps",
            "be below the radius of the targets",
            got=f"{float(case.eps):g} with a radius of {float(targets):g}",
            remedy="take a smaller one: answering 0 meets every target within the radius",
        )
    if model is None:
        record = of_weights(transformer.read(), case)
    elif transformer.random is None and transformer.weights is None:
        record = of_model(model, case, offline=offline, quiet=quiet)
    else:
        raise UserError(
            "the transformer",
            "be given by one of MODEL, --random and --weights",
            got=f"MODEL {model} and an option",
            remedy="leave one out",
        )
    record["observed"] = seen
    show(record, _lines(record), as_json=as_json)


def _seen(path: Path, prompt_tokens: int) -> tuple[str, JsonObject]:
    """The hash of a record's model, and what soft prompts of the same length held of it."""
    from promptlimits.record.record import read_record

    document = options.read_json(
        path,
        name="--observed",
        rule="be a file of JSON that can be read",
        remedy="give the bracket.json of a `promptlimits bracket`",
    )
    record = read_record(document)
    soft = {one.prompt_tokens: one.floor for one in record.brackets if one.kind == "soft"}
    if prompt_tokens not in soft:
        raise UserError(
            "--observed",
            f"hold soft prompts of {prompt_tokens} tokens",
            got=f"those of {', '.join(map(str, soft)) or 'no length'}",
            remedy="choose --prompt-tokens among its lengths",
        )
    floor = soft[prompt_tokens]
    return record.model.model_hash, {
        "held": floor.held,
        "unit": "pairs" if floor.tokens is None else "tokens of a text",
        "status": floor.status,
        "means": "answers decoded exactly behind a prompt of any length of its tokens; K is about "
        "outputs within eps and prompts within the radius",
    }


def _lines(record: Any) -> Iterator[str]:
    yield (
        f"{record['layers']} layers of width {record['dim']}, tokens within {record['radius']}, "
        f"{record['tokens']} tokens, {record['prompt_tokens']} of them the prompt's"
    )
    for each in record.get("constants", ()):
        method = min(each["proved_log10"], key=each["proved_log10"].get)
        found = each["found_log10"]
        yield each["domain"]
        yield f"  proved  at most 10^{each['least_proved_log10']:.3f} ({method})"
        yield f"  found   {'0' if found is None else f'10^{found:.3f}'}, at an explicit point"
    if "covering_proved_log10" in record:
        covering = record["covering_proved_log10"]
        yield f"covering prompts by ellipsoids, proved: as with a constant of 10^{covering:.3f}"
    yield ""
    yield "from the prompt to the outputs behind it   log10 L          K"
    for name, limit in record["proved"].items():
        if limit is None:
            yield f"  proved, {name:9}  none: {record['reasons'][name]}"
        else:
            yield f"  proved, {name:9} {raised(limit, 3):>29} {raised(record['K'][name], 1):>10}"
    if record["measured"] is None:
        yield f"  found              {record['reasons']['measured']}"
    else:
        guess = float(record["K_estimated_from_measured"])
        yield f"  found {record['measured']:41.3f} {guess:>10.1f}, an estimate, not proved"
    yield (
        "K: of longer lists of targets within {target_radius}, some are not reached within "
        "{eps}".format_map(record)
    )
    if record["observed"] is not None:
        seen = record["observed"]
        yield f"observed: {seen['held']} {seen['unit']} ({seen['status']}; {seen['means']})"
