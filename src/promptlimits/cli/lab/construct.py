"""`promptlimits construct`: networks that a prompt makes answer any Lipschitz map."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import typer

from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.files import shown
from promptlimits.cli import options
from promptlimits.cli.live import LiveListener
from promptlimits.cli.options import positive
from promptlimits.cli.output import require_writable, show, write_whole
from promptlimits.cli.theorems.generated import named

if TYPE_CHECKING:
    from promptlimits.base.files import JsonObject
    from promptlimits.lab.universal.universal import MeasuredError, RealMap, UniversalPrompt
    from promptlimits.lab.universal.universal_bound import PromptLengths

app = typer.Typer(
    no_args_is_help=True,
    help="Networks that a prompt makes answer any Lipschitz map.",
)

Function: TypeAlias = Literal["sin", "cos", "abs", "square"]
_MOST_POINTS: Final = 20_001
_LEAST_POINTS: Final = 201
_LOGITS: Final = 2 * 10**8
_DRAWN: Final = 1_201
_DRAWN_EXACTLY: Final = 241
_EPS: Final = Fraction(1, 20)
_LONG_PROMPT: Final = 2**17
_LARGEST: Final = 10**300
_MOST: Final = 10**9


def _moderate(option: str, text: str) -> Fraction:
    number = positive(option, text)
    if not 1 / _LARGEST <= number <= _LARGEST:
        raise UserError(option, "be from 1e-300 to 1e300", got=shown(text), remedy="write 1")
    return number


@app.command()
def universal(
    function: Annotated[
        Function,
        typer.Option("--function", metavar="NAME", help="The map: sin, cos, abs or square."),
    ],
    eps: Annotated[
        Fraction | None,
        options.parsed(
            "--eps",
            parser=_moderate,
            metavar="E",
            help="Error allowed, in the map's units (0.05; with --route paper, what its finest "
            "grid proves).",
        ),
    ] = None,
    lipschitz: Annotated[
        Fraction | None,
        options.parsed(
            "--lipschitz",
            parser=_moderate,
            metavar="L",
            help="Lipschitz constant; by default the known one.",
        ),
    ] = None,
    route: Annotated[
        Literal["table", "paper"],
        typer.Option(
            "--route",
            metavar="ROUTE",
            help="table: the value table, any eps. paper: the three stages of wang2023, Theorem 1, "
            "exactly, on grids of up to 4 cells.",
        ),
    ] = "table",
    plot: options.Plot = None,
    as_json: options.AsJson = False,
) -> None:
    """Build a transformer and a prompt that answer a given map.

    The error is at most eps but for a share of the inputs that is printed. The weights depend on
    the class of the map, not on the map: other maps of the class take other prompts and the same
    weights.

    Example: promptlimits construct universal --function sin --eps 0.1
    """
    require_writable("--plot", plot)
    make = _by_table if route == "table" else _by_stages
    record, lines, drawing = make(_map_of(function, lipschitz), eps, drawn=plot is not None)
    if plot is not None:
        write_whole("--plot", plot, drawing)
        lines.append(f"Written: {plot}")
    show(record, lines, as_json=as_json)


@app.command()
def sizes(
    dim: Annotated[
        int, typer.Option("--dim", min=1, max=_MOST, metavar="D", help="d, numbers per token.")
    ] = 1,
    tokens: Annotated[
        int, typer.Option("--tokens", min=1, max=_MOST, metavar="M", help="m, tokens of an input.")
    ] = 1,
    lipschitz: Annotated[
        Fraction,
        options.parsed("--lipschitz", parser=positive, metavar="L", help="L, of the maps."),
    ] = Fraction(1),
    eps: Annotated[
        Fraction, options.parsed("--eps", parser=positive, metavar="E", help="Error allowed.")
    ] = _EPS,
    exponent: Annotated[
        Fraction,
        options.parsed(
            "--exponent", parser=positive, metavar="P", help="p of the entrywise norm, 1 or more."
        ),
    ] = Fraction(2),
    pairs: Annotated[
        int | None,
        typer.Option(
            "--pairs",
            min=1,
            max=_MOST,
            metavar="N",
            help="Also count the numbers a prompt and LoRA train for N.",
        ),
    ] = None,
    heads: Annotated[
        int | None,
        typer.Option(
            "--heads", min=1, max=_MOST, metavar="H", help="Heads of the layer of --pairs (1)."
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Prompt tokens that suffice, and those that are needed.

    The maps are the L-Lipschitz maps of [0,1]^(d x m). With --pairs, the trained numbers for N
    answers of one layer: a prompt's, at least, and those of a LoRA-like change of the MLP, at most.

    Example: promptlimits construct sizes --dim 4 --pairs 2
    """
    from promptlimits.bounds.prompt_parameters import trained_numbers
    from promptlimits.lab.universal.universal_bound import FunctionClass, prompt_lengths

    target = FunctionClass(dim=dim, tokens=tokens, lipschitz=lipschitz, eps=eps, exponent=exponent)
    if pairs is None and heads is not None:
        raise UserError("--heads", "come with --pairs", got="none", remedy="write --pairs 100")
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
    lines = [
        (
            f"L-Lipschitz maps of [0,1]^({dim} x {tokens}), L = {_written(lipschitz)}, to within "
            f"{_written(eps)} in the entrywise {_written(exponent)}-norm"
        ),
        *_lengths_in_words(found),
    ]
    if pairs is not None:
        numbers = trained_numbers(pairs=pairs, dim=dim, heads=heads or 1)
        record |= {"pairs": pairs, "heads": heads or 1} | asdict(numbers)
        lines += [
            f"{pairs} answers of one layer of width {dim} (wang2023, Theorem 3 and Lemma 5)",
            (
                f"  a prompt, for some data: at least {numbers.prompt_tokens:,} tokens, "
                f"{numbers.prompt_numbers:,} numbers"
            ),
            (
                f"  LoRA, for all data that attention tells apart: {numbers.lora_numbers:,} "
                "numbers are enough"
            ),
        ]
    show(record, lines, as_json=as_json)


