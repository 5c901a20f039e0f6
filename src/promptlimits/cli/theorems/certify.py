"""Certificates: `certify` proves what no prompt of a checkpoint can do, and `check` verifies."""

from __future__ import annotations

import json
import time
from decimal import ROUND_CEILING, Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from promptlimits.base.errors import UserError
from promptlimits.cli import options
from promptlimits.cli.options import non_negative, positive, rounded
from promptlimits.cli.output import as_text, require_writable, write_whole

if TYPE_CHECKING:
    from promptlimits.cli.live import LiveListener
    from promptlimits.lipschitz.checkpoint.model_ceiling import ModelCeiling, ModelFacts


_MOST = 10**18
_LARGEST_WRITTEN_OUT = 1e15


def certify(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Catalog name, directory, .gguf file or hub id of a checkpoint."
        ),
    ],
    radius: Annotated[
        str, typer.Option("--radius", help="Largest Euclidean norm of a prompt token.")
    ],
    eps: Annotated[str, typer.Option("--eps", help="Error allowed in each hidden state.")],
    out: Annotated[Path, typer.Option("--out", help="File for the certificate.")],
    target_radius: Annotated[
        str | None,
        typer.Option("--target-radius", help="Largest norm of a target; --radius if not given."),
    ] = None,
    prompt_tokens: Annotated[
        int, typer.Option("--prompt-tokens", help="Tokens of the prompt.")
    ] = 20,
    tokens: Annotated[int, typer.Option("--tokens", help="Hidden states read of each input.")] = 1,
    pairs: Annotated[
        int | None,
        typer.Option("--pairs", help="Pairs whose share is limited; the thresholds if not given."),
    ] = None,
    least_deviation: Annotated[
        str,
        typer.Option(
            "--least-deviation",
            help="Count only prompts that keep the deviation in front of every norm at this or "
            "more; 0 to count all.",
        ),
    ] = "0",
    storage: Annotated[
        str, typer.Option("--storage", help="Number format in which prompts are kept.")
    ] = "float32",
    layers: Annotated[bool, typer.Option("--layers", help="Show each block's part.")] = False,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Prove from a model's weights what no prompt of it can do.

    It reads BERT, MiniLM, GPT-2, GPT-NeoX, Pythia, Llama, SmolLM2, OPT, Phi, Qwen2 and Gemma 3
    block by block, proves a Lipschitz constant from the prompt to the last hidden state, and sets
    the limit that follows beside what counting prompts gives. Numbers are exact: 0.1, 1e-4, 1/3.

    Example: promptlimits certify smollm2-135m --radius 1 --eps 0.01 --out ceiling.json
    """
    rho, error = positive("--radius", radius), positive("--eps", eps)
    target = rho if target_radius is None else positive("--target-radius", target_radius)
    if error >= target:
        raise UserError(
            "--eps",
            "be below the radius of the targets",
            got=f"{eps} with a radius of {target_radius or radius}",
            remedy="take a smaller one: answering 0 meets every target within the radius",
        )
    deviation = non_negative("--least-deviation", least_deviation)
    counts = {"--prompt-tokens": prompt_tokens, "--tokens": tokens, "--pairs": pairs}
    for name, count in counts.items():
        if count is not None and not 1 <= count <= _MOST:
            raise UserError(
                name, "be 1 or more and at most 10^18", got=str(count), remedy="give such a number"
            )
    require_writable("--out", out)
    from promptlimits.bounds.counting import FORMATS
    from promptlimits.lipschitz.checkpoint.model_ceiling import model_ceiling

    if storage not in FORMATS:
        raise UserError(
            "--storage",
            f"be one of {', '.join(FORMATS)}",
            got=storage,
            remedy="give the format in which prompts are kept",
        )
    name, family, digest, facts = _prove(
        model, radius=rho, deviation=deviation, offline=offline, quiet=quiet
    )
    ceiling = model_ceiling(
        facts,
        weights_sha256=digest,
        values=storage,
        prompt_tokens=prompt_tokens,
        tokens=tokens,
        radius=rho,
        eps=error,
        target_radius=target,
        deviation=deviation,
        pairs=pairs,
    )
    certificate = ceiling.certificate()
    write_whole("--out", out, json.dumps(certificate, indent=1) + "\n")
    record = {"model": name, "family": family, **_record(ceiling, certificate["value"])}
    if as_json:
        typer.echo(json.dumps(record | {"certificate": str(out)}, indent=1, ensure_ascii=False))
        return
    for line in _lines(record, storage, layers=layers):
        typer.echo(line)
    typer.echo(f"\nCheck:  promptlimits check {out} --model {model}")


def _prove(
    reference: str, *, radius: Fraction, deviation: Fraction, offline: bool, quiet: bool
) -> tuple[str, str, str, ModelFacts]:
    """The model's name and family, the hash of its weights and their norms."""
    from promptlimits.cli.live import LiveListener
    from promptlimits.lipschitz.checkpoint.model_ceiling import (
        read_facts,
        require_prompts_in_region,
    )
    from promptlimits.nets.files.folder import weight_files, weights_hash
    from promptlimits.nets.load.blocks import open_checkpoint

    with LiveListener(quiet=quiet) as listener:
        listener.stage(f"looking for {reference}")
        name, directory = _located(reference, offline=offline, listener=listener)
        checkpoint = open_checkpoint(directory, name=f"model {name}")
        with options.named_as_typed():
            require_prompts_in_region(checkpoint, radius=radius, deviation=deviation)
        listener.stage(f"proving norms of {name}, block by block", checkpoint.layers)
        facts = read_facts(checkpoint, on_layer=listener.advanced)
        listener.stage("hashing the weights")
        digest = weights_hash(weight_files(directory))
    return name, checkpoint.family, digest, facts


