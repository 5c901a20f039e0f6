"""`promptlimits unmemorizable`: data that a layer answers wrongly behind every prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

import typer

from promptlimits.base.errors import UserError
from promptlimits.cli import options
from promptlimits.cli.lab.weights_options import Layer
from promptlimits.cli.output import as_text, require_writable, show, write_whole

if TYPE_CHECKING:
    from promptlimits.lab.one_layer.data_set import DataSet
    from promptlimits.lab.one_layer.prompt_length_data import LoraUpdate
    from promptlimits.nets.paper.weights import LayerWeights

Kind: TypeAlias = Literal["pair", "any", "length"]
_LENGTHS: Final = (1, 2, 4, 8)


@options.with_groups
def unmemorizable(
    layer: Layer,
    kind: Annotated[
        Kind | None,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="pair: two queries for one head, in closed form; any: h + 1 queries for h heads; "
            "length: N pairs that take N/h prompt tokens. By default pair for one head, else any.",
        ),
    ] = None,
    pairs: Annotated[
        int | None,
        typer.Option("--pairs", min=1, max=10**9, metavar="N", help="Pairs of --kind length."),
    ] = None,
    lora: Annotated[
        bool,
        typer.Option(
            "--lora",
            help="Also construct a LoRA change of the MLP that answers them all, and run it; the "
            "MLP needs a hidden neuron for each pair.",
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the data set, as JSON.")
    ] = None,
    plot: options.Plot = None,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Find data that a layer answers wrongly behind every prompt.

    The proof is checked. All queries end with the same token. What is proved speaks of the numbers
    in the file. With --kind length: queries that end differently, and that take a prompt of N/h
    tokens.

    Example: promptlimits unmemorizable --random-layer d=8,h=1
    """
    read = layer.read()
    chosen = _kind(kind, pairs, read)
    require_writable("--out", out)
    require_writable("--plot", plot)
    data = _data(read, pairs, chosen, seed)
    record = data.to_json() | {"kind": chosen}
    lines = _lines(read, data, chosen)
    if lora:
        update = _lora(read, data, seed)
        record["lora"] = update.to_json()
        lines.append(
            f"  found: a LoRA change of the MLP by {update.numbers:,} numbers answers them all, "
            f"with a largest error of {update.error:.3g}, measured on the changed layer"
        )
    if out is not None:
        write_whole("--out", out, as_text(record) + "\n")
        lines.append(f"Written: {out}")
    if plot is not None:
        write_whole("--plot", plot, _drawing(read, data, chosen, seed))
    show(record, lines, as_json=as_json)


def _kind(kind: Kind | None, pairs: int | None, layer: LayerWeights) -> Kind:
    chosen: Kind = kind or ("length" if pairs else "pair" if len(layer.heads) == 1 else "any")
    if (pairs is not None) != (chosen == "length"):
        raise UserError(
            "--pairs",
            "be given with --kind length, and only then",
            got=f"--kind {chosen} and --pairs {pairs}",
            remedy="write --kind length --pairs 3",
        )
    return chosen


def _data(layer: LayerWeights, pairs: int | None, kind: Kind, seed: int) -> DataSet:
    import numpy as np

    from promptlimits.lab.one_layer.prompt_length_data import prompt_length_data
    from promptlimits.lab.one_layer.unmemorizable import unmemorizable_pair, unmemorizable_set

    generator = np.random.default_rng(seed)
    if kind == "length":
        return prompt_length_data(layer, pairs or 0, generator)
    if kind == "pair":
        return unmemorizable_pair(layer, generator)
    return unmemorizable_set(layer, generator)


def _lora(layer: LayerWeights, data: DataSet, seed: int) -> LoraUpdate:
    import numpy as np

    from promptlimits.lab.one_layer.prompt_length_data import lora_update

    return lora_update(layer, data, np.random.default_rng(seed))


def _lines(layer: LayerWeights, data: DataSet, kind: str) -> list[str]:
    found = data.proved
    head = f"{len(data.queries)} queries for a layer of width {layer.dim}, heads {len(layer.heads)}"
    words = {True: "checked", False: "not proved", None: "assumed"}
    checked = [f"  {words[each.holds]}: {each.text}" for each in data.assumptions]
    if kind == "length":
        least = found["prompt_tokens_at_least"]
        lines = [head, f"  proved: no prompt of fewer than {least} tokens answers them all"]
        lines += [
            f"    {row['prompt_tokens']:>4} prompt tokens: some answer is wrong by at least "
            f"{row['largest_error_at_least']:.6g}"
            for row in found["errors_of_shorter_prompts"]
        ]
        return lines + checked
    error, before = (
        found["largest_error_at_least"],
        found["largest_error_before_the_mlp_at_least"],
    )
    told = (
        f"behind every prompt of every length some answer is wrong by at least {error:.6g} "
        f"({before:.6g} before the MLP)"
        if error > 0
        else "no prompt of any length meets the answers exactly; no floor under the error is proved"
    )
    return [head, f"  proved: {told}", *checked]


def _drawing(layer: LayerWeights, data: DataSet, kind: str, seed: int) -> str:
    import numpy as np

    from promptlimits.lab.one_layer.reachable import segment
    from promptlimits.lab.one_layer.realise import train_prompt
    from promptlimits.lab.one_layer.setting import SharedQuery
    from promptlimits.report.figures import reachable_segment
    from promptlimits.report.figures.prompt_error import PromptError

    if data.offsets is None:
        raise ValueError("data made here have offsets")
    if kind == "length":
        rows = data.proved["errors_of_shorter_prompts"]
        lengths = [row["prompt_tokens"] for row in rows] or [1]
        name = "largest_error_before_the_mlp_at_least"
        floors = [float(row[name]) for row in rows] or [0.0]
        return PromptError(lengths, [], floors, name="largest error before the MLP").svg()
    setting = SharedQuery(layer=layer, queries=data.queries)
    if kind == "pair":
        reached = segment(setting, data.offsets[0])
        return reachable_segment.data(
            reached.first.tolist(),
            reached.end.tolist(),
            data.offsets[1].tolist(),
            {tokens: reached.reached(tokens) for tokens in _LENGTHS},
        ).svg()
    generator = np.random.default_rng(seed)
    found = [train_prompt(setting, data.offsets, n, generator, starts=4) for n in _LENGTHS]
    floor = float(data.proved["largest_error_before_the_mlp_at_least"])
    return PromptError(
        _LENGTHS,
        [each.largest for each in found],
        [floor] * len(found),
        name="largest error before the MLP",
    ).svg()