def _written(number: Fraction) -> str:
    """A number as a person writes it."""
    return f"{float(number):.12g}" if Fraction(f"{float(number):.12g}") == number else str(number)


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


def _map_of(name: Function, lipschitz: Fraction | None) -> RealMap:
    from dataclasses import replace

    from promptlimits.lab.universal.universal import BUILT_IN

    real_map = BUILT_IN[name]
    if lipschitz is None:
        return real_map
    if lipschitz < real_map.lipschitz:
        raise UserError(
            "--lipschitz",
            f"be at least {real_map.lipschitz}, the constant of {name}",
            got=f"{float(lipschitz):.6g}",
            remedy="leave it out",
        )
    return replace(real_map, lipschitz=lipschitz)


def _by_table(
    real_map: RealMap, eps: Fraction | None, *, drawn: bool
) -> tuple[JsonObject, list[str], str]:
    import numpy as np

    from promptlimits.lab.universal.universal import measure_error, universal_prompt

    wanted = _EPS if eps is None else eps
    with named():
        built = universal_prompt(real_map, wanted)
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
    record = _record(built, found, float(wanted))
    unit = np.linspace(0, 1, _DRAWN).reshape(-1, 1, 1)
    drawing = _drawing(real_map, record, unit, built.answers(unit)) if drawn else ""
    return record, _lines(record), drawing


def _by_stages(
    real_map: RealMap, eps: Fraction | None, *, drawn: bool
) -> tuple[JsonObject, list[str], str]:
    import numpy as np

    from promptlimits.lab.universal.paper_route import staged_prompt

    with named():
        built = staged_prompt(real_map, eps)
    record = built.to_json()
    if not drawn:
        return record, _stage_lines(record), ""
    points = [Fraction(k, _DRAWN_EXACTLY) for k in range(_DRAWN_EXACTLY)]
    unit = np.array([float(x) for x in points])
    return record, _stage_lines(record), _drawing(real_map, record, unit, built.answers(points))


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
    from promptlimits.lab.universal.universal_bound import as_float_above
    from promptlimits.lipschitz.balls.matrix import float_up

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
        "exceptional_measure": float_up(network.bound.exceptional_measure),
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


def _first_line(record: dict[str, Any]) -> str:
    (low, high), (base, top) = record["domain"], record["values"]
    return (
        f"{record['function']} on [{low:.6g}, {high:.6g}], values in [{base:.6g}, {top:.6g}], "
        f"Lipschitz with constant {record['lipschitz']:.6g}"
    )


def _lines(record: dict[str, Any]) -> list[str]:
    return [
        _first_line(record),
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


def _stage_lines(record: dict[str, Any]) -> list[str]:
    standard = record["standard_layers"]
    return [
        _first_line(record),
        (
            f"  network: {record['quantiser_layers']} layers that quantise, "
            f"{record['layers_with_attention']} with attention, {record['value_layers']:,} of the "
            "value map, run exactly; they know the grid, not the map"
        ),
        (
            f"  prompt:  {record['prompt_tokens']} tokens, the table of the map on "
            f"{record['cells_per_side']} cells a side"
        ),
        f"  proved:  off a set of measure 0 the error is at most {record['bound']:.6g}",
        (
            f"  found:   {record['measured_sup_error']:.6g}, the largest at "
            f"{record['measured_points']} inputs"
        ),
        "  as softmax and ReLU: not in float64, whose numbers are too coarse for the ids"
        if standard is None
        else f"  as softmax and ReLU: {standard['weights']:,} weights of width "
        f"{standard['width']}; found {standard['measured_sup_error']:.6g} off a quarter of the "
        "inputs, where its ramps are",
    ]


def _drawing(real_map: RealMap, record: dict[str, Any], unit: Any, answers: Any) -> str:
    import numpy as np

    from promptlimits.report.figures.universal_prompt import UniversalPrompt

    inputs = real_map.inputs(unit)
    return UniversalPrompt(
        inputs.ravel().tolist(),
        np.asarray(real_map.function(inputs)).ravel().tolist(),
        answers.ravel().tolist(),
        name=real_map.name,
        bound=record["bound"],
        largest_error=record["measured_sup_error"],
        prompt_tokens=record["prompt_tokens"],
    ).svg()