def _located(reference: str, *, offline: bool, listener: LiveListener) -> tuple[str, Path]:
    """A directory is taken as it is: finding others needs libraries that take seconds."""
    from promptlimits.nets.files.cache import built
    from promptlimits.nets.files.catalog import find_entry

    entry, path = find_entry(reference), Path(reference)
    ready = None if entry is None else built(entry.cache_name)
    if entry is not None and ready is not None:
        return entry.name, ready
    if entry is None and reference.strip() and path.is_dir():
        return path.resolve().name, path
    from promptlimits.nets.load.locate import locate

    with options.named_as_typed():
        found = locate(reference, allow_hub=not offline, on_progress=listener.found)
    return found.name, found.directory


def _record(ceiling: ModelCeiling, value: dict[str, Any]) -> dict[str, Any]:
    """Both limits; the winner is who excludes lists from fewer pairs on.

    Where both shares are for one number of pairs, the lower one may be the other's: with more
    pairs counting falls faster, by eps/r and not (eps + delta)/r.
    """
    from promptlimits.base.exact import grid_up, grid_value, recorded

    net, counted = ceiling.prompt_capacity, ceiling.vector_counting
    reached, by_count = value["prompt_capacity"], value["vector_counting"]
    mantissa, exponent = reached["threshold"]
    kappa = (mantissa + 1) * Fraction(2) ** exponent
    counting_kappa = grid_value(grid_up(counted.kappa))
    wins = net.one_centre() or kappa < counting_kappa
    lower = None
    if net.pairs == counted.pairs:
        lower = "counting" if by_count["log_share"] <= reached["log_share"] else "lipschitz"
    return {
        "blocks": len(ceiling.blocks),
        "dim": ceiling.dim,
        "lipschitz": _log10(value["log_lipschitz"]),
        "assumptions": [{"text": text, "holds": None} for text in ceiling.about_the_constant()],
        "winner": "lipschitz" if wins else "counting",
        "lower_share": lower,
        "lipschitz_says_nothing": not wins,
        "by_lipschitz": {
            "kappa": recorded(kappa, up=True),
            "threshold_pairs": recorded(kappa * net.prompt_tokens / net.tokens, up=True),
            "first_pairs": reached["most_pairs"] + 1,
            "share_pairs": net.pairs,
            "share": _log10(reached["log_share"]),
        },
        "by_counting": {
            "kappa": recorded(counting_kappa, up=True),
            "first_pairs": by_count["most_pairs"] + 1,
            "share_pairs": counted.pairs,
            "share": _log10(by_count["log_share"]),
        },
        "layers": [_log10(point) for point in ceiling.log_sensitivities()],
    }


def _log10(point: int) -> dict[str, float]:
    """A grid point, an upper limit on a logarithm, to the base of ten."""
    from promptlimits.base.exact import ball, grid_value, log, outward_float

    limit = outward_float(lambda: ball(grid_value(point)) / log(10), up=True)
    return {"log10": limit, "radius": 0.0}


