"""`promptlimits construct`: networks that a prompt makes answer any Lipschitz map."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.files import shown
from promptlimits.cli import options
from promptlimits.cli.lab.single_layer_options import Plot, as_text, write_text
from promptlimits.cli.live import LiveListener
from promptlimits.cli.numbers import count, positive

if TYPE_CHECKING:
    from fractions import Fraction

    from promptlimits.base.typing import JsonObject
    from promptlimits.lab.universal.measured_error import MeasuredError
    from promptlimits.lab.universal.sizes import PromptLengths
    from promptlimits.lab.universal.universal import UniversalPrompt

app = typer.Typer(
    no_args_is_help=True,
    help="Networks that prompts make answer any Lipschitz map, and what that takes.",
)

_FUNCTIONS: Final = ("sin", "cos", "abs", "square")
_MOST_POINTS: Final = 20_001
_LEAST_POINTS: Final = 201
_LOGITS: Final = 2 * 10**8
_DRAWN: Final = 1_201
_LONG_PROMPT: Final = 2**17
_LARGEST: Final = 10**300


@app.command()
def universal(
    function: Annotated[
        str,
        typer.Option(
            "--function", metavar="NAME", help=f"The map: one of {', '.join(_FUNCTIONS)}."
        ),
    ],
    eps: Annotated[str, typer.Option("--eps", help="Error allowed, in the map's units.")] = "0.05",
    lipschitz: Annotated[
        str | None,
        typer.Option(
            "--lipschitz",
            metavar="L",
            help="Lipschitz constant; by default the known one.",
        ),
    ] = None,
    plot: Plot = None,
    as_json: options.AsJson = False,
) -> None:
    """A transformer and a prompt that make it answer a given map to within eps.

    The weights know the class of the map, not the map: other maps of the class take other
    prompts and the same weights. The error is proved off a set of inputs of tiny measure.
    """
    precision = _of_moderate_size("--eps", eps)
    constant = None if lipschitz is None else _of_moderate_size("--lipschitz", lipschitz)
    if plot is not None:
        _require_folder(plot)

    built, found = _of_function(function, precision, constant)
    if plot is not None:
        write_text("--plot", plot, _drawing(built, found))
    record = _record(built, found, float(precision))
    if as_json:
        typer.echo(as_text(record))
        return
    for line in _lines(record):
        typer.echo(line)
    if plot is not None:
        typer.echo(f"Written: {plot}")


@app.command()
def sizes(
    dim: Annotated[str, typer.Option("--dim", help="d, numbers per token.")] = "1",
    tokens: Annotated[str, typer.Option("--tokens", help="m, tokens of an input.")] = "1",
    lipschitz: Annotated[str, typer.Option("--lipschitz", help="L, of the maps.")] = "1",
    eps: Annotated[str, typer.Option("--eps", help="Error allowed.")] = "0.05",
    exponent: Annotated[
        str, typer.Option("--exponent", metavar="P", help="p of the entrywise norm, 1 or more.")
    ] = "2",
    pairs: Annotated[
        str | None,
        typer.Option(
            "--pairs", metavar="N", help="Also count the numbers a prompt and LoRA train for N."
        ),
    ] = None,
    heads: Annotated[
        str | None, typer.Option("--heads", metavar="H", help="Heads of the layer of --pairs (1).")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Prompt tokens that suffice as published, and those that the L-Lipschitz maps need at least.

    The maps are those of [0,1]^(d x m). With --pairs, the trained numbers for N answers of one
    layer: a prompt's, at least, and those of a LoRA-like change of the MLP, at most.
    """
    from promptlimits.lab.universal.sizes import prompt_lengths
    from promptlimits.lab.universal.universal_bound import FunctionClass
    from promptlimits.theory.prompt_parameters import trained_numbers

    target = FunctionClass(
        dim=count("--dim", dim),
        tokens=count("--tokens", tokens),
        lipschitz=positive("--lipschitz", lipschitz),
        eps=positive("--eps", eps),
        exponent=positive("--exponent", exponent),
    )
    if pairs is None and heads is not None:
        raise UserError("--heads", "come with --pairs", got="none", remedy="write --pairs 100")
    numbers = None
    if pairs is not None:
        numbers = trained_numbers(
            pairs=count("--pairs", pairs), dim=target.dim, heads=count("--heads", heads or "1")
        )
    found = prompt_lengths(target)
    record: JsonObject = {
        "dim": target.dim,
        "tokens": target.tokens,
        "lipschitz": str(target.lipschitz),
        "eps": str(target.eps),
        "exponent": str(target.exponent),
        "sufficient_log10_prompt_tokens": found.sufficient.upper_log10(),
        "necessary_log10_prompt_tokens": found.necessary_log10,
    }
    if numbers is not None:
        record |= {"pairs": int(pairs or 0), "heads": int(heads or 1)} | asdict(numbers)
    if as_json:
        typer.echo(as_text(record))
        return
    typer.echo(
        f"L-Lipschitz maps of [0,1]^({target.dim} x {target.tokens}), L = {lipschitz}, to within "
        f"{eps} in the entrywise {exponent}-norm"
    )
    for line in _lengths_in_words(found):
        typer.echo(line)
    if numbers is not None:
        typer.echo(
            f"{pairs} answers of one layer of width {target.dim} (wang2023, Theorem 3 and Lemma 5)"
        )
        typer.echo(
            f"  a prompt, for some data: at least {numbers.prompt_tokens:,} tokens, "
            f"{numbers.prompt_numbers:,} numbers"
        )
        typer.echo(
            f"  LoRA, for all data that attention tells apart: {numbers.lora_numbers:,} numbers "
            "are enough"
        )


