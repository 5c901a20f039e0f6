"""`promptlimits certify`: what no prompt of a real checkpoint can do, proved from its weights."""

from __future__ import annotations

import json
from decimal import ROUND_CEILING, Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptlimits.base.errors import UserError
from promptlimits.base.typing import JsonObject
from promptlimits.cli import options
from promptlimits.cli.numbers import non_negative, positive, recorded, rounded
from promptlimits.cli.output_file import require_writable, write_whole

if TYPE_CHECKING:
    from promptlimits.cli.live import LiveListener
    from promptlimits.lipschitz.checkpoint.model_bound import ModelBound
    from promptlimits.lipschitz.checkpoint.model_ceiling import ModelCeiling

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
    """Prove from a checkpoint's weights what no prompt of it can do.

    It reads BERT, MiniLM, GPT-2, GPT-NeoX, Pythia, Llama, SmolLM2, Qwen2 and Gemma 3 block by
    block, proves a Lipschitz constant from the prompt to the last hidden state, and sets the
    limit that follows beside what counting prompts gives. Numbers are exact: 0.1, 1e-4, 1/3.
    """
    rho, error = positive("--radius", radius), positive("--eps", eps)
    target = rho if target_radius is None else positive("--target-radius", target_radius)
    if error >= target:
        raise UserError(
            "--eps",
            "be below the radius of the targets",
            got=f"{eps} with a radius of {target_radius or radius}",
            remedy="an error as large as the targets is met by answering 0",
        )
    deviation = non_negative("--least-deviation", least_deviation)
    counts = {"--prompt-tokens": prompt_tokens, "--tokens": tokens, "--pairs": pairs}
    for name, count in counts.items():
        if count is not None and not 1 <= count <= _MOST:
            raise UserError(
                name, "be 1 or more and at most 10^18", got=str(count), remedy="give such a number"
            )
    require_writable("--out", out)
    from promptlimits.lipschitz.checkpoint.model_ceiling import model_ceiling
    from promptlimits.theory.number_formats import number_format
    from promptlimits.theory.vector_counting import stored

    prompts = stored(number_format(storage))
    name, digest, bound = _prove(
        model, radius=rho, deviation=deviation, offline=offline, quiet=quiet
    )
    ceiling = model_ceiling(
        bound,
        name=name,
        weights_sha256=digest,
        prompts=prompts,
        prompt_tokens=prompt_tokens,
        tokens=tokens,
        radius=rho,
        eps=error,
        target_radius=target,
        pairs=pairs,
    )
    write_whole("--out", out, json.dumps(ceiling.certificate.to_json(), indent=1) + "\n")
    if as_json:
        typer.echo(json.dumps(_record(name, ceiling, out), indent=1, ensure_ascii=False))
        return
    for line in _lines(name, ceiling, prompts.name, layers=layers):
        typer.echo(line)
    typer.echo(f"\nCheck:  promptlimits check {out} --model {model}")


def _prove(
    reference: str, *, radius: Fraction, deviation: Fraction, offline: bool, quiet: bool
) -> tuple[str, str, ModelBound]:
    """The model's name, the hash of its weights and its constant."""
    from promptlimits.cli.live import LiveListener
    from promptlimits.lipschitz.checkpoint.model_bound import (
        model_bound,
        read_facts,
        require_prompts_in_region,
    )
    from promptlimits.lipschitz.checkpoint.weights.checkpoint import open_checkpoint
    from promptlimits.nets.files.folder import weight_files
    from promptlimits.nets.files.hashing import weights_hash

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
    return name, digest, model_bound(facts, deviation=deviation)


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