def _lines(record: dict[str, Any], storage: str, *, layers: bool) -> list[str]:
    net, counted = record["by_lipschitz"], record["by_counting"]
    constant = raised(record["lipschitz"]["log10"], 2)
    lines = [
        "{model}: {family}, {blocks} blocks of width {dim}".format_map(record),
        "Proved: the map from the prompt to the last hidden state has a Lipschitz constant of",
        f"at most 10^{constant} (token norm, prompts of any length).",
        "Assumed:",
        *(f"  - {assumption['text']}" for assumption in record["assumptions"]),
        "",
        "                  kappa    excluded from   share of target lists reached, at most",
        _row("by Lipschitz", net),
        _row("by counting", counted),
        "",
    ]
    if record["lipschitz_says_nothing"]:
        lines.append(
            f"Counting wins: the Lipschitz bound says nothing here beyond what prompts kept as "
            f"{storage} cannot do anyway."
        )
    else:
        lines.append(
            f"Lipschitz excludes lists from {net['first_pairs']:,} pairs on, counting prompts "
            f"kept as {storage} from {counted['first_pairs']:,} on."
        )
    if record["lower_share"] is not None:
        limit = {"lipschitz": "the Lipschitz limit", "counting": "counting's limit"}
        lines.append(
            f"At {net['share_pairs']:,} pairs, {limit[record['lower_share']]} on the share is the "
            "lower one."
        )
    if layers:
        lines += ["", "block   log10 of the sensitivity behind it"]
        lines += [
            f"{number:5}   {raised(bound['log10'], 2):>10}"
            for number, bound in enumerate(record["layers"], start=1)
        ]
    return lines


def _row(label: str, limit: dict[str, Any]) -> str:
    start = f"{label:14} {raised(limit['kappa'], 3):>9}   {limit['first_pairs']:>8,} pairs"
    share = raised(limit["share"]["log10"], 1)
    return f"{start}   10^{share} at {limit['share_pairs']:,} pairs"


def raised(value: float | str, decimals: int) -> str:
    """An upper limit with so many decimals, rounded up: what is shown is proved, too.

    A number too long to read has four digits and a power of ten.
    """
    if abs(Decimal(value)) >= _LARGEST_WRITTEN_OUT:
        return rounded(value, up=True)
    step = Decimal(1).scaleb(-decimals)
    return str(Decimal(value).quantize(step, rounding=ROUND_CEILING))


_MOST_CERTIFICATE_BYTES: Final = 512_000_000
"""One of a search over many boxes lists them all."""

NOT_AGAINST_A_MODEL: Final = 4
"""Exit code where nothing was wrong, but what it says of a model was not checked."""


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Such as ceiling-1-tokens.json.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="Prove the norms again from its weights: a directory or a name."
        ),
    ] = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Verify a certificate without the code that wrote it.

    Every number in it is computed again, on other arithmetic. What a certificate about a model
    says of its weights is proved again where --model gives them; it is not checked otherwise.

    Exit code 0 if all that it claims is so, 1 if not, 2 if the file is no certificate, 4 if it is
    about a model and was not checked against one.

    Example: promptlimits check runs/capitals/ceiling-1-tokens.json
    """
    began = time.perf_counter()
    record = options.read_json(
        file,
        name=str(file),
        rule="be a certificate that can be read",
        got="a file that cannot",
        remedy="give one, such as a ceiling-*-tokens.json of a `promptlimits bracket`",
        at_most=_MOST_CERTIFICATE_BYTES,
    )
    statement, assumptions, about_a_model = _checked(record, model, quiet=quiet)
    unproved = about_a_model and model is None
    if as_json:
        told = {
            "ok": True,
            "statement": statement,
            "seconds": time.perf_counter() - began,
            "from_weights": model is not None,
            "assumptions": assumptions,
        }
        typer.echo(as_text(told))
    else:
        typer.echo(f"{'not checked against a model' if unproved else 'ok'}: {statement}")
    if unproved:
        raise typer.Exit(NOT_AGAINST_A_MODEL)


def _checked(record: Any, model: str | None, *, quiet: bool) -> tuple[str, list[Any], bool]:
    """What a certificate says, what it rests on, and whether that is about a model's weights."""
    from promptlimits.certificates import checked

    if model is None:
        found = checked(record)
    else:
        from promptlimits.cli.live import LiveListener

        with LiveListener(quiet=quiet) as listener:
            _, weights = _located(model, offline=True, listener=listener)
            found = checked(record, weights=weights, on_progress=listener.stage)
    return found.statement, list(found.assumptions), found.about_a_model
