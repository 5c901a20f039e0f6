"""`promptlimits oracle`: the least error of any prompt of any length on one layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from promptlimits.base.errors import UserError
from promptlimits.cli import options
from promptlimits.cli.lab.weights_options import Layer, read_pairs
from promptlimits.cli.output import require_writable, show, write_whole

if TYPE_CHECKING:
    from promptlimits.base.files import JsonObject
    from promptlimits.lab.one_layer.oracle.certificate import Objective
    from promptlimits.lab.one_layer.setting import Floats, SharedQuery
    from promptlimits.nets.paper.weights import LayerWeights

_LENGTHS: Final = (1, 2, 3, 4, 8)
_STARTS: Final = 8
_MOST_QUERIES: Final = 64
_MOST_TOKENS: Final = 10_000
_ROUNDING: Final = 1e-12
_CLOSED: Final = 0.01
"""Gap to the proof up to which a prompt is called one that attains the optimum."""

_OBJECTIVES: Final[tuple[tuple[str, Objective, str], ...]] = (
    ("sum_of_squares", "sum of squares", "sum of squared errors"),
    ("largest", "largest error", "largest error, not squared"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Case:
    setting: SharedQuery
    targets: Floats
    unique: bool
    error: float


@options.with_groups
def oracle(
    layer: Layer,
    pairs: Annotated[
        Path | None,
        typer.Option(
            "--pairs",
            metavar="FILE",
            help='Queries that end with one token, and answers: {"queries": [[token, ..], ..], '
            '"answers": [[..], ..]}, d numbers for a token or an answer.',
        ),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option(
            "--k", min=1, max=10**9, metavar="K", help="So many random pairs instead of a file."
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            "--tokens",
            metavar="M",
            min=1,
            max=_MOST_TOKENS,
            help="Also the least sum of squares of prompts of M tokens, for one head whose values "
            "determine its scores.",
        ),
    ] = None,
    plot: options.Plot = None,
    boxes: Annotated[
        int | None,
        typer.Option(
            "--boxes",
            min=1,
            max=10**9,
            metavar="N",
            help="Boxes that each proof may look at; by default as many as take some seconds on "
            "one core. More close a gap, as far as it can be.",
        ),
    ] = None,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """The least error of any prompt, of any length, on one layer.

    Errors are of attention's output before the MLP, against the offsets that the answers stand
    for. Found is the error of an actual prompt, measured on the layer; proved is a limit
    below which no prompt of any length goes; relaxed is the estimated least error over all
    statistics of attention, which no prompt need reach. All three are squares for the sum of
    squares, and no squares for the largest error. The same command gives the same numbers on a
    machine that is busy or idle.

    Example: promptlimits oracle --random-layer d=6,h=2,seed=1 --k 3
    """
    import numpy as np

    require_writable("--plot", plot)
    case = _case(layer.read(), pairs, k, seed)
    generator = np.random.default_rng(seed)
    of_length = None if tokens is None else _of_length(case, tokens, boxes)
    record = _record(case, generator, boxes) | {"of_length": of_length}
    if plot is not None:
        write_whole("--plot", plot, _drawing(case, record, generator))
    show(record, _lines(record), as_json=as_json)


def _case(layer: LayerWeights, pairs: Path | None, k: int | None, seed: int) -> _Case:
    import numpy as np

    from promptlimits.lab.one_layer.error_floor import preimages
    from promptlimits.lab.one_layer.setting import SharedQuery, shared_query

    options.one_of("the pairs", "--k 2, or --pairs FILE", pairs=pairs, k=k)
    if pairs is not None:
        data = read_pairs(pairs, layer.dim)
        _require_few(len(data.queries))
        setting = SharedQuery(layer=layer, queries=data.queries)
        found = preimages(layer, setting.token, data.answers)
        return _Case(setting=setting, targets=found.offsets, unique=found.unique, error=found.error)
    number = k or 0
    _require_few(number)
    generator = np.random.default_rng([seed, number, layer.dim])
    tokens = generator.standard_normal((number + 1, layer.dim))
    return _Case(
        setting=shared_query(layer, tokens[0], list(tokens[1:])),
        targets=generator.standard_normal((number, layer.dim)),
        unique=True,
        error=0.0,
    )


def _require_few(number: int) -> None:
    if number > _MOST_QUERIES:
        raise UserError("the pairs", f"be at most {_MOST_QUERIES}", got=number, remedy="give fewer")


def _record(case: _Case, generator: Any, most_boxes: int | None) -> JsonObject:
    from promptlimits.lab.one_layer.error_floor import contraction
    from promptlimits.lab.one_layer.reachable import reach
    from promptlimits.lipschitz.balls.matrix import float_down

    numbers = reach(case.setting)
    record: JsonObject = {
        "dim": numbers.dim,
        "heads": numbers.heads,
        "queries": numbers.queries,
        "reachable_dimension": numbers.reachable,
        "ambient_dimension": numbers.ambient,
        "almost_every_target_out_of_reach": numbers.out_of_reach,
        "mlp_contraction": float_down(contraction(case.setting.layer)),
        "offsets": case.targets.tolist(),
        "offsets_meet_answers_to": case.error,
        "preimages_unique": case.unique,
    }
    for name, objective, _ in _OBJECTIVES:
        record[name] = _one(case, objective, generator, most_boxes)
    return record


def _one(case: _Case, objective: Objective, generator: Any, most_boxes: int | None) -> JsonObject:
    from promptlimits.lab.one_layer.oracle.value import certify_value, oracle_value
    from promptlimits.lipschitz.balls.matrix import float_down

    value = oracle_value(case.setting, case.targets, objective=objective, generator=generator)
    proof = certify_value(case.setting, case.targets, value, most_boxes=most_boxes)
    lower = max(float_down(proof.lower), 0.0)
    # Below rounding a relative gap says nothing.
    gap = max(1 - lower / value.found, 0.0) if value.found > _ROUNDING else 0.0
    return value.to_json() | {
        "proved": lower,
        "gap": gap,
        "attained": value.attained and gap <= _CLOSED,
        "certificate": proof.to_json(),
    }


def _of_length(case: _Case, tokens: int, most_boxes: int | None) -> JsonObject:
    from promptlimits.lab.one_layer.oracle.certificate import certify_oracle
    from promptlimits.lab.one_layer.oracle.length import best_of_length
    from promptlimits.lipschitz.balls.matrix import float_down

    best = best_of_length(case.setting, case.targets, tokens=tokens)
    found = best.found if best.achieved is None else best.achieved
    proof = certify_oracle(
        case.setting,
        case.targets,
        found=found,
        aim_squares=best.found,
        tokens=tokens,
        most_boxes=most_boxes,
    )
    return {
        "tokens": tokens,
        "unit": proof.to_json()["unit"],
        "found": best.achieved,
        "proved": max(float_down(proof.lower), 0.0),
        "certificate": proof.to_json(),
        "prompt": None if best.prompt is None else best.prompt.tolist(),
    }


def _lines(record: Any) -> list[str]:
    lines = [
        (
            f"{record['queries']} queries, width {record['dim']}, heads {record['heads']}: "
            f"prompts of any length choose {record['reachable_dimension']} of "
            f"{record['ambient_dimension']} numbers"
        )
    ]
    for name, _, heading in _OBJECTIVES:
        lines += [f"{heading}, before the MLP", *_lines_of(record[name])]
    if record["of_length"] is not None:
        each = record["of_length"]
        lines.append(
            f"sum of squares of prompts of length {each['tokens']}: {each['found']:.9g} found, "
            f"by an actual prompt; {each['proved']:.9g} proved, none of that length goes below it"
        )
    if not record["preimages_unique"]:
        lines.append("the MLP is not proved one to one: other pre-images of the answers may exist")
    return lines


def _lines_of(each: Any) -> list[str]:
    tokens = each["prompt_tokens"]
    plural = "" if tokens == 1 else "s"
    lines = [
        f"  found    {each['found']:.9g}, by an actual prompt of {tokens} token{plural}",
        (
            f"  proved   {each['proved']:.9g}, no prompt of any length goes below it "
            f"(gap {each['gap']:.1e})"
        ),
    ]
    if not each["attained"] and each["relaxation"] > each["proved"]:
        lines.append(
            f"  relaxed  {each['relaxation']:.9g}, estimated infimum over statistics, perhaps no "
            "prompt's"
        )
    if not each["attained"] and each["gap"] > _CLOSED:
        lines.append("  the bracket is open: better prompts may exist")
    lines.append(f"  {each['why']}")
    return lines


def _drawing(case: _Case, record: Any, generator: Any) -> str:
    from promptlimits.lab.one_layer.realise import train_prompt
    from promptlimits.report.figures.prompt_error import PromptError

    found = [
        train_prompt(case.setting, case.targets, tokens, generator, starts=_STARTS).squares ** 0.5
        for tokens in _LENGTHS
    ]
    floor = float(record["sum_of_squares"]["proved"]) ** 0.5
    return PromptError(
        _LENGTHS, found, [floor] * len(found), name="root of the sum of squared errors"
    ).svg()