def _record(name: str, ceiling: ModelCeiling, out: Path) -> JsonObject:
    model, threshold = ceiling.model, ceiling.threshold
    return {
        "model": name,
        "family": model.facts.family,
        "blocks": len(model.facts.blocks),
        "dim": model.facts.dim,
        "lipschitz": {"log10": model.bound.upper_log10(), "radius": 0.0},
        "assumptions": [assumption.to_json() for assumption in model.bound.assumptions],
        "winner": ceiling.winner,
        "lower_share": ceiling.lower_share,
        "lipschitz_says_nothing": ceiling.vacuous,
        "by_lipschitz": {
            "kappa": _up(threshold.kappa.upper),
            "threshold_pairs": _up(threshold.pairs_upper),
            "first_pairs": threshold.first_pairs,
            "share_pairs": ceiling.reached.pairs,
            "share": {"log10": ceiling.reached.bound.upper_log10(), "radius": 0.0},
        },
        "by_counting": {
            "kappa": _up(ceiling.counting_kappa),
            "first_pairs": ceiling.counting_first_pairs,
            "share_pairs": ceiling.counted.pairs,
            "share": {"log10": ceiling.counted.bound.upper_log10(), "radius": 0.0},
        },
        "layers": [{"log10": bound.upper_log10(), "radius": 0.0} for bound in model.layers],
        "certificate": str(out),
    }


def _up(value: Fraction) -> float | str:
    """An upper limit for JSON: the least float, or text where it is too large for one."""
    return recorded(value, up=True)


def _lines(name: str, ceiling: ModelCeiling, storage: str, *, layers: bool) -> list[str]:
    model, threshold = ceiling.model, ceiling.threshold
    facts = model.facts
    lines = [
        f"{name}: {facts.family}, {len(facts.blocks)} blocks of width {facts.dim}",
        "Proved: the map from the prompt to the last hidden state has a Lipschitz constant of",
        f"at most 10^{raised(model.bound.upper_log10(), 2)} (token norm, prompts of any length).",
        "Assumed:",
        *(f"  - {assumption.text}" for assumption in model.bound.assumptions),
        "",
        "                  kappa    excluded from   share of target lists reached, at most",
        _row(
            "by Lipschitz",
            threshold.kappa.upper,
            threshold.first_pairs,
            ceiling.reached.pairs,
            ceiling.reached.bound.upper_log10(),
        ),
        _row(
            "by counting",
            ceiling.counting_kappa,
            ceiling.counting_first_pairs,
            ceiling.counted.pairs,
            ceiling.counted.bound.upper_log10(),
        ),
        "",
    ]
    if ceiling.vacuous:
        lines.append(
            f"Counting wins: the Lipschitz bound says nothing here beyond what prompts kept as "
            f"{storage} cannot do anyway."
        )
    else:
        lines.append(
            f"Lipschitz excludes lists from {threshold.first_pairs:,} pairs on, counting prompts "
            f"kept as {storage} from {ceiling.counting_first_pairs:,} on."
        )
    if ceiling.lower_share is not None:
        limit = {"lipschitz": "the Lipschitz limit", "counting": "counting's limit"}
        lines.append(
            f"At {ceiling.reached.pairs:,} pairs, {limit[ceiling.lower_share]} on the share is the "
            "lower one."
        )
    if layers:
        lines += ["", "block   log10 of the sensitivity behind it"]
        lines += [
            f"{number:5}   {raised(bound.upper_log10(), 2):>10}"
            for number, bound in enumerate(model.layers, start=1)
        ]
    return lines


def _row(label: str, kappa: Fraction, first: int, pairs: int, share: float) -> str:
    start = f"{label:14} {raised(_up(kappa), 3):>9}   {first:>8,} pairs"
    return f"{start}   10^{raised(share, 1)} at {pairs:,} pairs"


def raised(value: float | str, decimals: int) -> str:
    """An upper limit with so many decimals, rounded up: what is shown is proved, too.

    A number too long to read has four digits and a power of ten.
    """
    if abs(Decimal(value)) >= _LARGEST_WRITTEN_OUT:
        return rounded(value, up=True)
    step = Decimal(1).scaleb(-decimals)
    return str(Decimal(value).quantize(step, rounding=ROUND_CEILING))