def _lengths_in_words(found: PromptLengths) -> list[str]:
    sufficient = _power_of_ten(found.sufficient.upper_log10())
    lines = [
        f"  sufficient: at most {sufficient} prompt tokens (hu2025, Theorem 2.5, as published)"
    ]
    if found.necessary_log10 is None:
        return [*lines, "  necessary:  none; the constant 1/2 is within eps of every map"]
    necessary = _power_of_ten(found.necessary_log10)
    lines.append(
        f"  necessary:  at least {necessary} prompt tokens, where answers are 1-Lipschitz in "
        "prompts with entries in [0, 1]"
    )
    return lines


def _power_of_ten(log10: float) -> str:
    """A length from its logarithm: as a whole number where that is small."""
    # At 10^6 the tenth digit behind the point is sure; a whole number is not missed by more.
    return f"{max(1, math.ceil(10**log10 - 1e-6)):,}" if log10 <= 6 else f"10^{log10:,.2f}"


def _of_function(
    name: str, eps: Fraction, lipschitz: Fraction | None
) -> tuple[UniversalPrompt, MeasuredError]:
    from dataclasses import replace

    import numpy as np

    from promptlimits.lab.universal.measured_error import measure_error
    from promptlimits.lab.universal.universal import BUILT_IN, universal_prompt

    if name not in BUILT_IN:
        raise UserError(
            "--function",
            f"be one of {', '.join(_FUNCTIONS)}",
            got=shown(name),
            remedy="give other maps as callables from Python, to `promptlimits.universal_prompt`",
        )
    real_map = BUILT_IN[name]
    if lipschitz is not None:
        if lipschitz < real_map.lipschitz:
            raise UserError(
                "--lipschitz",
                f"be at least {real_map.lipschitz}, the constant of {name}",
                got=f"{float(lipschitz):.6g}",
                remedy="leave it out",
            )
        real_map = replace(real_map, lipschitz=lipschitz)
    built = universal_prompt(real_map, eps)
    length = built.network.prompt_tokens
    points = min(_MOST_POINTS, max(_LEAST_POINTS, _LOGITS // length))
    with LiveListener(quiet=length < _LONG_PROMPT) as listener:
        listener.stage(f"{points} inputs behind a prompt of {length:,} tokens")
        found = measure_error(
            built,
            points=points,
            generator=np.random.default_rng(0),
            progress=_Progress(listener),
        )
    return built, found


def _of_moderate_size(option: str, text: str) -> Fraction:
    number = positive(option, text)
    if not 1 / _LARGEST <= number <= _LARGEST:
        raise UserError(option, "be from 1e-300 to 1e300", got=shown(text), remedy="write 1")
    return number


def _require_folder(plot: Path) -> None:
    """Refuse before the run what could not be written after it."""
    if not plot.parent.is_dir():
        raise UserError(
            "--plot",
            "be a file that can be written",
            got=f"{plot} (there is no folder {plot.parent})",
            remedy="choose another place",
        )


class _Progress:
    """Tells how many blocks are done: the bar of a terminal, or a line for each fifth."""

    def __init__(self, listener: LiveListener) -> None:
        self._listener = listener
        self._fifths = 0

    def __call__(self, done: int, steps: int) -> None:
        self._listener.advanced(done)
        if 5 * done // steps > self._fifths and not sys.stderr.isatty():
            self._fifths = 5 * done // steps
            self._listener.found(f"    {done} of {steps} blocks")


def _record(built: UniversalPrompt, found: MeasuredError, eps: float) -> JsonObject:
    from promptlimits.lab.universal.universal_bound import as_float_above, fraction_above

    network, real_map = built.network, built.real_map
    low, base = float(real_map.low), float(real_map.base)
    weights = network.weights
    bound = as_float_above(built.sup_error)
    return {
        "function": real_map.name,
        "eps": eps,
        "bound": bound,
        "meets_eps": bound <= eps,
        "measured_sup_error": found.largest,
        "measured_at": list(found.where),
        "measured_points": found.points,
        "points_left_out": found.left_out,
        "exceptional_measure": fraction_above(network.bound.exceptional_measure),
        "lipschitz": float(real_map.lipschitz),
        "norm": "largest entry",
        "dim": real_map.dim,
        "tokens": real_map.tokens,
        "domain": [low, low + float(real_map.side)],
        "values": [base, base + float(real_map.height)],
        "rescaled": "inputs and values are carried to [0, 1] by one scale each; errors here are "
        "in the map's own units, the exceptional measure is that of the unit cube",
        "prompt_tokens": network.prompt_tokens,
        "prompt_numbers": network.prompt_tokens * real_map.dim,
        "cells_per_side": network.shape.cells,
        "ramp": float(network.shape.ramp),
        "sharpness": network.shape.sharpness,
        "layers": len(weights.layers),
        "layers_with_attention": 2,
        "most_heads": max(len(layer.heads) for layer in weights.layers),
        "width": weights.dim,
        "weights": sum(array.size for _, array in weights.arrays()),
        "weights_sha256": weights.sha256(),
    }


def _lines(record: dict[str, Any]) -> list[str]:
    (low, high), (base, top) = record["domain"], record["values"]
    return [
        (
            f"{record['function']} on [{low:.6g}, {high:.6g}], values in [{base:.6g}, {top:.6g}], "
            f"Lipschitz with constant {record['lipschitz']:.6g}"
        ),
        (
            f"  network: {record['layers']} layers, two with attention, width {record['width']}, "
            f"{record['weights']:,} weights; they know the class of the map, not the map"
        ),
        (
            f"  prompt:  {record['prompt_tokens']:,} tokens, the table of the map on "
            f"{record['cells_per_side']:,} cells a side"
        ),
        (
            f"  proved:  off a share of {record['exceptional_measure']:.2g} of the inputs the "
            f"error is at most {record['bound']:.6g}"
        ),
        (
            f"  found:   {record['measured_sup_error']:.6g}, the largest at "
            f"{record['measured_points']:,} inputs"
        ),
    ]


def _drawing(built: UniversalPrompt, found: MeasuredError) -> str:
    import numpy as np

    from promptlimits.lab.universal.universal_bound import as_float_above
    from promptlimits.report.figures import universal_prompt

    real_map = built.real_map
    unit = np.linspace(0, 1, _DRAWN).reshape(-1, 1, 1)
    inputs = real_map.inputs(unit)
    return universal_prompt.svg(
        universal_prompt.data(
            inputs.ravel().tolist(),
            np.asarray(real_map.function(inputs)).ravel().tolist(),
            built.answers(unit).ravel().tolist(),
            name=real_map.name,
            bound=as_float_above(built.sup_error),
            largest_error=found.largest,
            prompt_tokens=built.network.prompt_tokens,
        )
    )
